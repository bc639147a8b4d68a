// Operations on address spaces (memory_op): a guest places the pages that Xen shares with it, a toolstack or device
// model maps pages of other domains (Xen common/memory.c, arch/x86/mm/p2m.c, arch/arm/mm.c).
// Before grants/table-ops.ts, ioreq/servers.ts and foreign-pages.ts.

import * as op from '../../abi/memory-op.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import { type DomainRecord, NO_GFN, statusFramesFor } from './domain-record.ts';
import type { Domains } from './domains.ts';
import {
  EACCES,
  EBUSY,
  EFAULT,
  EINVAL,
  EIO,
  ENOENT,
  ENOSYS,
  ENXIO,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
  ESRCH,
} from './errno.ts';
import { addForeign, endForeignUse, removeForeign } from './foreign-pages.ts';
import { GRANT_FRAMES_PER_STATUS_FRAME, placeTableFrame } from './grants/table-ops.ts';
import { growGrantTable } from './grants/table-size.ts';
import type { GuestCopy } from './guest-copy.ts';
import { MachinePage } from './ioreq/machine-page.ts';
import { mayServe } from './ioreq/rights.ts';
import type { IoreqServers } from './ioreq/servers.ts';
import { BUFFERED_PAGE, SYNCHRONOUS_PAGE } from './ioreq/server-record.ts';
import { lock, unlock } from './lock.ts';
import {
  P2M_FOREIGN,
  P2M_GRANT_READONLY,
  P2M_GRANT_WRITABLE,
  P2M_NONE,
  P2M_RAM,
  p2mEntry,
  p2mFrame,
  p2mType,
  PHYSMAP_FRAMES,
} from './physmap.ts';
import type { Machine } from './state.ts';

/** Frames of an ioreq server: the buffered page and the synchronous one. */
const IOREQ_SERVER_FRAMES = 2;
/** A number of frames has no more bits than this where it goes on after others have run. */
const MAX_ACQUIRED = 2 ** 26 - 1;

/** Who calls, and what an operation needs. */
export interface MemoryOpCaller {
  readonly machine: Machine;
  readonly domains: Domains;
  readonly servers: IoreqServers;
  readonly domain: DomainRecord;
  readonly memory: GuestCopy;
}

/** Carries out XENMEM_ `command` with the argument at `address`. Returns 0 or a negative errno. */
export function memoryOp(caller: MemoryOpCaller, command: number, address: number): number {
  switch (command) {
    case op.XENMEM_add_to_physmap:
      return addToPhysmap(caller, address);
    case op.XENMEM_add_to_physmap_batch:
      return addBatch(caller, address);
    case op.XENMEM_remove_from_physmap:
      return removeFromPhysmap(caller, address);
    case op.XENMEM_acquire_resource:
      return acquireResource(caller, address);
    default:
      return ENOSYS;
  }
}

/** The domain whose address space is to change, if the caller may; otherwise a negative errno. */
function target(caller: MemoryOpCaller, id: number): DomainRecord | number {
  const domain = caller.domains.findFor(caller.domain, id);
  if (domain === undefined) return ESRCH;
  if (!domain.translated) return EACCES;
  return domain === caller.domain || mayServe(caller.machine, caller.domain, domain) ? domain : EPERM;
}

function addToPhysmap(caller: MemoryOpCaller, address: number): number {
  const bytes = caller.memory.from(address, op.xenAddToPhysmap.size);
  if (bytes === undefined) return EFAULT;
  const { domid, size, space, idx, gpfn } = op.xenAddToPhysmap.over(bytes);
  if (space === op.XENMAPSPACE_gmfn_foreign) return ENOSYS;
  const domain = target(caller, domid);
  if (typeof domain === 'number') return domain;
  if (space !== op.XENMAPSPACE_gmfn_range) return place(caller, domain, space, idx, gpfn, 0);
  if (gpfn + size >= Number.MAX_SAFE_INTEGER || idx + size >= Number.MAX_SAFE_INTEGER) return EOVERFLOW;
  // Ranges that overlap are moved from the end that is not written over.
  const isDown = gpfn > idx && gpfn < idx + size;
  for (let done = 0; done < size; done++) {
    const step = isDown ? size - 1 - done : done;
    const result = place(caller, domain, op.XENMAPSPACE_gmfn, idx + step, gpfn + step, 0);
    if (result < 0) return result;
  }
  return 0;
}

