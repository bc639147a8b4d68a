import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Finding } from '../../dma/policy.ts';
import { mmioFinding, pciFinding } from './device-finding.ts';
import { readSource } from './source-reader.ts';
import { walk } from './tree.ts';

const IOMMU = 'grants: xen_iommu { compatible = "xen,grant-dma"; #iommu-cells = <1>; };';

function treeOf(nodes: string) {
  const { tree, findings } = readSource(`/dts-v1/; / { ${IOMMU} ${nodes} };`, 'f');
  assert.deepEqual(findings, []);
  return tree!;
}

/** A virtio-mmio device's node, as libxl writes it. */
const device = (name: string, property: string, base = 0x200_0000) =>
  `${name} { compatible = "virtio,mmio"; reg = <0 ${base} 0 0x200>; ${property} };`;

/** What is found of the device at the first place for one. */
const mmio = (nodes: string): Finding => mmioFinding(treeOf(nodes), 0x200_0000);

test('R9: the cell of iommus is the backend, and the node is found by its registers', () => {
  const found = mmio(`${device('virtio@2000200', 'iommus = <&grants 3>;', 0x200_0200)}
    ${device('virtio@2000000', 'iommus = <&grants 5>;')}`);
  assert.deepEqual(found, {
    kind: 'backend',
    domain: 5,
    says: '/virtio@2000000 names domain 5 (iommus)',
  });
});

test('a tree without the device says nothing of it; above 4 GiB the upper cell counts', () => {
  assert.equal(mmio(device('virtio@2000200', '', 0x200_0200)).kind, 'nothing');
  const high = `v { compatible = "virtio,mmio"; reg = <1 0x2000000 0 0x200>; };`;
  assert.equal(mmio(high).kind, 'nothing');
  assert.equal(mmioFinding(treeOf(high), 0x1_0200_0000).kind, 'no grants');
  assert.equal(mmio('v { compatible = "virtio,mmio"; reg = <0x2000000>; };').kind, 'nothing');
});

test('L4: a node without iommus says that the device uses no grants', () => {
  assert.deepEqual(mmio(device('virtio@2000000', '')), {
    kind: 'no grants',
    says: '/virtio@2000000 has no iommus, so the device is to use no grants',
  });
});

for (const [property, says] of [
  ['iommus = <&grants>;', /iommus has 1 cells/],
  ['iommus = <9 1>;', /phandle 9, which no node has/],
  ['iommus = <&grants 0x7ff0>;', /0x7ff0, one of the ids/],
  ['iommus = <&grants 0x10001>;', /0x10001, more than the 16 bits/],
] as const)
  test(`L6 L3: ${property} is a fault`, () => {
    const found = mmio(device('virtio@2000000', property));
    assert.equal(found.kind, 'fault');
    assert.match(found.says, says);
  });

test('G24: two nodes with the same registers are a fault, even if they agree', () => {
  const found = mmio(`${device('a', 'iommus = <&grants 1>;')} ${device('b', 'iommus = <&grants 1>;')}`);
  assert.deepEqual(found, {
    kind: 'fault',
    says: 'has two virtio devices with registers at 0x2000000: /a and /b',
  });
});

/** What is found of a PCI device behind a bridge with this map. */
function pci(properties: string, requester: number): Finding {
  const tree = treeOf(`pcie { ${properties} };`);
  const bridge = [...walk(tree.root)].find(({ node }) => node.name === 'pcie')!;
  return pciFinding(tree, bridge, requester);
}

test('a requester is looked up in iommu-map: result = requester - first + domain', () => {
  assert.deepEqual(pci('iommu-map = <0x8 &grants 3 1>, <0x9 &grants 4 1>;', 9), {
    kind: 'backend',
    domain: 4,
    says: '/pcie names domain 4 (iommu-map) for requester 0x9',
  });
});

test('G24: an entry of length 8 gives each function another domain, and that is said', () => {
  const found = pci('iommu-map = <0x8 &grants 3 8>;', 0xa);
  assert.deepEqual(found.kind === 'backend' && found.domain, 5);
  assert.match(found.says, /its entry gives 8 requesters as many different domains/);
});

test('G24: a requester in two entries is a fault', () => {
  const found = pci('iommu-map = <0x0 &grants 1 8>, <0x4 &grants 7 1>;', 4);
  assert.deepEqual(found, { kind: 'fault', says: '/pcie has requester 0x4 in 2 entries of iommu-map' });
});

test('a masked requester shares an entry, and that is said', () => {
  const found = pci('iommu-map = <0x8 &grants 3 1>; iommu-map-mask = <0xfff8>;', 0xb);
  assert.deepEqual(found.kind === 'backend' && found.domain, 3);
  assert.match(found.says, /iommu-map-mask makes it requester 0x8/);
});

test('L4: a requester that no entry has, or a bridge without a map, means no grants', () => {
  assert.match(pci('iommu-map = <0x8 &grants 3 1>;', 9).says, /no entry of iommu-map for it/);
  assert.equal(pci('', 9).kind, 'no grants');
  assert.equal(pci('iommu-map = <1 2 3>;', 9).kind, 'fault');
  assert.equal(pci('iommu-map = <0x8 &grants 0x7ff0 1>;', 8).kind, 'fault');
});
