import assert from 'node:assert/strict';
import { test } from 'node:test';
import { consoleQueues, consoleSpec } from './serve-console.ts';
import { type GivenOptions, OptionReader } from './serve-options.ts';
import { UsageError } from './usage.ts';

const specOf = (given: GivenOptions) => consoleSpec(new OptionReader(given));

test('a terminal and ports, and what each is connected to', () => {
  const spec = specOf({ console: 'pty:/run/vm1', ports: 'agent=socket:a:b,log=log:l', 'log-limit': '2' });
  assert.deepEqual(spec, {
    kind: 'console',
    ports: [
      { name: '', isConsole: true, connection: { kind: 'pty', path: '/run/vm1' } },
      { name: 'agent', isConsole: false, connection: { kind: 'socket', path: 'a:b' } },
      { name: 'log', isConsole: false, connection: { kind: 'log', path: 'l', limit: 2 ** 21 } },
    ],
  });
  assert.equal(consoleQueues(spec), 8);
  assert.deepEqual(specOf({ console: 'stdio' }).ports[0].connection, { kind: 'stdio' });
});

for (const [given, message] of [
  [{}, /^--console is missing: socket:PATH/],
  [{ console: 'tcp:1' }, /^--console 'tcp:1': expected socket:PATH/],
  [{ console: 'socket:' }, /^--console 'socket:': expected/],
  [{ ports: 'socket:x' }, /^--ports 'socket:x': expected NAME=CONNECTION/],
  [{ ports: '=stdio' }, /^--ports '=stdio': expected NAME=CONNECTION/],
  [{ ports: `${'x'.repeat(65)}=stdio` }, /65 bytes, expected at most 64/],
  [{ ports: Array.from({ length: 32 }, (_, i) => `p${i}=log:l`).join(',') }, /32 ports, expected at most 31/],
  [{ console: 'stdio', ports: 'a=stdio' }, /standard input and output are for one port/],
  [{ console: 'log:l', 'log-limit': '0' }, /^--log-limit '0': expected a whole number/],
] as const)
  test(`O1: serve console ${JSON.stringify(given).slice(0, 60)} is refused in a sentence`, () => {
    assert.throws(
      () => specOf(given),
      (error) => error instanceof UsageError && message.test(error.message),
    );
  });
