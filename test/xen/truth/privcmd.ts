// Hypercalls from user space of domain 0, and memory of domains mapped by frame numbers (Linux, xen/privcmd.h;
// Xen 4.17, public/memory.h). Only what the check of the model needs. Before granter-domain.ts and privcmd-world.ts.

import { struct } from '../../../src/abi/struct.ts';
import { DOMID_SELF, XEN_PAGE_SIZE } from '../../../src/abi/xen.ts';
import { checked, type Libc } from '../../../src/hosts/linux/libc.ts';

const HYPERVISOR_MEMORY_OP = 12;
const HYPERVISOR_GRANT_TABLE_OP = 20;
const XENMEM_INCREASE_RESERVATION = 0;
const XENMEM_DECREASE_RESERVATION = 1;

// _IOC(_IOC_NONE, 'P', number, size of the argument)
const IOCTL_PRIVCMD_HYPERCALL = 0x30_5000;
const IOCTL_PRIVCMD_MMAPBATCH_V2 = 0x20_5004;
const IOCTL_PRIVCMD_MMAP_RESOURCE = 0x20_5007;

const hypercall = struct('privcmd_hypercall', {
  op: 'u64',
  a: 'u64',
  b: 'u64',
  c: 'u64',
  d: 'u64',
  e: 'u64',
});
const mmapBatch = struct('privcmd_mmapbatch_v2', {
  num: 'u32',
  dom: 'u16',
  _pad0: 'u16',
  addr: 'u64',
  arr: 'u64',
  err: 'u64',
});
const mmapResource = struct('privcmd_mmap_resource', {
  dom: 'u16',
  _pad0: 'u16',
  type: 'u32',
  id: 'u32',
  idx: 'u32',
  num: 'u64',
  addr: 'u64',
});
const memoryReservation = struct('xen_memory_reservation', {
  extent_start: 'u64',
  nr_extents: 'u64',
  extent_order: 'u32',
  mem_flags: 'u32',
  domid: 'u16',
  _pad0: 'u16',
  _pad1: 'u32',
});

const O_RDWR_CLOEXEC = 0o2000002;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
/** Private, anonymous, locked and filled: a hypercall does not wait for a page that Linux has not made yet. */
const MAP_RESIDENT = 0xa022;

/** Bytes for arguments of hypercalls; behind them those of ioctls, and lists. */
const ARGUMENTS = 16 * XEN_PAGE_SIZE;
const LISTS = 2 * XEN_PAGE_SIZE;
const TOTAL = ARGUMENTS + XEN_PAGE_SIZE + LISTS;

/** Memory of some domain that is mapped here. */
export interface Memory {
  readonly bytes: Uint8Array;
  /** Takes it out of this process; `bytes` must not be touched any more. */
  close(): void;
}

/** /dev/xen/privcmd, with memory for arguments. */
export class Privcmd {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #address: number;
  readonly #buffer: ArrayBuffer;
  readonly #ioctl: Uint8Array;
  /** Room for lists of frame numbers. */
  readonly list: { readonly address: number; readonly view: DataView };