function addBatch(caller: MemoryOpCaller, address: number): number {
  const bytes = caller.memory.from(address, op.xenAddToPhysmapBatch.size);
  if (bytes === undefined) return EFAULT;
  const {
    domid,
    space,
    size,
    foreign_domid: foreign,
    idxs,
    gpfns,
    errs,
  } = op.xenAddToPhysmapBatch.over(bytes);
  if (space === op.XENMAPSPACE_gmfn_range) return EOPNOTSUPP;
  const domain = target(caller, domid);
  if (typeof domain === 'number') return domain;
  for (let index = 0; index < size; index++) {
    const idx = readU64(caller.memory, idxs + index * 8);
    const gpfn = readU64(caller.memory, gpfns + index * 8);
    if (idx === undefined || gpfn === undefined) return EFAULT;
    const error = new Int32Array([place(caller, domain, space, idx, gpfn, foreign)]);
    if (!caller.memory.to(errs + index * 4, new Uint8Array(error.buffer))) return EFAULT;
  }
  return 0;
}

/** Puts one page at `gpfn` of `domain`. */
function place(
  caller: MemoryOpCaller,
  domain: DomainRecord,
  space: number,
  idx: number,
  gpfn: number,
  foreign: number,
): number {
  if (gpfn >= PHYSMAP_FRAMES) return EINVAL;
  switch (space) {
    case op.XENMAPSPACE_shared_info:
      return idx === 0 ? placeSharedInfo(caller, domain, gpfn) : EINVAL;
    case op.XENMAPSPACE_grant_table:
      return placeGrantFrame(caller, domain, idx, gpfn);
    case op.XENMAPSPACE_gmfn:
      return domain.architecture === 'arm' ? ENOSYS : movePage(caller, domain, idx, gpfn);
    case op.XENMAPSPACE_gmfn_foreign:
      return mapForeign(caller, domain, idx, gpfn, foreign);
    case op.XENMAPSPACE_dev_mmio:
      return EACCES;
    default:
      return domain.architecture === 'arm' ? ENOSYS : EINVAL;
  }
}

function placeSharedInfo(caller: MemoryOpCaller, domain: DomainRecord, gfn: number): number {
  const { heap } = caller.machine;
  const page = new MachinePage(caller.machine, domain);
  return displace(caller, domain, gfn, (entry) => {
    lock(heap, page.lockWord);
    const before = heap[page.sharedInfoGfnWord] - 1;
    const frame = domain.sharedInfo / XEN_PAGE_SIZE;
    let result = before >= 0 && domain.architecture === 'arm' ? EBUSY : 0;
    if (result === 0 && before !== gfn) {
      if (!domain.physmap.replace(gfn, entry, p2mEntry(frame, P2M_RAM))) result = EINVAL;
      else if (before >= 0) domain.physmap.remove(before);
    }
    if (result === 0) heap[page.sharedInfoGfnWord] = gfn + 1;
    unlock(heap, page.lockWord);
    return result;
  });
}

function placeGrantFrame(caller: MemoryOpCaller, domain: DomainRecord, idx: number, gfn: number): number {
  const { machine } = caller;
  const isStatus = domain.grantVersion === 2 && Math.floor(idx / op.XENMAPIDX_grant_table_status) % 2 === 1;
  const index = isStatus ? idx - op.XENMAPIDX_grant_table_status : idx;
  if (index >= domain.maxGrantFrames) return EINVAL;
  const word = isStatus ? domain.statusGfnWord(index) : domain.grantGfnWord(index);
  const isThere = index < (isStatus ? domain.statusFrames : domain.grantFrames);
  // On Arm a guest takes the page away from where it stands before it puts it elsewhere.
  if (domain.architecture === 'arm' && isThere && machine.heap[word] !== NO_GFN) return EBUSY;
  return displace(caller, domain, gfn, (entry) =>
    placeTableFrame(machine, domain, index, isStatus, gfn, entry),
  );
}

/** Moves a page of the domain to another place of its address space. */
function movePage(caller: MemoryOpCaller, domain: DomainRecord, from: number, to: number): number {
  const source = domain.physmap.get(from);
  if (p2mType(source) !== P2M_RAM) return EACCES;
  if (from === to) return 0;
  const frame = p2mFrame(source);
  if (frame * XEN_PAGE_SIZE === domain.sharedInfo) return placeSharedInfo(caller, domain, to);
  const table = tableFrameAt(caller.machine, domain, from);
  if (table !== undefined)
    return displace(caller, domain, to, (entry) =>
      placeTableFrame(caller.machine, domain, table.index, table.isStatus, to, entry),
    );
  return displace(caller, domain, to, (entry) => {
    if (!domain.physmap.replace(to, entry, source)) return EINVAL;
    domain.physmap.replace(from, source, P2M_NONE);
    return 0;
  });
}

