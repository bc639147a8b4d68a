import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FDT_HEADER_FIELDS } from '../../abi/fdt.ts';
import { readBlob } from './blob-reader.ts';
import { writeBlob } from './blob-writer.ts';
import { cells, type DeviceTree, emptyNode, strings } from './tree.ts';

/** A tree with one child, each with a property. */
function example(): DeviceTree {
  const root = emptyNode('');
  root.properties.set('compatible', { value: strings('x') });
  const child = emptyNode('a@1');
  child.properties.set('reg', { value: cells(1) });
  root.children.set(child.name, child);
  return { root, reservations: [{ address: 1n << 40n, size: 0x1000n }], bootCpu: 3 };
}

// Written by hand from the Devicetree Specification v0.4 §5.
const EXAMPLE = `
  d00dfeed 00000093 00000048 00000084 00000028 00000011 00000010 00000003 0000000f 0000003c
  0000010000000000 0000000000001000 0000000000000000 0000000000000000
  00000001 00000000
  00000003 00000002 00000000 78000000
  00000001 61403100
  00000003 00000004 0000000b 00000001
  00000002 00000002 00000009
  636f6d70 61746962 6c650072 656700`;

test('a tree is written as the specification lays it out', () => {
  assert.equal(Buffer.from(writeBlob(example())).toString('hex'), EXAMPLE.replace(/\s/g, ''));
});

test('a blob is read back with the places of its tokens', () => {
  const { tree, findings } = readBlob(writeBlob(example()), 'f');
  assert.deepEqual(findings, []);
  assert.equal(tree?.bootCpu, 3);
  assert.deepEqual(tree?.reservations, example().reservations);
  assert.deepEqual(tree?.root.children.get('a@1')?.place, { line: 1, column: 0x48 + 24 + 1 });
  assert.deepEqual(tree?.root.children.get('a@1')?.properties.get('reg'), {
    value: cells(1),
    place: { line: 1, column: 0x48 + 32 + 1 },
  });
});

/** A 32-bit word to change: of the header by name, of the structure by its index; and its new value. */
type Change = readonly [word: (typeof FDT_HEADER_FIELDS)[number] | number, value: number];

function findingAfter([word, value]: Change): string {
  const blob = writeBlob(example());
  const offset = typeof word === 'number' ? 0x48 + word * 4 : FDT_HEADER_FIELDS.indexOf(word) * 4;
  new DataView(blob.buffer).setUint32(offset, value);
  const { tree, findings } = readBlob(blob, 'f');
  assert.equal(tree, undefined);
  assert.equal(findings.length, 1);
  return `${findings[0]!.column - 1}: ${findings[0]!.message}`;
}

const hostile: readonly [what: string, change: Change, finding: string][] = [
  ['another magic number', ['magic', 1], '0: a device tree blob starts with 0xd00dfeed, this file with 0x1'],
  ['an old version', ['version', 3], '20: version 3, readable from 16 on: only 17 is known here'],
  ['a new version', ['last_comp_version', 18], '20: version 17, readable from 18 on: only 17 is known here'],
  ['a size past the file', ['totalsize', 148], '4: the blob says that it has 148 bytes; the file has 147'],
  [
    'a structure past the end',
    ['size_dt_struct', 0xffffffff],
    "8: the block of structure (4294967295 bytes at 0x48) is not inside the blob's 147 bytes",
  ],
  [
    'a structure in the header',
    ['off_dt_struct', 4],
    "8: the block of structure (60 bytes at 0x4) is not inside the blob's 147 bytes",
  ],
  [
    'a crooked structure',
    ['off_dt_struct', 0x46],
    '8: the block of structure starts at 0x46, no multiple of 4',
  ],
  [
    'strings past the end',
    ['off_dt_strings', 0x85],
    "12: the block of strings (15 bytes at 0x85) is not inside the blob's 147 bytes",
  ],
  [
    'crooked reservations',
    ['off_mem_rsvmap', 0x2c],
    '16: the block of reservations starts at 0x2c, no multiple of 8',
  ],
  ['reservations without end', ['off_mem_rsvmap', 0x78], '136: the list of memory reservations has no end'],
  ['no root node', [0, 9], '72: the tree has no root node'],
  ['a name for the root', [1, 0x61000000], '72: `a` is not the name of a node'],
  [
    'a property that is too long',
    [3, 0xfffffff0],
    '84: the property `compatible` has 4294967280 bytes, past the end of the structure',
  ],
  ['a name past the strings', [4, 15], '88: the name at 0xf is outside of the 15 bytes of strings'],
  ['a node without a name', [7, 0], '96: `` is not the name of a node'],
  ['a name with a slash', [7, 0x612f3100], '96: `a/1` is not the name of a node'],
  ['a name without end', ['size_dt_strings', 14], '143: a name has no end within 255 characters'],
  ['an unknown token', [2, 7], '80: 0x7 is no token'],
  ['an early end', [12, 9], '120: the node `a@1` has no end'],
  ['a second root', [14, 1], '128: a second root node'],
  ['no end', [14, 4], '132: expected a token, found the end of the structure'],
];

for (const [what, change, finding] of hostile)
  test(`hostile blob: ${what}`, () => {
    assert.equal(findingAfter(change), finding);
  });

test('hostile blob: two properties or two children of one name', () => {
  const root = emptyNode('');
  for (const name of ['pa', 'pb']) root.properties.set(name, { value: cells(1) });
  for (const name of ['ca', 'cb']) root.children.set(name, emptyNode(name));
  const blob = Buffer.from(writeBlob({ root, reservations: [], bootCpu: 0 }));
  const renamed = (from: string, to: string) => {
    const changed = Buffer.from(blob);
    changed.write(to, changed.indexOf(from));
    return readBlob(changed, 'f').findings.map(({ message }) => message);
  };
  assert.deepEqual(renamed('pb', 'pa'), ['a second property `pa` in node ``']);
  assert.deepEqual(renamed('cb', 'ca'), ['a second node `ca` beside the first']);
});

test('hostile blob: nodes nested without end', () => {
  const root = emptyNode('');
  let node = root;
  for (let depth = 0; depth < 100; depth++) {
    const child = emptyNode('a');
    node.children.set('a', child);
    node = child;
  }
  const { findings } = readBlob(writeBlob({ root, reservations: [], bootCpu: 0 }), 'f');
  assert.deepEqual(
    findings.map(({ message }) => message),
    ['nodes are nested more than 64 deep'],
  );
});
