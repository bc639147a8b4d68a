import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { TestLine } from './console-endpoints.test.helper.ts';
import { ConsoleLog } from './console-log.ts';

function logAt(path: string, limit: number) {
  const steps: (() => void)[] = [];
  const log = new ConsoleLog({ path, limit }, { later: (step) => steps.push(step) });
  return { log, line: new TestLine(log), steps };
}

function logIn(t: TestContext, limit: number, existing = '') {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-console-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'log');
  writeFileSync(path, existing);
  return { folder, path, ...logAt(path, limit) };
}

test('D9: a log holds text, and never more than its limit, twice', (t) => {
  const { folder, path, log, line, steps } = logIn(t, 100, 'from before\n');
  line.write(Buffer.from('\x1b[31mred\r\n'));
  assert.equal(readFileSync(path, 'utf8'), 'from before\n^[[31mred\n');
  for (let i = 0; i < 1000; i++) {
    line.write(Buffer.from(`line ${i}\n`));
    for (const step of steps.splice(0)) step();
  }
  assert.deepEqual(readdirSync(folder).sort(), ['log', 'log.1']);
  const text = readFileSync(`${path}.1`, 'utf8') + readFileSync(path, 'utf8');
  assert.ok(text.length <= 200 && text.endsWith('line 998\nline 999\n'), text);
  assert.equal(log.lost, 0);
  log.close();
});

test('F25: a guest that writes without end gets 64 KiB a turn', (t) => {
  const { log, line, steps } = logIn(t, 2 ** 20);
  assert.equal(line.write(Buffer.alloc(200_000, 'x')), 200_000 - 65_536);
  assert.equal(steps.length, 1);
  steps.shift()?.();
  assert.equal(line.waiting, 200_000 - 2 * 65_536);
  log.close();
});

test('O4: a log that cannot be written is counted, and the guest goes on', () => {
  const { log, line } = logAt('/dev/full', 2 ** 20);
  assert.equal(line.write(Buffer.from('nobody will know')), 0);
  assert.equal(log.lost, 16);
  log.close();
});
