import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXHIBITS } from './exhibits.ts';
import type { Visit } from './museum.ts';
import { visitTable } from './print.ts';

const [one, other] = EXHIBITS;
const visits: Visit[] = [
  { exhibit: one, outcome: 'caught', by: 'a test', seconds: 1.25 },
  { exhibit: other, outcome: 'escaped', by: 'nothing', seconds: 0.5 },
];

test('the table has what each exhibit is about and what caught it, and the sum below', () => {
  const lines = visitTable(visits, 2.6).split('\n');
  assert.match(lines[0], /^exhibit +what was wrong +file with the defect +caught by +s$/);
  assert.match(lines[2], /^R1 .* dma\/direct-sharing\.ts +a test +1\.3$/);
  assert.ok(lines.some((line) => /^R2 .* ESCAPED: nothing +0\.5$/.test(line)));
  assert.equal(lines.at(-1), '1 of 2 defects caught, 3 s');
});

test('what is too long for its column goes on in the next line, and no line is too long', () => {
  const by =
    'a test with a title that is as long as the titles of tests are when they say what they are about';
  const lines = visitTable([{ ...visits[0], by }], 1, 100).split('\n');
  assert.ok(lines.every((line) => line.length <= 100));
  assert.ok(lines.length > 5);
});
