import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XEN_X86_EMU_IOAPIC, XEN_X86_EMU_PIC } from '../../../abi/domctl.ts';
import { domainId } from '../../../xen/ids.ts';
import type { DomainInfo } from './domain-info.ts';
import { interruptLine } from './interrupt-line.ts';

const HVM: DomainInfo = {
  translated: true,
  emulation: XEN_X86_EMU_IOAPIC | XEN_X86_EMU_PIC,
  maxPages: 1,
};

/** Operations that are written down, and what Xen says of the guest. */
function scene(info: () => DomainInfo) {
  const calls: string[] = [];
  const call = (name: string) => (line: number, level: number) => calls.push(`${name} ${line} ${level}`);
  const ops = { guest: domainId(4), setIrqLevel: call('irq'), setIsaIrqLevel: call('isa') };
  const line = (irq: number | undefined, architecture: string) => interruptLine(ops, info, irq, architecture);
  return { calls, line };
}

test('the line of the old PC rises once, also where a predecessor left it high', () => {
  const { calls, line } = scene(() => HVM);
  const five = line(5, 'x64');
  five.raise();
  five.raise();
  five.lower();
  five.lower();
  assert.deepEqual(calls, ['isa 5 0', 'isa 5 1', 'isa 5 0']);
});

test('on Arm nobody is asked what kind of guest it is, which a driver domain may not', () => {
  const { calls, line } = scene(() => {
    throw new RangeError('domain 4: this domain may not ask');
  });
  line(39, 'arm64').raise();
  assert.deepEqual(calls, ['irq 39 0', 'irq 39 1']);
  assert.throws(() => line(5, 'arm64'), /domain 4 with interrupt line 5: expected 32 to 1019/);
  assert.throws(() => line(5, 'x64'), /may not ask/);
});

test('a guest without the controllers of a PC has no line, and nothing is called', () => {
  for (const [info, words] of [
    [{ ...HVM, translated: false }, /is a PV guest/],
    [{ ...HVM, emulation: XEN_X86_EMU_PIC }, /is a PVH guest/],
  ] as const) {
    const { calls, line } = scene(() => info);
    assert.throws(() => line(5, 'x64'), words);
    assert.deepEqual(calls, []);
  }
  assert.throws(() => scene(() => HVM).line(5, 'riscv64'), /not on riscv64/);
});
