// `grantio run --trace`: a file for ui.perfetto.dev, which is readable when it was cut, too, and which may
// fail without failing the run.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { EXPOSURE_MODES } from '../../src/dma/exposure-modes.ts';
import { grantio, startGrantio, temporaryFolder, tracing } from '../support/grantio.ts';
import { parseReport } from '../support/report.ts';

/** The events of a trace in the JSON array format, in which the closing bracket may be missing. */
function parseTrace(text: string): readonly { readonly ph: string; readonly name?: string }[] {
  const open = text.trimEnd().replace(/,$/, '');
  return JSON.parse(open.endsWith(']') ? open : `${open}]`);
}

function diskIn(folder: string): void {
  writeFileSync(join(folder, 'disk.img'), Buffer.alloc(2 ** 20, 0x42));
}

test('the trace is a JSON array of events', async (t) => {
  const folder = temporaryFolder(t);
  diskIn(folder);
  const words = ['run', '--disk', 'disk.img', '--trace', 'trace.json', '--json'];
  const { status, stdout, stderr } = await grantio(t, words, { cwd: folder });
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  assert.equal(parseReport(stdout).length, EXPOSURE_MODES.length);
  const text = readFileSync(join(folder, 'trace.json'), 'utf8');
  const events = JSON.parse(text) as ReturnType<typeof parseTrace>;
  assert.ok(events.length > 100, `${events.length} events`);
  assert.ok(
    events.every(({ ph }) => typeof ph === 'string' && ph.length === 1),
    'an event has no phase',
  );
});

test('a trace cut at the end of any line can be read', async (t) => {
  const folder = temporaryFolder(t);
  diskIn(folder);
  const words = ['run', '--disk', 'disk.img', '--mode', 'bounce', '--trace', 'trace.json'];
  const { status, stderr } = await grantio(t, words, { cwd: folder });
  assert.equal(status, 0, stderr);
  const text = readFileSync(join(folder, 'trace.json'), 'utf8');
  const whole = parseTrace(text);
  for (const part of [0.1, 0.5, 0.9]) {
    const cut = text.slice(0, text.lastIndexOf('\n', text.length * part) + 1);
    const events = parseTrace(cut);
    assert.ok(events.length > 0, `nothing is left at ${part}`);
    assert.deepEqual(events, whole.slice(0, events.length));
  }
});

test('C8: the trace of a run that was killed can be read up to its last full line', async (t) => {
  const folder = temporaryFolder(t);
  diskIn(folder);
  truncateSync(join(folder, 'disk.img'), 2 ** 31);
  const trace = join(folder, 'trace.json');
  const running = startGrantio(t, ['run', '--disk', 'disk.img', '--trace', 'trace.json'], { cwd: folder });
  await tracing(running, trace);
  running.signal('SIGKILL');
  assert.equal((await running.ended).signal, 'SIGKILL');
  const text = readFileSync(trace, 'utf8');
  const events = parseTrace(text.slice(0, text.lastIndexOf('\n') + 1));
  assert.ok(events.length > 100, `${events.length} events`);
});

test('O4: a full disk ends the trace and not the run', { skip: !existsSync('/dev/full') }, async (t) => {
  const folder = temporaryFolder(t);
  diskIn(folder);
  const words = ['run', '--disk', 'disk.img', '--trace', '/dev/full', '--json'];
  const { status, stdout, stderr } = await grantio(t, words, { cwd: folder });
  assert.equal(status, 0, stderr);
  assert.match(stderr, /^grantio: [^\n]*\/dev\/full[^\n]*\n$/, 'expected one line about the trace');
  for (const { mode, identical, leakedGrants } of parseReport(stdout))
    assert.deepEqual({ mode, identical, leakedGrants }, { mode, identical: true, leakedGrants: 0 });
});
