// What Xen knows of the machine that a guest believes to have, beside its memory: parameters, lines of interrupts,
// the latch of the PCI bus, the servers of its devices. A part of the domain's record and one page of Xen's heap,
// which guests without an emulated machine (PV) do not have.

import { HVM_NR_PARAMS } from '../../../abi/hvm-params.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Machine } from '../state.ts';

/** Servers of one domain at most. */
export const MAX_IOREQ_SERVERS = 8;

// Words of the part of the record.
/** Index of the page's first word; written when the domain is made. */
const PAGE = 0;
const LOCK = 1;
/** Grows with every change of servers, ranges and windows: what was looked up before may no longer hold. */
const CHANGES = 2;
/** One bit for each domain that may be its device model. */
const MODELS = 3;
/** Window tables that this domain, as a device model, outlives the guests of (windows.ts). */
const ORPHANS = 7;
const SERVERS = 8;

// Words of the page.
const PARAMS = 0;
const PCI_ADDRESS = 2 * HVM_NR_PARAMS;
const SHARED_INFO_GFN = PCI_ADDRESS + 1;
const FREE_PAGES = SHARED_INFO_GFN + 1;
const FREE_LEGACY_PAGES = FREE_PAGES + 2;
const INTERRUPTS = 256;

/** The words of one guest's machine. */
export class MachinePage {
  readonly #heap: Int32Array;
  readonly #at: number;
  readonly #page: number;

  constructor(machine: Machine, domain: DomainRecord) {
    this.#heap = machine.heap;
    this.#at = domain.deviceModelWord;
    this.#page = machine.heap[domain.deviceModelWord + PAGE];
  }

  /** Word that locks everything here. */
  get lockWord(): number {
    return this.#at + LOCK;
  }

  get changesWord(): number {
    return this.#at + CHANGES;
  }

  get orphansWord(): number {
    return this.#at + ORPHANS;
  }

  /** Whether the domain was named as a device model of this one. */
  isModel(id: number): boolean {
    return ((Atomics.load(this.#heap, this.#at + MODELS + (id >>> 5)) >>> (id & 31)) & 1) === 1;
  }

  setModel(id: number, isModel: boolean): void {
    const word = this.#at + MODELS + (id >>> 5);
    if (isModel) Atomics.or(this.#heap, word, 1 << (id & 31));
    else Atomics.and(this.#heap, word, ~(1 << (id & 31)));
  }

  /** Word that holds where the record of server `id` is. It stays there once it was made; see servers.ts. */
  serverWord(id: number): number {
    return this.#at + SERVERS + id;
  }

  /** The value of one of the HVM_PARAM_, whoever may see it; hvm-params.ts knows who may. */
  param(index: number): bigint {
    const word = this.#page + PARAMS + 2 * index;
    return (BigInt(this.#heap[word + 1] >>> 0) << 32n) | BigInt(this.#heap[word] >>> 0);
  }

  setParam(index: number, value: bigint): void {
    const word = this.#page + PARAMS + 2 * index;
    this.#heap[word] = Number(value & 0xffff_ffffn);
    this.#heap[word + 1] = Number(value >> 32n);
  }

  /** Word that holds what the guest last wrote to port 0xcf8. */
  get pciAddressWord(): number {
    return this.#page + PCI_ADDRESS;
  }

  /** Word that holds where shared_info stands in the guest's address space, + 1; 0 where it does not. */
  get sharedInfoGfnWord(): number {
    return this.#page + SHARED_INFO_GFN;
  }

  /** Two words with one bit for each of the pages set aside for servers that none has; see legacy-pages.ts. */
  get freePagesWord(): number {
    return this.#page + FREE_PAGES;
  }

  /** The same in one word for the two pages of old. */
  get freeLegacyPagesWord(): number {
    return this.#page + FREE_LEGACY_PAGES;
  }

  /** First word of the lines of interrupts, see interrupts.ts. */
  get interruptsWord(): number {
    return this.#page + INTERRUPTS;
  }

  /** Whether the guest has an emulated machine. */
  get exists(): boolean {
    return this.#page !== 0;
  }

  /** Gives the page back, for a domain that is going. */
  release(machine: Machine): void {
    if (this.#page !== 0) machine.givePages(this.#page, 1);
    this.#heap[this.#at + PAGE] = 0;
  }
}
