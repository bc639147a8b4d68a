// Interrupts that a device model raises, as the guest's kernel gets them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as dm from '../../../abi/dm-op.ts';
import { noTrace } from '../../../trace.ts';
import type { DomainOptions } from '../domain-options.ts';
import { addDomain, bootTestMachine } from '../domains.test.helper.ts';
import { EINVAL, EOPNOTSUPP, ERANGE, ESRCH } from '../errno.ts';
import { RawModel } from './raw-model.test.helper.ts';

function scene(options: Partial<DomainOptions>) {
  const xen = bootTestMachine();
  const guest = addDomain(xen, 2, options);
  const model = RawModel.of(xen, guest);
  const call = (op: number, bytes: Uint8Array) => model.call(op, bytes).result;
  return {
    xen,
    guest,
    interrupts: guest.ports.interrupts,
    spi: (irq: number, level: number) =>
      call(dm.XEN_DMOP_set_irq_level, dm.xenDmOpSetIrqLevel.make({ irq, level }).bytes),
    isa: (irq: number, level: number) =>
      call(dm.XEN_DMOP_set_isa_irq_level, dm.xenDmOpSetIsaIrqLevel.make({ isa_irq: irq, level }).bytes),
    pci: (device: number, intx: number, level: number, bus = 0) =>
      call(
        dm.XEN_DMOP_set_pci_intx_level,
        dm.xenDmOpSetPciIntxLevel.make({ bus, device, intx, level }).bytes,
      ),
    link: (link: number, irq: number) =>
      call(dm.XEN_DMOP_set_pci_link_route, dm.xenDmOpSetPciLinkRoute.make({ link, isa_irq: irq }).bytes),
    msi: (addrLow: number, data: number) =>
      call(dm.XEN_DMOP_inject_msi, dm.xenDmOpInjectMsi.make({ addrLow, data }).bytes),
  };
}

test('Arm: an SPI that goes up reaches the guest, again while it is up, and once more when it was down between', () => {
  const { interrupts, spi } = scene({ architecture: 'arm' });
  let taken = 0;
  interrupts.onLine(33, () => taken++);
  assert.equal(interrupts.poll(), false);
  assert.equal(spi(33, 1), 0);
  interrupts.poll();
  interrupts.poll();
  assert.equal(taken, 2);
  assert.equal(spi(33, 0), 0);
  assert.equal(interrupts.poll(), false);
  assert.equal(spi(33, 1), 0);
  assert.equal(spi(33, 0), 0);
  assert.equal(interrupts.poll(), true, 'a pulse is not lost');
  assert.equal(interrupts.poll(), false);
  interrupts.onLine(33, undefined);
  assert.equal(spi(33, 1), 0);
  assert.equal(interrupts.poll(), false);
});

test('Arm: only lines that all processors share, only levels 0 and 1, no padding', () => {
  const { spi, xen, guest } = scene({ architecture: 'arm' });
  for (const irq of [0, 31, 1024, 2 ** 32 - 1]) assert.equal(spi(irq, 1), EINVAL);
  assert.equal(spi(32, 2), EINVAL);
  const model = new RawModel(addDomain(xen, 3, { privileged: true }), guest);
  const padded = dm.xenDmOpSetIrqLevel.make({ irq: 33, level: 1, pad2: 1 });
  assert.equal(model.call(dm.XEN_DMOP_set_irq_level, padded.bytes).result, EINVAL);
  for (const op of [dm.XEN_DMOP_set_isa_irq_level, dm.XEN_DMOP_inject_msi])
    assert.equal(model.call(op, new Uint8Array(16)).result, EOPNOTSUPP);
});

test('PVH has only local APICs: lines of ISA and PCI are refused (real Xen 4.17 panicked), messages are not', () => {
  const { isa, pci, link, msi, interrupts } = scene({ kind: 'pvh' });
  assert.deepEqual([isa(5, 1), pci(3, 0, 1), link(0, 5)], [EINVAL, EINVAL, EINVAL]);
  let taken = 0;
  interrupts.onMessage(0x41, () => taken++);
  assert.equal(msi(0xfee0_0000, 0x41), 0);
  interrupts.poll();
  interrupts.poll();
  assert.equal(taken, 1);
});

