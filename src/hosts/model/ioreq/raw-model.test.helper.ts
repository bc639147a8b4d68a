// A device model that knows nothing but Xen's ABI: hypercalls with arguments in its own memory, the pages that it
// maps, and its event channels. What a hostile one can do, a test can do with it.

import assert from 'node:assert/strict';
import * as dm from '../../../abi/dm-op.ts';
import { ioreq } from '../../../abi/ioreq.ts';
import * as mem from '../../../abi/memory-op.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { EventPort } from '../../../xen/ids.ts';
import { addDomain, type TestDomain } from '../domains.test.helper.ts';
import { p2mFrame } from '../physmap.ts';
import type { Xen } from '../xen.ts';

/** Where the arguments of its hypercalls lie, in frames of its memory, and where it maps what it acquires. */
const ARGUMENTS = 2 * XEN_PAGE_SIZE;
const LIST = 3 * XEN_PAGE_SIZE;
const MAPPED = 0xf_1000;

export class RawModel {
  readonly xen: Xen;
  readonly domain: TestDomain;
  readonly guest: TestDomain;
  readonly words: Int32Array;

  constructor(domain: TestDomain, guest: TestDomain) {
    this.xen = domain.xen;
    this.domain = domain;
    this.guest = guest;
    this.words = new Int32Array(this.xen.state.memory);
  }

  /** A privileged domain 1, and the guest that it models. */
  static of(xen: Xen, guest: TestDomain): RawModel {
    return new RawModel(addDomain(xen, 1, { privileged: true }), guest);
  }

  /** One dm_op. Returns its result, and the argument's bytes afterwards. */
  call(op: number, argument: Uint8Array, size = 8 + argument.length, more: readonly number[] = []) {
    const { addressSpace } = this.domain.ports;
    addressSpace.write(ARGUMENTS, dm.xenDmOp.make({ op }).bytes);
    addressSpace.write(ARGUMENTS + 8, argument);
    const buffers = [{ address: ARGUMENTS, size }, ...more.map((bytes) => ({ address: LIST, size: bytes }))];
    const result = this.domain.ports.dmOp(this.guest.id, buffers);
    return { result, bytes: addressSpace.read(ARGUMENTS + 8, argument.length) };
  }

  /** Makes a server; returns its id or the error. */
  create(buffering: number = dm.HVM_IOREQSRV_BUFIOREQ_OFF): number {
    const argument = dm.xenDmOpCreateIoreqServer.make({ handle_bufioreq: buffering });
    const { result, bytes } = this.call(dm.XEN_DMOP_create_ioreq_server, argument.bytes);
    return result < 0 ? result : dm.xenDmOpCreateIoreqServer.over(bytes).id;
  }

  range(op: number, id: number, type: number, start: bigint, end: bigint): number {
    return this.call(op, dm.xenDmOpIoreqServerRange.make({ id, type, start, end }).bytes).result;
  }

  map(id: number, type: number, start: number, end: number): number {
    return this.range(dm.XEN_DMOP_map_io_range_to_ioreq_server, id, type, BigInt(start), BigInt(end));
  }

  unmap(id: number, type: number, start: number, end: number): number {
    return this.range(dm.XEN_DMOP_unmap_io_range_from_ioreq_server, id, type, BigInt(start), BigInt(end));
  }

  enable(id: number, enabled = 1): number {
    return this.call(
      dm.XEN_DMOP_set_ioreq_server_state,
      dm.xenDmOpSetIoreqServerState.make({ id, enabled }).bytes,
    ).result;
  }

  destroy(id: number): number {
    return this.call(dm.XEN_DMOP_destroy_ioreq_server, dm.xenDmOpDestroyIoreqServer.make({ id }).bytes)
      .result;
  }

  info(id: number, flags = dm.XEN_DMOP_no_gfns) {
    const argument = dm.xenDmOpGetIoreqServerInfo.make({ id, flags });
    const { result, bytes } = this.call(dm.XEN_DMOP_get_ioreq_server_info, argument.bytes);
    return { result, info: dm.xenDmOpGetIoreqServerInfo.over(bytes) };
  }

  /** XENMEM_acquire_resource of one frame, to be mapped at `gfn`. */
  acquire(type: number, id: number, frame: number, gfn: number): number {
    const { addressSpace } = this.domain.ports;
    addressSpace.write(LIST, new Uint8Array(new BigUint64Array([BigInt(gfn)]).buffer));
    const argument = mem.xenMemAcquireResource.make({
      domid: this.guest.id,
      type,
      id,
      nr_frames: 1,
      frame,
      frame_list: LIST,
    });
    addressSpace.write(ARGUMENTS, argument.bytes);
    return this.domain.ports.memoryOp(mem.XENMEM_acquire_resource, ARGUMENTS);
  }

  /** Maps one of a server's pages. Returns the index of its first word in the machine's memory. */
  page(id: number, frame: number): number {
    const gfn = MAPPED + id * 2 + frame;
    assert.equal(this.acquire(mem.XENMEM_resource_ioreq_server, id, frame, gfn), 0);
    return (p2mFrame(this.domain.record.physmap.get(gfn)) * XEN_PAGE_SIZE) / 4;
  }

  /** Lets go of the page that `page` mapped. */
  unmapPage(id: number, frame: number): number {
    const argument = mem.xenRemoveFromPhysmap.make({
      domid: this.domain.id,
      gpfn: MAPPED + id * 2 + frame,
    });
    this.domain.ports.addressSpace.write(ARGUMENTS, argument.bytes);
    return this.domain.ports.memoryOp(mem.XENMEM_remove_from_physmap, ARGUMENTS);
  }

  /** A server that is on and has its page, with one range. */
  serve(type: number, start: number, end: number, buffering: number = dm.HVM_IOREQSRV_BUFIOREQ_OFF) {
    const id = this.create(buffering);
    assert.equal(this.map(id, type, start, end), 0);
    const page = this.page(id, 1);
    assert.equal(this.enable(id), 0);
    return { id, page };
  }

  /** Binds the event channel of a processor's requests. */
  bind(page: number, vcpu = 0): EventPort {
    const remote = this.words[page + (vcpu * ioreq.size + ioreq.offsetOf('vp_eport')) / 4];
    return this.domain.ports.events.bindInterdomain(this.guest.id, remote as EventPort);
  }
}

/** Index, in the words of a request, of the one with state, flags and type. */
export const STATE_WORD = ioreq.offsetOf('_pad0') / 4;
/** Bit at which the state begins in it. */
export const STATE_SHIFT = 16;
