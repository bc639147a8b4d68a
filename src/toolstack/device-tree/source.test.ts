import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readSource } from './source-reader.ts';
import { writeSource } from './source-writer.ts';
import { cellsOf, nodeAt, stringsOf, type TreeNode } from './tree.ts';

/** The root of a source without mistakes. */
function rootOf(text: string): TreeNode {
  const { tree, findings } = readSource(text, 'f');
  assert.deepEqual(findings, []);
  return tree!.root;
}

/** The bytes of `p = VALUE;`, in hexadecimal. */
function bytesOf(value: string): string {
  return Buffer.from(rootOf(`/dts-v1/; / { p = ${value}; };`).properties.get('p')!.value).toString('hex');
}

/** The cell of `p = <( EXPRESSION )>;`. */
function cell(expression: string): number | undefined {
  return cellsOf(rootOf(`/dts-v1/; / { p = <(${expression})>; };`).properties.get('p'))?.[0];
}

function findingsOf(text: string): string[] {
  return readSource(text, 'f').findings.map(({ line, column, message }) => `${line}:${column}: ${message}`);
}

test('a source is read with labels, references, comments and expressions', () => {
  const { tree, findings } = readSource(
    `/dts-v1/;
     /memreserve/ 0x10000000 (4 << 10); // for the firmware
# 3 "guest.dts"
     / {
       #address-cells = <2>; /* cells of an address */
       alias = &grants;
       virtio@2000000 { iommus = <&grants 1>; };
       grants: xen_iommu { #iommu-cells = <1>; empty; };
     };`,
    'f',
  );
  assert.deepEqual(findings, []);
  assert.deepEqual(tree!.reservations, [{ address: 0x10000000n, size: 4096n }]);
  assert.deepEqual(nodeAt(tree!.root, '/xen_iommu')!.labels, ['grants']);
  assert.deepEqual(stringsOf(tree!.root.properties.get('alias')), ['/xen_iommu']);
  const virtio = nodeAt(tree!.root, '/virtio@2000000')!;
  assert.deepEqual(cellsOf(virtio.properties.get('iommus')), [1, 1]);
  assert.deepEqual(virtio.place, { line: 7, column: 8 });
  assert.deepEqual(virtio.properties.get('iommus')?.place, { line: 7, column: 25 });
  assert.equal(nodeAt(tree!.root, '/xen_iommu')!.properties.get('empty')?.value.length, 0);
});

test('a reference gives the node a phandle that no other has', () => {
  const text = '/dts-v1/; / { a = <&y &x>; c { phandle = <1>; }; x: x { q; }; y: y { }; b = ""; };'.replace(
    ' b = "";',
    '',
  );
  const root = rootOf(text);
  assert.deepEqual(cellsOf(root.properties.get('a')), [2, 3]);
  assert.deepEqual(cellsOf(root.children.get('y')?.properties.get('phandle')), [2]);
  assert.deepEqual([...root.children.get('x')!.properties.keys()], ['q', 'phandle']);
});

test('a node is changed, and parts of it deleted, after it was made', () => {
  const root = rootOf(`/dts-v1/;
    / { a: a { p = <1>; q = <2>; gone { }; }; dead: b { }; };
    &a { p = <3>; /delete-property/ q; r; /delete-node/ gone; };
    &{/a} { s; };
    / { c { }; /delete-node/ none; };
    /delete-node/ &dead;`);
  assert.deepEqual([...root.children.keys()], ['a', 'c']);
  assert.deepEqual([...nodeAt(root, '/a')!.properties.keys()], ['p', 'r', 's']);
  assert.deepEqual(cellsOf(nodeAt(root, '/a')!.properties.get('p')), [3]);
  assert.equal(nodeAt(root, '/a')!.children.size, 0);
});

test('values of every kind become their bytes', () => {
  assert.equal(bytesOf("<1 0xffffffff (-1) 010 'A'>"), '00000001ffffffffffffffff0000000800000041');
  assert.equal(bytesOf('/bits/ 8 <1 255 (-1)>, /bits/ 16 <0x1234>'), '01ffff1234');
  assert.equal(bytesOf('/bits/ 64 <0x123456789abcdef0>'), '123456789abcdef0');
  assert.equal(bytesOf('[01 23 aBcD], x: [], y: <z: >'), '0123abcd');
  assert.equal(bytesOf('"a\\n\\x41\\101\\"\\\\", "é"'), '610a4141225c00c3a900');
  assert.deepEqual(
    stringsOf(rootOf('/dts-v1/; / { p = &b, &{/a}; a { b: b { }; }; };').properties.get('p')),
    ['/a/b', '/a'],
  );
});

const expressions: readonly [expression: string, value: number][] = [
  ['1 + 2 * 3', 7],
  ['(1 + 2) * 3', 9],
  ['10 - 4 - 3', 3],
  ['7 / 2 + 7 % 4', 6],
  ['1 << 4 | 1', 17],
  ['0xf0 & 0x3c ^ 1', 0x31],
  ['0xff >> 4 << 1', 30],
  ['1 < 2 && 2 <= 2 && 3 > 2 && 3 >= 3', 1],
  ['1 == 2 || 1 != 2', 1],
  ['!5 + !0', 1],
  ['~0xfffffff0 & 0xff', 15],
  ['0 ? 1 : 0 ? 2 : 3', 3],
  ['- 1 < 1', 0],
  ["'\\n' + 'a'", 107],
  ['1ULL << 31', 0x80000000],
];

