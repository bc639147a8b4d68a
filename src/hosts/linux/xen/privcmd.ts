// The calls of /dev/xen/privcmd (Linux, drivers/xen/privcmd.c): pages of Xen's and of other domains in this process,
// operations of a device model, and hypercalls. Before device-model.ts, foreign-memory.ts and domain-info.ts.

import { xenDmOp, xenDmOpBuf } from '../../../abi/dm-op.ts';
import {
  IOCTL_PRIVCMD_DM_OP,
  IOCTL_PRIVCMD_HYPERCALL,
  IOCTL_PRIVCMD_MMAP_RESOURCE,
  IOCTL_PRIVCMD_MMAPBATCH_V2,
  privcmdDmOp,
  privcmdHypercall,
  privcmdMmapbatchV2,
  privcmdMmapResource,
} from '../../../abi/privcmd.ts';
import type { FieldLayout } from '../../../abi/struct.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import { assert } from '../../../errors.ts';
import type { Arena, Scratch } from '../arena.ts';
import { checked, type Libc } from '../libc.ts';
import { openXenDevice } from './device-files.ts';

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_FIXED = 0x10;
/** Bytes of an operation of a device model at most. */
const DM_OP_SIZE = 64;

/** Of a struct: how long it is, and that it is one. */
interface Layout {
  readonly name: string;
  readonly size: number;
  readonly fields: readonly FieldLayout[];
}

/** The device, opened once. Calls return 0 and up, or the negative errno of a refusal. */
export class Privcmd {
  readonly fd: number;
  readonly #libc: Libc;
  readonly #argument: Scratch;
  readonly #buffer: Scratch;
  readonly #operation: Scratch;
  /** Where the arguments of the next operation of a device model go, and its answers come. */
  readonly arguments: Uint8Array;

  /** Throws XenUnavailable. */
  constructor(libc: Libc, arena: Arena) {
    this.#libc = libc;
    this.#argument = arena.take(privcmdHypercall.size);
    this.#buffer = arena.take(xenDmOpBuf.size);
    this.#operation = arena.take(DM_OP_SIZE);
    this.arguments = this.#operation.u8.subarray(xenDmOp.size);
    this.fd = openXenDevice(libc, '/dev/xen/privcmd');
  }

  /** Makes an operation (XEN_DMOP_) of a device model of `domain`, with what `arguments` begins with. */
  dmOp(domain: number, operation: number, layout: Layout): number {
    const length = xenDmOp.size + layout.size;
    assert(length <= DM_OP_SIZE, 'room for an operation of a device model', length, DM_OP_SIZE);
    const head = xenDmOp.over(this.#operation.u8);
    head.op = operation;
    head.pad = 0;
    const buffer = xenDmOpBuf.over(this.#buffer.u8);
    buffer.h = this.#operation.address;
    buffer.size = length;
    const call = privcmdDmOp.over(this.#argument.u8);
    call.dom = domain;
    call.num = 1;
    call.ubufs = this.#buffer.address;
    return this.#call(IOCTL_PRIVCMD_DM_OP);
  }

  /**
   * Maps one page of a resource of `domain` (XENMEM_resource_).
   *
   * @returns its address, to be given to `unmap`; or the negative errno
   */
  mapResource(domain: number, type: number, id: number, frame: number): number {
    const address = this.#reserve(1);
    const call = privcmdMmapResource.over(this.#argument.u8);
    call.dom = domain;
    call.type = type;
    call.id = id;
    call.idx = frame;
    call.num = 1;
    call.addr = address;
    const result = this.#call(IOCTL_PRIVCMD_MMAP_RESOURCE);
    if (result >= 0) return address;
    this.unmap(address, 1);
    return result;
  }

  /**
   * Maps `count` frames of `domain`, one after the other, whose numbers are the bytes at `frames`, 8 for each. What is
   * mapped by one call can only be unmapped as a whole: Linux does not split it.
   *
   * @param errors where the reasons go, 4 bytes for each: 0, or the negative errno of one that is not mapped
   * @param place address at which they are to be, in stead of what is there; 0 for any
   * @returns the address, to be given to `unmap`; or the negative errno when none is mapped
   */
  mapFrames(domain: number, count: number, frames: number, errors: number, place = 0): number {
    const address = this.#reserve(count, place);
    const call = privcmdMmapbatchV2.over(this.#argument.u8);
    call.num = count;
    call.dom = domain;
    call.addr = address;
    call.arr = frames;
    call.err = errors;
    const result = this.#call(IOCTL_PRIVCMD_MMAPBATCH_V2);
    if (result >= 0) return address;
    this.unmap(address, count);
    return result;
  }

  /** Ends a mapping of `count` pages. */
  unmap(address: number, count: number): void {
    checked(this.#libc, 'munmap', this.#libc.munmap(address, count * XEN_PAGE_SIZE), "pages of Xen's");
  }

  /** Makes a hypercall; what its arguments point to has to stay where it is (hypercall-memory). */
  hypercall(number: number, first: number, second = 0, third = 0): number {
    const call = privcmdHypercall.over(this.#argument.u8);
    call.op = number;
    call.arg0 = first;
    call.arg1 = second;
    call.arg2 = third;
    call.arg3 = 0;
    call.arg4 = 0;
    return this.#call(IOCTL_PRIVCMD_HYPERCALL);
  }

  close(): void {
    this.#libc.close(this.fd);
  }

  /** Addresses at which the device can put pages. */
  #reserve(count: number, place = 0): number {
    const flags = MAP_SHARED | (place === 0 ? 0 : MAP_FIXED);
    const address = this.#libc.mmap(place, count * XEN_PAGE_SIZE, PROT_READ_WRITE, flags, this.fd, 0);
    return checked(this.#libc, 'mmap', address, "addresses for pages of Xen's");
  }

  #call(request: number): number {
    const result = this.#libc.ioctl(this.fd, request, this.#argument.address);
    return result < 0 ? -this.#libc.errno() : result;
  }
}
