import assert from 'node:assert/strict';
import { test } from 'node:test';
import { domainId } from '../../xen/ids.ts';
import { backendFor } from './backend.ts';
import { type GuestTreeOptions, guestTree, virtioMmioSlot } from './guest-tree.ts';
import { writeSource } from './source-writer.ts';
import { cellsOf, nodeAt, nodesByPhandle, walk } from './tree.ts';

const options: GuestTreeOptions = {
  xenVersion: { major: 4, minor: 19 },
  memory: 1024,
  vcpus: 2,
  gic: 'v3',
  addressBits: 40,
  bootargs: 'console=hvc0',
  devices: [
    { ...virtioMmioSlot(0)!, type: undefined, grantsTo: domainId(0) },
    { ...virtioMmioSlot(1)!, type: 'virtio,device22', grantsTo: domainId(3) },
    { ...virtioMmioSlot(2)!, type: 'virtio,device29', grantsTo: undefined },
  ],
};

test('the hypervisor, iommu and virtio nodes are those that libxl writes', () => {
  const source = writeSource(guestTree(options));
  const hypervisor = `	hypervisor {
		compatible = "xen,xen-4.19", "xen,xen";
		reg = <0x0 0x38000000 0x0 0x1000000 0x0 0x80000000 0x0 0x80000000 0x2 0x0 0xfe 0x0>;
		interrupts = <0x1 0xf 0xf08>;
		interrupt-parent = <0xfde8>;
	};`;
  const i2c = `	virtio@2000200 {
		compatible = "virtio,mmio";
		reg = <0x0 0x2000200 0x0 0x200>;
		interrupts = <0x0 0x2 0xf01>;
		interrupt-parent = <0xfde8>;
		dma-coherent;
		iommus = <0xfde9 0x3>;

		i2c {
			compatible = "virtio,device22";
		};
	};`;
  const gpio = `	virtio@2000400 {
		compatible = "virtio,mmio";
		reg = <0x0 0x2000400 0x0 0x200>;
		interrupts = <0x0 0x3 0xf01>;
		interrupt-parent = <0xfde8>;
		dma-coherent;

		gpio {
			compatible = "virtio,device29";
			gpio-controller;
			#gpio-cells = <0x2>;
			interrupt-controller;
			#interrupt-cells = <0x2>;
		};
	};`;
  const iommu = `	xen_iommu {
		compatible = "xen,grant-dma";
		#iommu-cells = <0x1>;
		phandle = <0xfde9>;
	};`;
  for (const node of [hypervisor, i2c, gpio, iommu])
    assert.ok(source.includes(`\n${node}\n`), `${node}\nnot in\n${source}`);
});

test('each device leads to its backend, and every reference to a node', () => {
  const { root } = guestTree(options);
  const answers = ['/virtio@2000000', '/virtio@2000200', '/virtio@2000400'].map((path) =>
    backendFor(root, nodeAt(root, path)!),
  );
  assert.deepEqual(answers, [
    { kind: 'backend', domain: 0 },
    { kind: 'backend', domain: 3 },
    { kind: 'none' },
  ]);
  const phandles = nodesByPhandle(root);
  for (const { node } of walk(root)) {
    const parent = cellsOf(node.properties.get('interrupt-parent'));
    if (parent !== undefined) assert.ok(phandles.has(parent[0]!));
  }
});

test('without grants there is no iommu node', () => {
  const { root } = guestTree({ ...options, devices: [options.devices[2]!] });
  assert.equal(nodeAt(root, '/xen_iommu'), undefined);
});

test('memory fills the first bank before the second, and extended regions are what is left', () => {
  const regs = (memory: number, addressBits: number) => {
    const { root } = guestTree({ ...options, memory, addressBits, devices: [] });
    const reg = (path: string) => cellsOf(nodeAt(root, path)?.properties.get('reg'));
    return [reg('/memory@40000000'), reg('/memory@200000000'), reg('/hypervisor')!.slice(4)];
  };
  assert.deepEqual(regs(4096, 40), [
    [0, 0x40000000, 0, 0xc0000000],
    [2, 0, 0, 0x40000000],
    [2, 0x40000000, 0xfd, 0xc0000000],
  ]);
  assert.deepEqual(regs(3071, 32), [[0, 0x40000000, 0, 0xbff00000], undefined, []]);
  assert.deepEqual(regs(1, 32), [[0, 0x40000000, 0, 0x100000], undefined, [0, 0x40200000, 0, 0xbfe00000]]);
});

test('there are slots for eleven devices', () => {
  assert.deepEqual(virtioMmioSlot(0), { base: 0x2000000, irq: 33 });
  assert.deepEqual(virtioMmioSlot(10), { base: 0x2001400, irq: 43 });
  assert.equal(virtioMmioSlot(11), undefined);
});