for (const [expression, value] of expressions)
  test(`expression: ${expression}`, () => {
    assert.equal(cell(expression), value);
  });

const broken: readonly [text: string, finding: string][] = [
  ['/ { };', '1:1: expected `/dts-v1/;` at the start, found `/`'],
  ['/dts-v1/;', '1:10: expected `/ { … };`, the root node, found the end of the file'],
  ['/dts-v1/; / {', '1:14: expected a property, a node or `}`, found the end of the file'],
  ['/dts-v1/; / { p = <1> }', '1:23: expected `;` after the property `p`, found `}`'],
  ['/dts-v1/; / { p = 1; };', '1:19: expected a "string", <cells>, [bytes] or &reference, found `1`'],
  ['/dts-v1/; / { p = <1, 2>; };', '1:21: expected a number, &reference or `>`, found `,`'],
  ['/dts-v1/; / { p = <1 + 2>; };', '1:22: expected a number, &reference or `>`, found `+`'],
  ['/dts-v1/; / { p = <0x100000000>; };', '1:20: 0x100000000 does not fit in 32 bits'],
  ['/dts-v1/; / { p = /bits/ 8 <256>; };', '1:29: 0x100 does not fit in 8 bits'],
  ['/dts-v1/; / { p = /bits/ 7 <1>; };', '1:26: /bits/ takes 8, 16, 32 or 64, not 7'],
  ['/dts-v1/; / { p = /bits/ 8 <&a>; };', '1:29: a reference needs 32 bits, not 8'],
  ['/dts-v1/; / { p = <(1 / 0)>; };', '1:23: a division by zero'],
  ['/dts-v1/; / { p = <09>; };', '1:20: 09 starts with 0 but is not octal'],
  ['/dts-v1/; / { p = [0]; };', '1:20: expected two hexadecimal digits or `]`, found `0]`'],
  ['/dts-v1/; / { p = <&none>; };', '1:20: `&none` refers to no node'],
  ['/dts-v1/; / { p = &{/a}; };', '1:19: `&/a` refers to no node'],
  ['/dts-v1/; / { }; &a { };', '1:18: `&a` refers to no node that was made above'],
  ['/dts-v1/; / { a { }; p; };', '1:22: the property `p` stands behind a child node'],
  ['/dts-v1/; / { a: a { }; a: b { }; };', '1:30: the label `a` is taken by node `a`'],
  ['/dts-v1/; / { p; p; };', '1:18: a second property `p` in one node'],
  ['/dts-v1/; / { a { }; a { }; };', '1:22: a second node `a` in one node'],
  ['/dts-v1/; a: / { };', '1:14: the root node has no labels'],
  ['/dts-v1/; / { a@1; };', '1:15: `a@1` is not the name of a property'],
  ['/dts-v1/; / { @1 { }; };', '1:15: `@1` is not the name of a node'],
  ['/dts-v1/; /* / { };', '1:11: the comment that starts here has no end'],
  ['/dts-v1/; /include/ "x.dtsi"', '1:11: /include/ is not supported'],
  ['/dts-v1/;\n#include <x.h>\n/ { };', '2:1: `#include <x.h>` is for the C preprocessor'],
  ['/dts-v1/; /plugin/; / { };', '1:11: overlays (/plugin/) are not supported'],
  ['/dts-v1/; / { p = /incbin/("x"); };', '1:19: /incbin/ is not supported'],
  ['/dts-v1/; / { /omit-if-no-ref/ a: a { }; };', '1:15: /omit-if-no-ref/ is not supported'],
  [`/dts-v1/; / { p = <${'('.repeat(100)}1>; };`, '1:84: an expression is nested more than 64 deep'],
  [`/dts-v1/; / { ${'a { '.repeat(100)}`, '1:269: nodes are nested more than 64 deep'],
];

for (const [text, finding] of broken)
  test(`broken source: ${text.slice(0, 60)}`, () => {
    assert.deepEqual(findingsOf(text), [finding]);
  });

test('a preprocessor word is a property name where it does not start a line', () => {
  assert.ok(rootOf('/dts-v1/; / { a; #if = <1>; };').properties.has('#if'));
});

test('values together have a limit, however short the labels that stand for long paths', () => {
  const deep = (depth: number): string =>
    depth === 0 ? 'x: x { };' : `${'n'.repeat(200)} { ${deep(depth - 1)} };`;
  const text = `/dts-v1/; / { p = ${'&x,'.repeat(3000)} &x; ${deep(40)} };`;
  assert.deepEqual(findingsOf(text), ['1:15: the values of the tree have more than 16777216 bytes']);
});

test('a tree is written with labels, and each value as what it looks like', () => {
  const text = `/dts-v1/;

/memreserve/ 0x1000 0x2000;
/ {
	flag;
	names = "a\\"b", "c";
	numbers = <0x1 0x2>;
	bytes = [01 02 03];

	label: node@1 {
	};
};
`;
  const { tree } = readSource(text, 'f');
  assert.equal(writeSource(tree!), text);
});
