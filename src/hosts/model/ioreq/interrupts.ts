// Interrupts that device models raise in a guest: lines with a level (SPIs on Arm, GSIs on x86 HVM, to which the
// lines of ISA and PCI lead) and messages (MSI). They wait in the page of the guest's machine until its kernel takes
// them. PVH guests on x86 have only local APICs, which take messages and have no lines.

import type { EventOps } from '../events/event-ops.ts';
import type { DomainRecord } from '../domain-record.ts';
import { EINVAL, EOPNOTSUPP, ERANGE, ESRCH } from '../errno.ts';
import { lock, unlock } from '../lock.ts';
import type { Machine } from '../state.ts';
import { MachinePage } from './machine-page.ts';

/** Lines of any guest; an SPI's number is its line. */
const LINES = 1024;
const LINE_WORDS = LINES / 32;
const FIRST_SPI = 32;
const ISA_IRQS = 16;
const PCI_DEVICES = 32;
const PCI_PINS = 4;
const VECTORS = 256;
const VECTOR_WORDS = VECTORS / 32;

// Words from the first one of the interrupts.
/** Levels of the lines now, and lines that have gone up and were not taken. */
const LEVELS = 0;
const RISEN = LEVELS + LINE_WORDS;
/** What holds lines of x86 up: pins of ISA, pins of PCI devices, and the ISA line of each of the four PCI links. */
const ISA_PINS = RISEN + LINE_WORDS;
const PCI_PINS_HIGH = ISA_PINS + 1;
const PCI_LINKS = PCI_PINS_HIGH + (PCI_DEVICES * PCI_PINS) / 32;
/** For each processor the vectors that were sent and not taken. */
const SENT_VECTORS = PCI_LINKS + PCI_PINS;

// Fields of a message (Intel SDM volume 3, 11.11).
const DESTINATION_SHIFT = 12;
const DESTINATION_MASK = 0xff;
const LOGICAL_DESTINATION = 1 << 2;
const DELIVERY_SHIFT = 8;
const DELIVERY_MASK = 7;
const DELIVERY_FIXED = 0;
const DELIVERY_LOWEST = 1;
const BROADCAST = 0xff;

/** Interrupts as one thread raises them. Failures are negative errno values. */
export class Interrupts {
  readonly #machine: Machine;
  readonly #events: EventOps;

  constructor(machine: Machine, events: EventOps) {
    this.#machine = machine;
    this.#events = events;
  }

  /** XEN_DMOP_set_irq_level: lines that are shared by all processors only. */
  setSpi(guest: DomainRecord, irq: number, level: number): number {
    if (irq < FIRST_SPI || irq >= LINES || level > 1) return EINVAL;
    return this.#change(guest, (at) => this.#setBit(at + LEVELS, irq, level));
  }

  /** XEN_DMOP_set_isa_irq_level. A PVH guest has nothing that this could reach: Xen 4.17 panicked. */
  setIsaIrq(guest: DomainRecord, irq: number, level: number): number {
    if (guest.kind !== 'hvm' || irq >= ISA_IRQS || level > 1) return EINVAL;
    return this.#change(guest, (at) => this.#setBit(at + ISA_PINS, irq, level));
  }

  /** XEN_DMOP_set_pci_intx_level, on the first bus of the first segment. */
  setPciPin(
    guest: DomainRecord,
    place: readonly [segment: number, bus: number],
    device: number,
    pin: number,
    level: number,
  ): number {
    if (guest.kind !== 'hvm' || place.some((part) => part !== 0)) return EINVAL;
    if (device >= PCI_DEVICES || pin >= PCI_PINS || level > 1) return EINVAL;
    return this.#change(guest, (at) => this.#setBit(at + PCI_PINS_HIGH, device * PCI_PINS + pin, level));
  }

