import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Exposure } from './exposure.ts';
import { modeReport, reportTable, type RunResult } from './report.ts';

const nothing = new Exposure().total();
const run: RunResult = {
  mode: 'direct',
  identical: true,
  seconds: 2,
  requests: 1000,
  bytes: 4_096_000,
  eventsLost: 0,
};
const direct = modeReport(run, {
  ...nothing,
  pagesGranted: 3000,
  bytesNeeded: 4_113_000,
  bytesExposed: 12_288_000,
  foreignReadableBytes: 8_175_000,
  foreignWritableBytes: 4_095_000,
  maxStaleNanoseconds: 1500,
});
const bounce = modeReport({ ...run, mode: 'bounce', identical: false }, { ...nothing, leakedGrants: 2 });

/** The numbers of a row, by the words of its label. */
function rowOf(text: string, label: string): string[] {
  const line = text.split('\n').find((each) => each.startsWith(`│ ${label} `));
  return (line ?? '')
    .split('│')
    .slice(2, -1)
    .map((cell) => cell.trim());
}

test('the document of a mode has the figures of the command line first, and numbers only', () => {
  assert.deepEqual(Object.entries(direct).slice(0, 11), [
    ['mode', 'direct'],
    ['identical', true],
    ['requestsPerSecond', 500],
    ['bytesPerSecond', 2_048_000],
    ['pagesGranted', 3000],
    ['bytesNeeded', 4_113_000],
    ['bytesExposed', 12_288_000],
    ['foreignReadableBytes', 8_175_000],
    ['foreignWritableBytes', 4_095_000],
    ['maxStaleNanoseconds', 1500],
    ['leakedGrants', 0],
  ]);
  assert.deepEqual(JSON.parse(JSON.stringify(direct)), direct);
});

test('a run of no duration has a rate of 0, which JSON can carry', () => {
  const { requestsPerSecond, bytesPerSecond } = modeReport({ ...run, seconds: 0 }, nothing);
  assert.deepEqual([requestsPerSecond, bytesPerSecond], [0, 0]);
});

test('the table has a column for each mode and a row for each figure, in units', () => {
  const text = reportTable([direct, bounce], { colour: false, width: 100 });
  assert.match(text.split('\n')[1], /│ +direct │ +bounce │$/);
  assert.deepEqual(rowOf(text, 'data arrived unchanged'), ['yes', 'NO']);
  assert.deepEqual(rowOf(text, 'requests per second'), ['500', '500']);
  assert.deepEqual(rowOf(text, 'data per second'), ['1.95 MiB', '1.95 MiB']);
  assert.deepEqual(rowOf(text, 'pages granted'), ['3.00 k', '0']);
  assert.deepEqual(rowOf(text, 'exposed for each byte needed'), ['2.99 ×', '']);
  assert.deepEqual(rowOf(text, 'backend could read that was not its business'), ['7.80 MiB', '0 B']);
  assert.deepEqual(rowOf(text, '… could overwrite'), ['3.91 MiB', '0 B']);
  assert.deepEqual(rowOf(text, 'stale: page kept after its request, longest'), ['1.50 µs', '0 ns']);
  assert.deepEqual(rowOf(text, 'grants leaked'), ['0', '2']);
  for (const word of ['needed', 'exposed', 'foreign', 'stale', 'leaked'])
    assert.match(text, new RegExp(`^.*${word}.*: `, 'm'), `${word} is explained`);
  assert.doesNotMatch(text, /WARNING/);
});

test('lines are as wide as allowed at most, and columns that do not fit go below', () => {
  const modes = ['direct', 'bounce', 'persistent', 'copy'].map((mode) => ({ ...direct, mode }));
  for (let width = 40; width <= 160; width++) {
    const lines = reportTable(modes, { colour: false, width }).split('\n');
    for (const line of lines) assert.ok(line.length <= width, `${width}: ${line}`);
    const boxes = lines.filter((line) => line.startsWith('┌')).length;
    for (const mode of modes)
      assert.ok(
        lines.some((line) => line.includes(` ${mode.mode} │`)),
        mode.mode,
      );
    assert.equal(lines.filter((line) => line.includes('grants leaked')).length, boxes);
    if (width >= 100) assert.equal(boxes, 1);
    if (width === 40) assert.ok(boxes > 1);
  }
});

test('labels give way before columns do, and their numbers stand once, on the last line', () => {
  const [top] = reportTable([direct, bounce], { colour: false, width: 1000 }).split('\n');
  const narrow = reportTable([direct, bounce], { colour: false, width: top.length - 10 });
  assert.equal(narrow.split('\n')[0].length, top.length - 10);
  assert.equal(narrow.split('┌').length, 2);
  assert.equal(narrow.split('7.80 MiB').length, 2);
  assert.deepEqual(rowOf(narrow, 'business'), ['7.80 MiB', '0 B']);
});

test('colours mark good and bad by option, and change nothing else', () => {
  const coloured = reportTable([direct, bounce], { colour: true, width: 100 });
  const plain = reportTable([direct, bounce], { colour: false, width: 100 });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the escape character is what colours are made of
  assert.equal(coloured.replaceAll(/\x1b\[\d+m/g, ''), plain);
  assert.ok(!plain.includes('\x1b'));
  const leaked = coloured.split('\n').find((line) => line.includes('grants leaked'));
  assert.match(leaked ?? '', /\[32m +0.*\[31m +2/);
});

test('rows that no report has a figure for are left out', () => {
  const text = reportTable([{ mode: 'direct', leakedGrants: 3 }], { colour: false, width: 80 });
  assert.deepEqual(rowOf(text, 'grants leaked'), ['3']);
  assert.equal(text.split('\n').filter((line) => line.startsWith('│')).length, 2);
});

test('an accounting that missed events says so', () => {
  const text = reportTable(
    [
      { ...direct, eventsLost: 7 },
      { ...bounce, contradictions: 2 },
    ],
    {
      colour: false,
      width: 1000,
    },
  );
  assert.match(
    text,
    /WARNING: the accounting of direct is incomplete \(7 events lost, 0 contradict others\)/,
  );
  assert.match(
    text,
    /WARNING: the accounting of bounce is incomplete \(0 events lost, 2 contradict others\)/,
  );
});