/** Maps a page of `foreign` into `domain`, which must be privileged or its device model. */
function mapForeign(
  caller: MemoryOpCaller,
  domain: DomainRecord,
  idx: number,
  gfn: number,
  foreign: number,
): number {
  const owner = caller.domains.find(foreign);
  if (owner === undefined) return ESRCH;
  if (owner === caller.domain) return EPERM;
  if (owner === domain) return EINVAL;
  if (!mayServe(caller.machine, domain, owner)) return EPERM;
  const frame = owner.ownFrame(idx);
  if (frame === 0) return EINVAL;
  const result = displace(caller, domain, gfn, (entry) =>
    addForeign(caller.machine, caller.domains, domain, gfn, owner, frame, entry) ? 0 : EINVAL,
  );
  // A page that Xen took away from its owner meanwhile is let go of again.
  if (result < 0 || owner.ownFrame(idx) === frame) return result;
  removeForeign(caller.machine, caller.domains, domain, gfn);
  return EINVAL;
}

/**
 * Puts something in place of what stands at `gfn`. Memory of the domain that stood there is out of its reach from
 * then on, a page that Xen shares with it stands nowhere, and a foreign page is let go of.
 *
 * @param put replaces the entry that it is given, or returns a negative errno and changes nothing
 */
function displace(
  caller: MemoryOpCaller,
  domain: DomainRecord,
  gfn: number,
  put: (entry: number) => number,
): number {
  const entry = domain.physmap.get(gfn);
  const type = p2mType(entry);
  // What another domain granted is mapped and unmapped by the operations of grant tables only.
  if (type === P2M_GRANT_WRITABLE || type === P2M_GRANT_READONLY) return ENXIO;
  if (type === P2M_FOREIGN && domain.architecture === 'x86') return ENXIO;
  const table = type === P2M_RAM ? tableFrameAt(caller.machine, domain, gfn) : undefined;
  const result = put(entry);
  if (result < 0 || domain.physmap.get(gfn) === entry) return result;
  if (type === P2M_FOREIGN) endForeignUse(caller.machine, caller.domains, p2mFrame(entry));
  if (table !== undefined) caller.machine.heap[table.word] = NO_GFN;
  if (p2mFrame(entry) * XEN_PAGE_SIZE === domain.sharedInfo)
    caller.machine.heap[new MachinePage(caller.machine, domain).sharedInfoGfnWord] = 0;
  return result;
}

/** Which frame of the domain's grant table stands at `gfn`. */
function tableFrameAt(machine: Machine, domain: DomainRecord, gfn: number) {
  for (const isStatus of [false, true]) {
    const frames = isStatus ? domain.statusFrames : domain.grantFrames;
    for (let index = 0; index < frames; index++) {
      const word = isStatus ? domain.statusGfnWord(index) : domain.grantGfnWord(index);
      if (machine.heap[word] === gfn) return { index, isStatus, word };
    }
  }
  return undefined;
}

function removeFromPhysmap(caller: MemoryOpCaller, address: number): number {
  const bytes = caller.memory.from(address, op.xenRemoveFromPhysmap.size);
  if (bytes === undefined) return EFAULT;
  const { domid, gpfn } = op.xenRemoveFromPhysmap.over(bytes);
  const domain = target(caller, domid);
  if (typeof domain === 'number') return domain;
  const type = p2mType(domain.physmap.get(gpfn));
  if (type === P2M_FOREIGN) return removeForeign(caller.machine, caller.domains, domain, gpfn) ? 0 : ENOENT;
  if (type !== P2M_RAM) return ENOENT;
  return displace(caller, domain, gpfn, (entry) =>
    domain.physmap.replace(gpfn, entry, P2M_NONE) ? 0 : ENOENT,
  );
}

/** Maps frames that belong to no address space: those of ioreq servers and grant tables. */
function acquireResource(caller: MemoryOpCaller, address: number): number {
  const bytes = caller.memory.from(address, op.xenMemAcquireResource.size);
  if (bytes === undefined) return EFAULT;
  const argument = op.xenMemAcquireResource.over(bytes);
  const { domid, type, id, nr_frames: count, frame: first, frame_list: list } = argument;
  if (argument.pad !== 0 || first + count >= 2 ** 32) return EINVAL;
  const owner = caller.domains.find(domid);
  if (owner === undefined) return ESRCH;
  if (owner === caller.domain || !mayServe(caller.machine, caller.domain, owner)) return EPERM;
  const most = resourceFrames(caller.machine, owner, type, id);
  if (most === 0) return EINVAL;
  if (list === 0) {
    if (count !== 0) return EINVAL;
    argument.nr_frames = most;
    return caller.memory.to(address, bytes) ? 0 : EFAULT;
  }
  if (count === 0 || count > MAX_ACQUIRED) return EINVAL;
  const place = { type, id, first, count };
  for (let index = 0; index < count; index++) {
    const result = acquireFrame(caller, owner, place, index, list + index * 8);
    if (result < 0) return result;
  }
  return 0;
}