  /** XEN_DMOP_set_pci_link_route: leads a PCI link to a line of ISA, or to none (0). */
  routePciLink(guest: DomainRecord, link: number, irq: number): number {
    if (guest.kind !== 'hvm' || link >= PCI_PINS || irq >= ISA_IRQS) return EINVAL;
    return this.#change(guest, (at) => {
      this.#machine.heap[at + PCI_LINKS + link] = irq;
    });
  }

  /** XEN_DMOP_inject_msi. Messages without a vector stand for event channels (pirq), which there are none of. */
  injectMessage(guest: DomainRecord, addressLow: number, addressHigh: number, data: number): number {
    const vector = data % VECTORS;
    const destination = (addressLow >>> DESTINATION_SHIFT) & DESTINATION_MASK;
    if (vector === 0) return destination === 0 && addressHigh >>> 8 === 0 ? ERANGE : EOPNOTSUPP;
    const delivery = (data >>> DELIVERY_SHIFT) & DELIVERY_MASK;
    if (delivery > DELIVERY_LOWEST) return EINVAL;
    const isLogical = (addressLow & LOGICAL_DESTINATION) !== 0;
    const targets: number[] = [];
    for (let vcpu = 0; vcpu < guest.vcpus; vcpu++)
      if (isMeant(vcpu, destination, isLogical)) targets.push(vcpu);
    if (delivery === DELIVERY_LOWEST && targets.length === 0) return ESRCH;
    const at = new MachinePage(this.#machine, guest).interruptsWord + SENT_VECTORS;
    for (const vcpu of delivery === DELIVERY_FIXED ? targets : targets.slice(0, 1)) {
      const word = at + vcpu * VECTOR_WORDS + (vector >>> 5);
      Atomics.or(this.#machine.heap, word, 1 << (vector & 31));
    }
    this.#events.wake(guest);
    return 0;
  }

  #change(guest: DomainRecord, change: (at: number) => void): number {
    const { heap } = this.#machine;
    const page = new MachinePage(this.#machine, guest);
    lock(heap, page.lockWord);
    const before = heap.slice(page.interruptsWord + LEVELS, page.interruptsWord + LEVELS + LINE_WORDS);
    change(page.interruptsWord);
    if (guest.architecture === 'x86') this.#lead(page.interruptsWord);
    for (let word = 0; word < LINE_WORDS; word++) {
      const risen = heap[page.interruptsWord + LEVELS + word] & ~before[word];
      if (risen !== 0) Atomics.or(heap, page.interruptsWord + RISEN + word, risen);
    }
    unlock(heap, page.lockWord);
    this.#events.wake(guest);
    return 0;
  }

  /** Sets the lines (GSIs) of x86 to what their pins hold up. */
  #lead(at: number): void {
    const { heap } = this.#machine;
    heap.fill(0, at + LEVELS, at + LEVELS + LINE_WORDS);
    for (let irq = 0; irq < ISA_IRQS; irq++)
      // The timer's pin leads to line 2.
      if (this.#isSet(at + ISA_PINS, irq)) this.#setBit(at + LEVELS, irq === 0 ? 2 : irq, 1);
    for (let pin = 0; pin < PCI_DEVICES * PCI_PINS; pin++) {
      if (!this.#isSet(at + PCI_PINS_HIGH, pin)) continue;
      const device = pin >>> 2;
      this.#setBit(at + LEVELS, 16 + (((device << 2) + (device >>> 3) + (pin & 3)) & 31), 1);
      const irq = heap[at + PCI_LINKS + ((device + pin) & 3)];
      if (irq !== 0) this.#setBit(at + LEVELS, irq, 1);
    }
  }

  #isSet(at: number, bit: number): boolean {
    return ((this.#machine.heap[at + (bit >>> 5)] >>> (bit & 31)) & 1) === 1;
  }

  #setBit(at: number, bit: number, value: number): void {
    const word = at + (bit >>> 5);
    if (value === 1) Atomics.or(this.#machine.heap, word, 1 << (bit & 31));
    else Atomics.and(this.#machine.heap, word, ~(1 << (bit & 31)));
  }
}

/** Whether a processor is meant by a message; its APIC's id is twice its number. */
function isMeant(vcpu: number, destination: number, isLogical: boolean): boolean {
  if (isLogical) return ((destination >>> vcpu) & 1) === 1;
  return destination === BROADCAST || destination === vcpu * 2;
}

/** The interrupts of one processor as its kernel handles them. */
export class DomainInterrupts {
  readonly #heap: Int32Array;
  readonly #at: number;
  readonly #vectors: number;
  readonly #lines = new Map<number, () => void>();
  readonly #messages = new Map<number, () => void>();

  constructor(machine: Machine, domain: DomainRecord, vcpu: number) {
    this.#heap = machine.heap;
    this.#at = new MachinePage(machine, domain).interruptsWord;
    this.#vectors = this.#at + SENT_VECTORS + vcpu * VECTOR_WORDS;
  }

  /** Calls `handler` when a line has gone up, and again while it stays there; `undefined` masks it. */
  onLine(line: number, handler: (() => void) | undefined): void {
    if (handler) this.#lines.set(line, handler);
    else this.#lines.delete(line);
  }

  /** Calls `handler` for each message with this vector. */
  onMessage(vector: number, handler: (() => void) | undefined): void {
    if (handler) this.#messages.set(vector, handler);
    else this.#messages.delete(vector);
  }

  /** Handles what waits now. Returns whether there was anything. */
  poll(): boolean {
    let worked = false;
    for (const [line, handler] of this.#lines) {
      const bit = 1 << (line & 31);
      const risen = Atomics.and(this.#heap, this.#at + RISEN + (line >>> 5), ~bit) & bit;
      if (risen === 0 && (Atomics.load(this.#heap, this.#at + LEVELS + (line >>> 5)) & bit) === 0) continue;
      worked = true;
      handler();
    }
    for (const [vector, handler] of this.#messages) {
      const bit = 1 << (vector & 31);
      if ((Atomics.and(this.#heap, this.#vectors + (vector >>> 5), ~bit) & bit) === 0) continue;
      worked = true;
      handler();
    }
    return worked;
  }
}
