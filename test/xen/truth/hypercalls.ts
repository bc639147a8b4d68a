// Hypercalls of domain 0 with their arguments in memory that stays where it is, and memory of domains mapped by frame
// numbers (public/memory.h). Only what the check of the model needs. Before granter-domain.ts and privcmd-world.ts.

import { HYPERVISOR_domctl, HYPERVISOR_grant_table_op } from '../../../src/abi/privcmd.ts';
import { struct } from '../../../src/abi/struct.ts';
import { DOMID_SELF, XEN_PAGE_SIZE } from '../../../src/abi/xen.ts';
import { Arena } from '../../../src/hosts/linux/arena.ts';
import { checked, type Libc } from '../../../src/hosts/linux/libc.ts';
import { Privcmd } from '../../../src/hosts/linux/xen/privcmd.ts';

const HYPERVISOR_MEMORY_OP = 12;
const XENMEM_INCREASE_RESERVATION = 0;
const XENMEM_DECREASE_RESERVATION = 1;

const memoryReservation = struct('xen_memory_reservation', {
  extent_start: 'u64',
  nr_extents: 'u64',
  extent_order: 'u32',
  mem_flags: 'u32',
  domid: 'u16',
  _pad0: 'u16',
  _pad1: 'u32',
});

const PROT_READ_WRITE = 3;
/** Private, anonymous, locked and filled: a hypercall does not wait for a page that Linux has not made yet. */
const MAP_RESIDENT = 0xa022;

/** Bytes for arguments; behind them lists of frame numbers, and then of errors. */
const ARGUMENTS = 16 * XEN_PAGE_SIZE;
const LIST = XEN_PAGE_SIZE;
const ERRORS = XEN_PAGE_SIZE;
const TOTAL = ARGUMENTS + LIST + ERRORS;

/** What a hypercall answers, and its arguments as Xen has left them. */
export interface Answer {
  readonly result: number;
  readonly bytes: Uint8Array;
}

/** Memory of some domain that is mapped here. */
export interface Memory {
  readonly pages: readonly Uint8Array[];
  /** Takes it out of this process; `pages` must not be touched any more. */
  close(): void;
}

export class Hypercalls {
  readonly #libc: Libc;
  readonly #arena: Arena;
  readonly #privcmd: Privcmd;
  readonly #address: number;
  readonly #buffer: ArrayBuffer;
  /** Room for lists of frame numbers. */
  readonly list: { readonly address: number; readonly view: DataView };

  /** Throws XenUnavailable where there is no Xen. */
  constructor(libc: Libc) {
    this.#libc = libc;
    this.#arena = new Arena(libc, XEN_PAGE_SIZE);
    this.#privcmd = new Privcmd(libc, this.#arena);
    const address = libc.mmap(0, TOTAL, PROT_READ_WRITE, MAP_RESIDENT, -1, 0);
    this.#address = checked(libc, 'mmap', address, 'memory for hypercalls');
    this.#buffer = libc.view(this.#address, TOTAL);
    this.list = { address: this.#address + ARGUMENTS, view: new DataView(this.#buffer, ARGUMENTS, LIST) };
  }

  /** GNTTABOP_ `command` on `count` elements, which are `bytes`. */
  grantTableOp(command: number, bytes: Uint8Array, count: number): Answer {
    return this.#call(bytes, (address) => this.grantTableOpAt(command, address, count));
  }

  grantTableOpAt(command: number, address: number, count: number): number {
    return this.#privcmd.hypercall(HYPERVISOR_grant_table_op, command, address, count >>> 0);
  }

  /** XEN_DOMCTL_ with all of its struct. */
  domctl(bytes: Uint8Array): number {
    return this.#call(bytes, (address) => this.#privcmd.hypercall(HYPERVISOR_domctl, address)).result;
  }

  /** Changes how many pages a domain has, by a list of frame numbers. Returns the list as Xen has left it. */
  reserve(command: number, domid: number, frames: readonly number[]): number[] {
    this.#putList(frames);
    const argument = { extent_start: this.list.address, nr_extents: frames.length, domid };
    const { result } = this.#call(memoryReservation.make(argument).bytes, (address) =>
      this.#privcmd.hypercall(HYPERVISOR_MEMORY_OP, command, address),
    );
    if (result !== frames.length)
      throw new Error(`domain ${domid}: memory_op ${command} for ${frames.length} pages gave ${result}`);
    return this.frameNumbers(frames.length);
  }

  /** Pages for domain 0 that its Linux knows nothing of. Returns their frame numbers. */
  addPages(count: number): number[] {
    return this.reserve(XENMEM_INCREASE_RESERVATION, DOMID_SELF, new Array<number>(count).fill(0));
  }

  removePages(frames: readonly number[]): void {
    this.reserve(XENMEM_DECREASE_RESERVATION, DOMID_SELF, frames);
  }

  /** The first `count` numbers in the list. */
  frameNumbers(count: number): number[] {
    return Array.from({ length: count }, (_, index) => Number(this.list.view.getBigUint64(index * 8, true)));
  }

  /** Maps pages of a domain, which may be DOMID_SELF, by its own frame numbers. */
  mapFrames(domain: number, frames: readonly number[]): Memory {
    this.#putList(frames);
    const { address } = this.list;
    const errors = new Int32Array(this.#buffer, ARGUMENTS + LIST, frames.length).fill(0);
    const mapped = this.#privcmd.mapFrames(domain, frames.length, address, address + LIST);
    const error = mapped < 0 ? mapped : errors.find((each) => each !== 0);
    if (error !== undefined)
      throw new Error(`frames ${frames} of domain ${domain} cannot be mapped: ${error}`);
    return this.#memory([mapped], frames.length);
  }

  /** Maps the first frames of a resource of another domain (XENMEM_acquire_resource). */
  mapResource(domain: number, type: number, frames: number): Memory {
    const addresses = Array.from({ length: frames }, (_, frame) =>
      this.#privcmd.mapResource(domain, type, 0, frame),
    );
    const error = addresses.find((address) => address < 0);
    if (error !== undefined)
      throw new Error(`resource ${type} of domain ${domain} cannot be mapped: ${error}`);
    return this.#memory(addresses, 1);
  }

  close(): void {
    this.#libc.munmap(this.#address, TOTAL);
    this.#privcmd.close();
    this.#arena.close();
  }

  #call(bytes: Uint8Array, make: (address: number) => number): Answer {
    const place = new Uint8Array(this.#buffer, 0, ARGUMENTS).subarray(0, bytes.length);
    place.set(bytes);
    const result = make(this.#address);
    return { result, bytes: place.slice() };
  }

  #putList(frames: readonly number[]): void {
    for (const [index, frame] of frames.entries())
      this.list.view.setBigUint64(index * 8, BigInt(frame), true);
  }

  /** So many pages at each of some addresses. */
  #memory(addresses: readonly number[], count: number): Memory {
    const pages = addresses.flatMap((address) => {
      const buffer = this.#libc.view(address, count * XEN_PAGE_SIZE);
      return Array.from(
        { length: count },
        (_, index) => new Uint8Array(buffer, index * XEN_PAGE_SIZE, XEN_PAGE_SIZE),
      );
    });
    const close = (): void => {
      for (const address of addresses) this.#privcmd.unmap(address, count);
    };
    return { pages, close };
  }
}
