// The log: lines that people and machines can read, nothing that writes to a terminal, and a flood that stays short.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Notice } from '../serving/control.ts';
import { jsonPrinter } from './log-json.ts';
import { logText, prettyPrinter, printable } from './log-text.ts';
import { operationOptionsFor, operationPlan } from './operation.ts';
import { type LogEntry, type LogLevel, ServeLog } from './serve-log.ts';
import { UsageError } from './usage.ts';

const TIME = new Date(Date.UTC(2026, 10, 22, 22, 5, 9, 250));
const WARNING: Notice = { level: 'warn', device: 'root', message: 'closed the connection', clause: '§2.7.5' };

/** A log whose lines and clock the test has. */
class Bench {
  now = TIME.getTime();
  readonly entries: LogEntry[] = [];
  readonly log: ServeLog;

  constructor(level: LogLevel = 'info') {
    this.log = new ServeLog({ level, print: (entry) => this.entries.push(entry), now: () => this.now });
  }
}

test('a line for people has time, level, device, sentence and rule', () => {
  assert.equal(
    logText({ ...WARNING, time: TIME }, false),
    '2026-11-22 22:05:09 warn  root: closed the connection (§2.7.5)\n',
  );
  assert.equal(
    logText({ level: 'info', device: '', message: 'ready', time: TIME, repeated: 3 }, false),
    '2026-11-22 22:05:09 info  ready [3 more like this were not shown]\n',
  );
});

test('colours are there where they are wanted, and only there', () => {
  assert.ok(logText({ ...WARNING, time: TIME }, true).includes('\x1b[33mwarn \x1b[0m'));
  assert.ok(!logText({ ...WARNING, time: TIME }, false).includes('\x1b'));
});

test('a line for machines is one JSON object with the same', () => {
  const lines: string[] = [];
  jsonPrinter((text) => lines.push(text))({ ...WARNING, time: TIME, repeated: 2 });
  assert.equal(lines.length, 1);
  assert.ok(lines[0].endsWith('}\n'));
  const { pid, ...rest } = JSON.parse(lines[0]) as Record<string, unknown>;
  assert.equal(pid, process.pid);
  assert.deepEqual(rest, {
    level: 'warn',
    time: '2026-11-22T22:05:09.250Z',
    device: 'root',
    clause: '§2.7.5',
    repeated: 2,
    msg: 'closed the connection',
  });
});

test('D9: whatever is logged, a line has no character that moves a cursor, hides or turns text', () => {
  const hostile = fc.string({
    unit: fc.constantFrom('\x1b', '\n', '\r', '\0', '\x9b', '\u202e', '\u2028', 'a', '['),
  });
  fc.assert(
    fc.property(hostile, hostile, hostile, (device, message, clause) => {
      const entry: LogEntry = { level: 'error', device, message, clause, time: TIME };
      const lines: string[] = [];
      prettyPrinter((text) => lines.push(text), false)(entry);
      jsonPrinter((text) => lines.push(text))(entry);
      for (const line of lines) assert.match(line, /^[^\p{Cc}\p{Cf}\p{Zl}]*\n$/u);
    }),
    { seed: 9, numRuns: 300 },
  );
  assert.equal(printable('a\x1b[2Jb'), 'a\\u{1b}[2Jb');
});

test('the level is the least that is logged', () => {
  const seen = (level: LogLevel): string[] => {
    const bench = new Bench(level);
    for (const one of ['info', 'warn', 'error'] as const) bench.log.notice({ ...WARNING, level: one });
    return bench.entries.map((entry) => entry.level);
  };
  assert.deepEqual(seen('info'), ['info', 'warn', 'error']);
  assert.deepEqual(seen('warn'), ['warn', 'error']);
  assert.deepEqual(seen('silent'), []);
});

test('a flood of the same, apart from numbers, is shown five times and then counted', () => {
  const bench = new Bench();
  for (let i = 0; i < 1000; i++)
    bench.log.notice({ ...WARNING, message: `head ${i} of 0x${i.toString(16)}00 in a queue of 8` });
  assert.equal(bench.entries.length, 5);
  bench.now += 10_000;
  bench.log.notice({ ...WARNING, message: 'something else' });
  assert.deepEqual(
    bench.entries.slice(5).map(({ message, repeated }) => [message.slice(0, 8), repeated]),
    [
      ['head 999', 995],
      ['somethin', undefined],
    ],
  );
});

test('another device is not silenced by a flood, and what was held back is said at the end', () => {
  const bench = new Bench();
  for (let i = 0; i < 20; i++) bench.log.notice(WARNING);
  bench.log.notice({ ...WARNING, device: 'other' });
  assert.equal(bench.entries.at(-1)?.device, 'other');
  bench.log.close();
  assert.equal(bench.entries.at(-1)?.repeated, 15);
  assert.equal(bench.entries.length, 7);
});

test('a flood of messages that are all different is bounded too', () => {
  const bench = new Bench();
  const word = (i: number): string => String.fromCharCode(0x4e00 + i);
  for (let i = 0; i < 5000; i++) bench.log.notice({ ...WARNING, message: word(i) });
  assert.equal(bench.entries.length, 256 + 5);
  bench.log.close();
  assert.equal(bench.entries.at(-1)?.repeated, 5000 - 261);
});

test('options that make no sense are refused before anything is started', () => {
  const plan = (options: Readonly<Record<string, string>>) => operationPlan((name) => options[name]);
  const usual = { metrics: undefined, logFormat: 'pretty', logLevel: 'info', trace: undefined };
  assert.deepEqual(plan({}), usual);
  assert.deepEqual(plan({ metrics: '/run/m', 'log-format': 'json', 'log-level': 'warn' }), {
    ...usual,
    metrics: { path: '/run/m' },
    logFormat: 'json',
    logLevel: 'warn',
  });
  assert.throws(() => plan({ 'log-format': 'xml' }), UsageError);
  assert.throws(() => plan({ 'log-level': 'debug' }), /expected one of info, warn, error, silent/);
  assert.throws(() => plan({ metrics: '0.0.0.0:80' }), UsageError);
});

test("a device's own process logs as its supervisor does, and has metrics of its own", () => {
  const plan = (options: Readonly<Record<string, string>>) => operationPlan((name) => options[name]);
  assert.deepEqual(operationOptionsFor(plan({ metrics: '/run/vm.metrics', 'log-level': 'error' }), 'root'), {
    ...{ metrics: '/run/vm.metrics.root', 'log-format': 'pretty', 'log-level': 'error' },
  });
  assert.throws(() => operationOptionsFor(plan({ metrics: '127.0.0.1:9100' }), 'root'), UsageError);
});
