// The interrupt line of one device of a guest. After dm-ops.ts and domain-info.ts; before device-model.ts.
//
// The one call here that can do harm to others is that which sets a line of the old PC: for a guest without the
// interrupt controllers of one (PVH) Xen 4.17.7 panics, and the host with all its guests is gone. So a line exists only
// for a guest of which Xen has said that it has them.

import { XEN_X86_EMU_IOAPIC, XEN_X86_EMU_PIC } from '../../../abi/domctl.ts';
import type { DomainId } from '../../../xen/ids.ts';
import type { DmOps } from './dm-ops.ts';
import type { DomainInfo } from './domain-info.ts';

const CONTROLLERS = XEN_X86_EMU_IOAPIC | XEN_X86_EMU_PIC;
const ISA_LINES = 16;
const ARM_FIRST_SPI = 32;
const ARM_LAST_SPI = 1019;

/** The calls that set lines. */
type LineOps = Pick<DmOps, 'guest' | 'setIrqLevel' | 'setIsaIrqLevel'>;

/** A line. Refusals of Xen are not looked at: they say that the guest is going. */
export class InterruptLine {
  readonly #set: (level: 0 | 1) => number;
  /** Undefined until it was set here: whoever served the guest before may have left it high. */
  #level: 0 | 1 | undefined;

  constructor(set: (level: 0 | 1) => number) {
    this.#set = set;
  }

  /** Raises it. A line that is high has interrupted the guest already, which has yet to look why. */
  raise(): void {
    if (this.#level === 1) return;
    // The guest notices that it rises, not that it is high.
    if (this.#level === undefined) this.#set(0);
    this.#level = 1;
    this.#set(1);
  }

  lower(): void {
    if (this.#level === 0) return;
    this.#level = 0;
    this.#set(0);
  }
}

/**
 * The line `irq` of a guest: 0-15 on x86, a shared peripheral interrupt (32 and up) on Arm.
 *
 * @param info asks Xen about the guest, which only a privileged domain may. On Arm, where all guests are alike and driver
 *   domains are not privileged as a rule, it is not called
 * @throws RangeError that says why the guest cannot have one; nothing was called then
 */
export function interruptLine(
  ops: LineOps,
  info: () => DomainInfo,
  irq: number | undefined,
  architecture: string = process.arch,
): InterruptLine {
  const { guest } = ops;
  if (architecture === 'arm64') {
    const spi = lineNumber(guest, irq, ARM_FIRST_SPI, ARM_LAST_SPI);
    return new InterruptLine((level) => ops.setIrqLevel(spi, level));
  }
  if (architecture !== 'x64')
    throw new RangeError(`devices are served to guests on x86-64 and arm64, not on ${architecture}`);
  const { translated, emulation } = info();
  if (!translated)
    throw new RangeError(
      `domain ${guest} is a PV guest: Xen gives no accesses to registers of such a one to a device model; make it ` +
        'type="hvm"',
    );
  if ((emulation & CONTROLLERS) !== CONTROLLERS)
    throw new RangeError(
      `domain ${guest} is a PVH guest: it has no interrupt controller that a virtio-mmio device could use, and Xen ` +
        'panics when one is asked to; make it type="hvm"',
    );
  const line = lineNumber(guest, irq, 0, ISA_LINES - 1);
  return new InterruptLine((level) => ops.setIsaIrqLevel(line, level));
}

function lineNumber(guest: DomainId, irq: number | undefined, first: number, last: number): number {
  if (irq !== undefined && Number.isInteger(irq) && irq >= first && irq <= last) return irq;
  throw new RangeError(
    `a device of domain ${guest} with interrupt line ${irq ?? 'not given'}: expected ${first} to ${last}`,
  );
}