test('HVM: lines of ISA are lines of the guest, the timer’s is line 2; what is no line is refused', () => {
  const { isa, interrupts } = scene({ kind: 'hvm' });
  const taken: number[] = [];
  for (let line = 0; line < 48; line++) interrupts.onLine(line, () => taken.push(line));
  assert.deepEqual([isa(0, 1), isa(5, 1)], [0, 0]);
  interrupts.poll();
  assert.deepEqual(taken, [2, 5]);
  assert.deepEqual([isa(16, 1), isa(5, 2)], [EINVAL, EINVAL]);
});

test('HVM: pins of PCI devices lead to their line and, if their link is routed, to one of ISA, shared by all', () => {
  const { isa, pci, link, interrupts } = scene({ kind: 'hvm' });
  let taken: number[] = [];
  for (let line = 0; line < 48; line++) interrupts.onLine(line, () => taken.push(line));
  const lines = () => {
    taken = [];
    interrupts.poll();
    return taken;
  };
  assert.equal(pci(3, 1, 1), 0);
  assert.deepEqual(lines(), [16 + 13]);
  assert.equal(link(0, 11), 0);
  assert.deepEqual(lines(), [11, 29]);
  assert.equal(isa(11, 1), 0);
  assert.equal(pci(3, 1, 0), 0);
  lines();
  assert.deepEqual(lines(), [11], 'ISA still holds it up');
  assert.equal(isa(11, 0), 0);
  assert.deepEqual(lines(), []);
  assert.equal(pci(31, 3, 1), 0);
  assert.deepEqual(lines(), [16 + ((124 + 3 + 3) & 31)]);
  for (const result of [pci(32, 0, 1), pci(0, 4, 1), pci(0, 0, 2), pci(0, 0, 1, 1), link(4, 5), link(0, 16)])
    assert.equal(result, EINVAL);
});

test('a message goes to the processors that its address names, and the guest is woken', () => {
  const { xen, guest, msi } = scene({ kind: 'hvm', vcpus: 3 });
  const taken: string[] = [];
  const processors = [0, 1, 2].map((vcpu) => xen.ports(guest.id, () => false, noTrace, vcpu).interrupts);
  processors.forEach((each, vcpu) => {
    each.onMessage(0x30, () => taken.push(`${vcpu}`));
  });
  const send = (destination: number, data: number, mode = 0) => {
    taken.length = 0;
    const result = msi(0xfee0_0000 + (destination << 12) + mode, data);
    for (const each of processors) each.poll();
    return `${result} ${taken}`;
  };
  assert.equal(send(2, 0x30), '0 1', 'an APIC’s id is twice the number of its processor');
  assert.equal(send(0xff, 0x30), '0 0,1,2');
  assert.equal(send(0b101, 0x30, 4), '0 0,2', 'logical');
  assert.equal(send(0b110, 0x130, 4), '0 1', 'lowest priority: one of them');
  assert.equal(send(7, 0x30), '0 ', 'nobody has this id');
  assert.equal(send(7, 0x130), `${ESRCH} `);
  assert.equal(send(0, 0x230), `${EINVAL} `);
  assert.equal(send(0, 0x00), `${ERANGE} `, 'no vector, no event channel');
  assert.equal(send(9, 0x00), `${EOPNOTSUPP} `);
});

test('whoever sleeps is woken by a line and by a message', () => {
  const { xen, guest, isa, msi } = scene({ kind: 'hvm' });
  const heap = new Int32Array(xen.state.heap);
  const wakes = () => heap[guest.record.wakeWord];
  const before = wakes();
  isa(3, 1);
  assert.equal(wakes(), before + 1);
  msi(0xfee0_0000, 0x40);
  assert.equal(wakes(), before + 2);
});