  constructor(libc: Libc) {
    this.#libc = libc;
    this.#fd = checked(libc, 'open', libc.open('/dev/xen/privcmd', O_RDWR_CLOEXEC, 0), '/dev/xen/privcmd');
    const address = libc.mmap(0, TOTAL, PROT_READ_WRITE, MAP_RESIDENT, -1, 0);
    this.#address = checked(libc, 'mmap', address, 'memory for hypercalls');
    this.#buffer = libc.view(this.#address, TOTAL);
    new Uint8Array(this.#buffer).fill(0);
    this.#ioctl = new Uint8Array(this.#buffer, ARGUMENTS, XEN_PAGE_SIZE);
    const listAt = ARGUMENTS + XEN_PAGE_SIZE;
    this.list = { address: this.#address + listAt, view: new DataView(this.#buffer, listAt, LISTS) };
  }

  /** A hypercall. Returns what Xen does: a count, 0, or a negative errno. */
  hypercall(number: number, a: number, b = 0, c = 0): number {
    this.#ioctl.set(hypercall.make({ op: number, a, b, c }).bytes);
    const result = this.#libc.ioctl(this.#fd, IOCTL_PRIVCMD_HYPERCALL, this.#address + ARGUMENTS);
    return result < 0 ? -this.#libc.errno() : result;
  }

  /** A hypercall whose last argument is the address of `bytes`, which come back as Xen has left them. */
  call(bytes: Uint8Array, make: (address: number) => number): { result: number; bytes: Uint8Array } {
    if (bytes.length > ARGUMENTS)
      throw new RangeError(`${bytes.length} bytes of arguments: ${ARGUMENTS} at most`);
    const place = new Uint8Array(this.#buffer, 0, bytes.length);
    place.set(bytes);
    const result = make(this.#address);
    return { result, bytes: place.slice() };
  }

  grantTableOp(command: number, bytes: Uint8Array, count: number): { result: number; bytes: Uint8Array } {
    return this.call(bytes, (address) => this.grantTableOpAt(command, address, count));
  }

  grantTableOpAt(command: number, address: number, count: number): number {
    return this.hypercall(HYPERVISOR_GRANT_TABLE_OP, command, address, count >>> 0);
  }

  /** Changes how many pages a domain has, by a list of frame numbers. Returns the list as Xen has left it. */
  reserve(command: number, domid: number, frames: readonly number[]): number[] {
    for (const [index, frame] of frames.entries())
      this.list.view.setBigUint64(index * 8, BigInt(frame), true);
    const argument = { extent_start: this.list.address, nr_extents: frames.length, domid };
    const { result } = this.call(memoryReservation.make(argument).bytes, (address) =>
      this.hypercall(HYPERVISOR_MEMORY_OP, command, address),
    );
    if (result !== frames.length)
      throw new Error(`domain ${domid}: memory_op ${command} for ${frames.length} pages gave ${result}`);
    return frames.map((_, index) => Number(this.list.view.getBigUint64(index * 8, true)));
  }

  /** Pages for domain 0 that its Linux knows nothing of. Returns their frame numbers. */
  addPages(count: number): number[] {
    return this.reserve(XENMEM_INCREASE_RESERVATION, DOMID_SELF, new Array<number>(count).fill(0));
  }

  removePages(frames: readonly number[]): void {
    this.reserve(XENMEM_DECREASE_RESERVATION, DOMID_SELF, frames);
  }

  /** Maps pages of a domain, which may be DOMID_SELF, by its own frame numbers. */
  mapFrames(dom: number, frames: readonly number[]): Memory {
    const num = frames.length;
    return this.#map(num, (addr) => {
      const { view, address: arr } = this.list;
      const errors = num * 8;
      for (const [index, frame] of frames.entries()) {
        view.setBigUint64(index * 8, BigInt(frame), true);
        view.setInt32(errors + index * 4, 0, true);
      }
      this.#ioctl.set(mmapBatch.make({ num, dom, addr, arr, err: arr + errors }).bytes);
      const result = this.#libc.ioctl(this.#fd, IOCTL_PRIVCMD_MMAPBATCH_V2, this.#address + ARGUMENTS);
      checked(this.#libc, 'IOCTL_PRIVCMD_MMAPBATCH_V2', result, `pages of domain ${dom}`);
      for (let index = 0; index < num; index++) {
        const error = view.getInt32(errors + index * 4, true);
        if (error !== 0)
          throw new Error(`frame ${frames[index]} of domain ${dom} cannot be mapped: ${error}`);
      }
    });
  }

  /** Maps frames of a resource of another domain (XENMEM_acquire_resource). */
  mapResource(dom: number, type: number, num: number): Memory {
    return this.#map(num, (addr) => {
      this.#ioctl.set(mmapResource.make({ dom, type, num, addr }).bytes);
      const result = this.#libc.ioctl(this.#fd, IOCTL_PRIVCMD_MMAP_RESOURCE, this.#address + ARGUMENTS);
      checked(this.#libc, 'IOCTL_PRIVCMD_MMAP_RESOURCE', result, `resource ${type} of domain ${dom}`);
    });
  }

  #map(pages: number, fill: (address: number) => void): Memory {
    const libc = this.#libc;
    const length = pages * XEN_PAGE_SIZE;
    const mapped = libc.mmap(0, length, PROT_READ_WRITE, MAP_SHARED, this.#fd, 0);
    const address = checked(libc, 'mmap', mapped, '/dev/xen/privcmd');
    fill(address);
    return {
      bytes: new Uint8Array(libc.view(address, length)),
      close: () => void libc.munmap(address, length),
    };
  }

  close(): void {
    this.#libc.munmap(this.#address, TOTAL);
    this.#libc.close(this.#fd);
  }
}
