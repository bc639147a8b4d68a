import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backendFor } from './backend.ts';
import { readSource } from './source-reader.ts';

const IOMMU = 'grants: xen_iommu { compatible = "xen,grant-dma"; #iommu-cells = <1>; };';

/** The answer for node `d` of a tree that has `d { PROPERTY }` and `nodes`. */
function answer(property: string, nodes = IOMMU, requester?: number): unknown {
  const { tree, findings } = readSource(`/dts-v1/; / { d { ${property} }; ${nodes} };`, 'f');
  assert.deepEqual(findings, []);
  const found = backendFor(tree!.root, tree!.root.children.get('d')!, requester);
  return found.kind === 'backend' ? found.domain : found.kind === 'none' ? 'none' : found.reason;
}

test('iommus names the backend, and no property means no grants', () => {
  assert.equal(answer('iommus = <&grants 3>;'), 3);
  assert.equal(answer('iommus = <&grants 0>;'), 0);
  assert.equal(answer('iommus = <&grants 0x7fef>;'), 0x7fef);
  assert.equal(answer(''), 'none');
});

const refused: readonly [property: string, reason: string, nodes?: string][] = [
  ['iommus = <&grants>;', "iommus has 1 cells; expected one phandle and one cell, the backend's domain id"],
  [
    'iommus = <&grants 1 2>;',
    "iommus has 3 cells; expected one phandle and one cell, the backend's domain id",
  ],
  ['iommus = [01];', "iommus has 1 bytes; expected one phandle and one cell, the backend's domain id"],
  ['iommus = <9 1>;', 'iommus refers to phandle 9, which no node has'],
  [
    'iommus = <&x 1>;',
    'iommus refers to node x, which is not compatible with "xen,grant-dma"',
    'x: x { compatible = "arm,smmu-v3"; };',
  ],
  [
    'iommus = <&x 1>;',
    '#iommu-cells of node x is 2; it has to be 1',
    'x: x { compatible = "xen,grant-dma"; #iommu-cells = <2>; };',
  ],
  [
    'iommus = <&x 1>;',
    '#iommu-cells of node x is not given; it has to be 1',
    'x: x { compatible = "xen,grant-dma"; };',
  ],
  ['iommus = <&grants 0x7ff0>;', 'iommus gives 0x7ff0, one of the ids that name no ordinary domain'],
  ['iommus = <&grants 0x10001>;', 'iommus gives 0x10001, more than the 16 bits of a domain id'],
];

for (const [property, reason, nodes] of refused)
  test(`refused: ${property} ${nodes ?? ''}`, () => {
    assert.equal(answer(property, nodes), reason);
  });

test('iommu-map gives each requester id of an entry its own domain', () => {
  const map = 'iommu-map = <0x8 &grants 5 1>, <0x10 &grants 7 8>;';
  const of = (requester: number) => answer(map, IOMMU, requester);
  assert.deepEqual([0x8, 0x10, 0x11, 0x17].map(of), [5, 7, 8, 14]);
  assert.deepEqual([0x7, 0x9, 0xf, 0x18, 0xffff].map(of), ['none', 'none', 'none', 'none', 'none']);
});

test('the lengths of an iommu-map end where they say, and run past domain ids only into a refusal', () => {
  assert.equal(
    answer('iommu-map = <0 &grants 0x7fef 2>;', IOMMU, 1),
    'iommu-map gives 0x7ff0, one of the ids that name no ordinary domain',
  );
  assert.equal(
    answer('iommu-map = <0 &grants 0xffff 2>;', IOMMU, 1),
    'iommu-map gives 0x10000, more than the 16 bits of a domain id',
  );
  assert.equal(answer('iommu-map = <0xfffffff0 &grants 1 0xffffffff>;', IOMMU, 8), 'none');
  assert.equal(answer('iommu-map = <0 &grants 1 0>;', IOMMU, 0), 'none');
});

test('iommu-map-mask makes the functions of a device one', () => {
  const map = 'iommu-map = <8 &grants 5 1>; iommu-map-mask = <0xfff8>;';
  assert.deepEqual(
    [8, 9, 15].map((requester) => answer(map, IOMMU, requester)),
    [5, 5, 5],
  );
});

test('an entry that starts where the mask clears bits is refused, as Linux does, once it is reached', () => {
  const map = 'iommu-map = <8 &grants 5 1>, <0x11 &grants 6 1>; iommu-map-mask = <0xfff8>;';
  assert.equal(answer(map, IOMMU, 9), 5);
  assert.equal(
    answer(map, IOMMU, 0x11),
    'iommu-map-mask 0xfff8 clears bits of 0x11, where an entry of iommu-map starts',
  );
  assert.equal(answer('iommu-map = <0x80000000 &grants 5 1>;', IOMMU, 0), 'none');
});

test('an iommu-map that is no list of entries is refused', () => {
  assert.equal(
    answer('iommu-map = <0 &grants 1>;', IOMMU, 0),
    'iommu-map has 3 cells; expected entries of 4 cells',
  );
  assert.equal(answer('iommu-map;', IOMMU, 0), 'iommu-map has 0 cells; expected entries of 4 cells');
  assert.equal(
    answer('iommu-map = <0 &grants 1 1>;', IOMMU, 0x10000),
    'the requester id 65536 is not a number of 16 bits',
  );
  assert.equal(answer('', IOMMU, 0), 'none');
});
