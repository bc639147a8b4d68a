import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { deviceTree } from '../../../test/generators/device-tree.ts';
import { readBlob } from './blob-reader.ts';
import { writeBlob } from './blob-writer.ts';
import { readSource } from './source-reader.ts';
import { writeSource } from './source-writer.ts';
import type { DeviceTree } from './tree.ts';

/** The tree that `reading` gave, which must have no findings. */
function treeOf(reading: ReturnType<typeof readBlob>): DeviceTree {
  assert.deepEqual(reading.findings, []);
  return reading.tree!;
}

test('32: a blob is read as the tree that was written, and written again byte for byte', () => {
  fc.assert(
    fc.property(deviceTree, (tree) => {
      const blob = writeBlob(tree);
      const read = treeOf(readBlob(blob, 'f'));
      assert.deepEqual(read.reservations, tree.reservations);
      assert.deepEqual(writeBlob(read), blob);
      assert.equal(writeSource(read), writeSource(tree));
    }),
    { seed: 32, numRuns: 300 },
  );
});

test('32: a source is read as the tree that was written', () => {
  fc.assert(
    fc.property(deviceTree, (tree) => {
      const source = writeSource(tree);
      const read = treeOf(readSource(source, 'f'));
      assert.deepEqual(writeBlob(read), writeBlob(tree));
      assert.equal(writeSource(read), source);
    }),
    { seed: 32, numRuns: 300 },
  );
});

test('a changed blob ends in a tree or in one finding inside it', () => {
  const changes = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), {
    minLength: 1,
    maxLength: 8,
  });
  let refused = 0;
  fc.assert(
    fc.property(deviceTree, changes, fc.nat(), (tree, bytes, cut) => {
      const blob = writeBlob(tree);
      for (const [offset, byte] of bytes) blob[offset % blob.length] = byte;
      const { tree: read, findings } = readBlob(
        blob.subarray(0, blob.length - (cut % 3 === 0 ? cut % blob.length : 0)),
        'f',
      );
      assert.equal(read === undefined, findings.length === 1);
      if (read !== undefined) treeOf(readSource(writeSource(read), 'f'));
      else {
        refused++;
        assert.equal(findings[0]!.line, 1);
        assert.ok(findings[0]!.column >= 1 && findings[0]!.column <= blob.length + 1);
      }
    }),
    { seed: 1, numRuns: 2000 },
  );
  assert.ok(refused > 200, `only ${refused} blobs were refused`);
});

const WORDS = [
  '/dts-v1/;',
  '/',
  '{',
  '}',
  ';',
  '=',
  '<',
  '>',
  '[',
  ']',
  '"',
  ',',
  '&a',
  '&{/b}',
  'a:',
  'b',
  '1',
  '0x1f',
  '(',
  ')',
  '+',
  '<<',
  '?',
  ':',
  '/bits/',
  '8',
  '/*',
  '*/',
  '//',
  '\n',
  '#',
  "'a'",
  '\\',
  '/delete-node/',
  '/delete-property/',
  '/memreserve/',
];

test('any text ends in a tree or in findings inside it', () => {
  const words = fc.array(fc.constantFrom(...WORDS), { maxLength: 40 }).map((chosen) => chosen.join(' '));
  const hostile = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 60 }),
    words,
    words.map((text) => `/dts-v1/; / { ${text}`),
    words.map((text) => `/dts-v1/; / { a: b { p = < ${text} >; }; };`),
    words.map((text) => `/dts-v1/; / { p = < ( 1 ${text} ) >; };`),
  );
  fc.assert(
    fc.property(hostile, (text) => {
      const { tree, findings } = readSource(text, 'f');
      assert.equal(
        tree === undefined,
        findings.some(({ severity }) => severity === 'error'),
      );
      const lines = text.split('\n');
      for (const { line, column } of findings)
        assert.ok(column >= 1 && column <= lines[line - 1]!.length + 1);
      if (tree !== undefined) treeOf(readBlob(writeBlob(tree), 'f'));
    }),
    { seed: 1, numRuns: 3000 },
  );
});