/** Frames that a resource can have at most; 0 for what is none. */
function resourceFrames(machine: Machine, owner: DomainRecord, type: number, id: number): number {
  if (type === op.XENMEM_resource_ioreq_server)
    return new MachinePage(machine, owner).exists ? IOREQ_SERVER_FRAMES : 0;
  if (type !== op.XENMEM_resource_grant_table) return 0;
  if (id === op.XENMEM_resource_grant_table_id_shared) return owner.maxGrantFrames;
  return id === op.XENMEM_resource_grant_table_id_status ? statusFramesFor(owner.maxGrantFrames) : 0;
}

/** What an operation wants of a resource. */
interface Wanted {
  readonly type: number;
  readonly id: number;
  readonly first: number;
  readonly count: number;
}

/** Maps one frame where the caller's list says, or tells a PV caller its number. */
function acquireFrame(
  caller: MemoryOpCaller,
  owner: DomainRecord,
  { type, id, first, count }: Wanted,
  index: number,
  listed: number,
): number {
  const give = (frame: number) => giveFrame(caller, owner, frame, index, listed);
  const wanted = first + index;
  if (type === op.XENMEM_resource_ioreq_server) {
    if (id > 0xffff) return EINVAL;
    const page = wanted === op.XENMEM_resource_ioreq_server_frame_bufioreq ? BUFFERED_PAGE : SYNCHRONOUS_PAGE;
    return caller.servers.withFrame(caller.domain, owner, id, page, (frame) =>
      wanted > op.XENMEM_resource_ioreq_server_frame_ioreq ? EINVAL : give(frame),
    );
  }
  const frame = tableFrame(caller.machine, owner, id, wanted, first + count);
  return frame === 0 ? EINVAL : give(frame);
}

/** A frame of a grant table, which is made long enough for all that was asked for; 0 when it cannot be. */
function tableFrame(
  machine: Machine,
  owner: DomainRecord,
  id: number,
  index: number,
  frames: number,
): number {
  if (id === op.XENMEM_resource_grant_table_id_shared) {
    const isLong = frames <= owner.grantFrames || growGrantTable(machine, owner, frames);
    return isLong ? owner.grantFrame(index) : 0;
  }
  if (owner.grantVersion !== 2) return 0;
  const needed = frames * GRANT_FRAMES_PER_STATUS_FRAME;
  const isLong = frames <= owner.statusFrames || growGrantTable(machine, owner, needed);
  return isLong && frames <= owner.statusFrames ? owner.statusFrame(index) : 0;
}

function giveFrame(
  caller: MemoryOpCaller,
  owner: DomainRecord,
  frame: number,
  index: number,
  listed: number,
): number {
  if (!caller.domain.translated) {
    const number = new BigUint64Array([BigInt(frame)]);
    return caller.memory.to(listed, new Uint8Array(number.buffer)) ? 0 : EFAULT;
  }
  const gfn = readU64(caller.memory, listed);
  if (gfn === undefined) return EFAULT;
  const result = placeForeign(caller, owner, frame, gfn);
  return result < 0 && index > 0 ? EIO : result;
}

function placeForeign(caller: MemoryOpCaller, owner: DomainRecord, frame: number, gfn: number): number {
  const { domain } = caller;
  const before = domain.physmap.get(gfn);
  if (before === p2mEntry(frame, P2M_FOREIGN)) return 0;
  // A caller that maps over what it has mapped is a danger to itself.
  if (p2mType(before) !== P2M_NONE && p2mType(before) !== P2M_RAM) {
    caller.domains.crash(domain);
    return EPERM;
  }
  return displace(caller, domain, gfn, (entry) =>
    addForeign(caller.machine, caller.domains, domain, gfn, owner, frame, entry) ? 0 : EINVAL,
  );
}

function readU64(memory: GuestCopy, address: number): number | undefined {
  const bytes = memory.from(address, 8);
  if (bytes === undefined) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return view.getUint32(4, true) * 2 ** 32 + view.getUint32(0, true);
}
