import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DMA_TO_DEVICE } from '../trace.ts';
import { auditJson, auditSarif } from './audit-json.ts';
import { auditText } from './audit-text.ts';
import {
  audited,
  auditOf,
  BACKEND,
  DISK,
  directRead,
  GUEST,
  NET,
  traceText,
} from './auditing.test.helper.ts';

const plain = { colour: false, width: 100 };

/** Two reads by way of one stack, in a run that is named. */
const reads = audited(({ clock, trace, writer }) => {
  writer.beginRun('direct');
  clock.now += 5000;
  directRead(trace, 7, 3);
  directRead(trace, 8, 3);
  writer.addStacks(new Map([[3, 'at read (blk.ts:1)\n  at main (guest.ts:2)']]));
});

test('a finding says who, how much, whose, for which request, and by way of which stack', () => {
  const text = auditText(reads, 't.json', plain);
  const paragraph = text.slice(
    text.indexOf('error: foreign-readable'),
    text.indexOf('\n\n', text.indexOf('error: foreign-readable')),
  );
  assert.deepEqual(paragraph.split('\n'), [
    'error: foreign-readable: xvda, direct: 2 times, 7.97 KiB, 3.98 KiB at once at most',
    '  rule:   A backend can read nothing but the buffers that its device shares',
    "  whose:  7.97 KiB of the kernel's",
    '  for:    read requests',
    '  first:  event 2, after 0 ns, reference 8, frame 0x64, domain 1, 3.98 KiB, request 7 (read, 512 B)',
    '  why:    A grant is a whole page: whatever lies beside the buffer can be read too (XSA-403).',
    '  help:   use an exposure mode that shares no whole pages of the kernel: bounce, persistent or copy',
    '  stack:  at read (blk.ts:1)',
    '          at main (guest.ts:2)',
  ]);
  assert.match(text, /stack: +number 4, whose text is not in the trace$/m);
  assert.match(text, /\n2 errors, 0 warnings, 0 notes\n$/);
});

test('each of several devices has a column, and there is one for all', () => {
  const report = audited(({ trace }) => {
    directRead(trace, 1);
    trace.grant(GUEST, BACKEND, 8, 100, 1, true);
    trace.need(GUEST, NET, 8, 0, 16, DMA_TO_DEVICE);
    trace.revoke(GUEST, 8, 1);
    trace.needEnd(GUEST, NET, 8, 0, 16);
  });
  assert.match(auditText(report, 't.json', plain), /│ xvda direct │ net0 direct │ all direct │/);
});

test('a trace with nothing to find says so', () => {
  const report = audited(({ trace }) => trace.requestBegin(GUEST, DISK, 1, 0, 0));
  assert.match(auditText(report, 't.json', plain), /\nno findings: /);
});

test('colour marks severities and rules, and nothing else changes', () => {
  const coloured = auditText(reads, 't.json', { colour: true, width: 100 });
  const [red, bold, reset] = ['31', '1', '0'].map((code) => `\u001b[${code}m`);
  assert.ok(coloured.includes(`${red}error${reset}: ${bold}foreign-readable${reset}: xvda`));
  const without = [red, bold, reset, '\u001b[32m'].reduce(
    (text, code) => text.replaceAll(code, ''),
    coloured,
  );
  assert.equal(without, auditText(reads, 't.json', plain));
});

test('O3: names and stacks of a trace do not speak to the terminal', () => {
  const hostile = 'x\u001b]0;title\u0007\u202e';
  const text = traceText(({ trace, writer }) => {
    writer.beginRun(hostile);
    directRead(trace, 1, 3);
    writer.addStacks(new Map([[3, hostile]]));
  }, hostile);
  const printed = auditText(auditOf(text), 't.json', plain);
  assert.ok(!['\u001b', '\u0007', '\u202e'].some((character) => printed.includes(character)));
});

test('the documents for programs carry every finding, with its request, its stack and its place', () => {
  const document = JSON.parse(auditJson(reads, 't.json'));
  assert.deepEqual(document.counts, { error: 2, warning: 0, note: 0 });
  const [readable] = document.runs[0].findings.filter(
    ({ rule }: { rule: string }) => rule === 'foreign-readable',
  );
  assert.deepEqual(readable.stack, { number: 3, text: 'at read (blk.ts:1)\n  at main (guest.ts:2)' });
  assert.deepEqual([readable.severity, readable.count, readable.first.request.id], ['error', 2, 7]);
  const [{ results }] = JSON.parse(auditSarif(reads, 'a b.json')).runs;
  assert.equal(results.length, 2);
  assert.equal(results[0].locations[0].physicalLocation.artifactLocation.uri, 'a%20b.json');
  assert.deepEqual(
    results.map(({ properties }: { properties: { count: number } }) => properties.count),
    [2, 2],
  );
});
