// The grant table hypercall as guests make it: an operation, and the address of a batch of arguments in the caller's
// memory. Each element is copied in once, carried out, and given its own status; between elements others may run.
// Before mapping.ts, copying.ts, version.ts and table-ops.ts.

import * as op from '../../../abi/grant-table-op.ts';
import {
  GNTST_BAD_DOMAIN,
  GNTST_BAD_PAGE,
  GNTST_BAD_VIRT_ADDR,
  GNTST_GENERAL_ERROR,
  GNTST_OKAY,
  GNTST_PERMISSION_DENIED,
} from '../../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Domains } from '../domains.ts';
import { EFAULT, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, ESRCH } from '../errno.ts';
import type { GuestCopy } from '../guest-copy.ts';
import type { Machine } from '../state.ts';
import { type GrantCopying, patientCopy } from './copying.ts';
import { type GrantMapping, NO_PLACE, Unmapping } from './mapping.ts';
import { flushCache, swapEntries, tableFrameNumber } from './table-ops.ts';
import { growGrantTable } from './table-size.ts';
import { setVersion } from './version.ts';

/** Unmaps between two flushes of the caches of translations. */
const UNMAP_BATCH = 32;

/** Bits of an operation's number. Those above are Xen's own, for calls that it continues: there are none here. */
const COMMAND_MASK = 0xfff;

/** What an operation on one element needs; made once for each caller. */
export interface GrantTableCaller {
  readonly machine: Machine;
  readonly domains: Domains;
  readonly mapping: GrantMapping;
  readonly copying: GrantCopying;
  readonly domain: DomainRecord;
  readonly memory: GuestCopy;
  readonly vcpu: number;
  /** Called between two elements of a batch: others may run now (hypercall_preempt_check). */
  readonly pause: () => void;
}

/** One batch operation: carries out the element at `address`. Returns 0, or a negative errno that ends the batch. */
type Element = (caller: GrantTableCaller, address: number) => number;

/**
 * Carries out GNTTABOP_ `command` on `count` elements from `address`.
 *
 * @returns 0 or a negative errno; what happened to an element is in its status
 */
export function grantTableOp(
  caller: GrantTableCaller,
  command: number,
  address: number,
  count: number,
): number {
  if (!(count >= 0 && count <= 0x7fff_ffff) || command & ~COMMAND_MASK) return EINVAL;
  switch (command) {
    case op.GNTTABOP_MAP_GRANT_REF:
      return batch(caller, address, count, op.gnttabMapGrantRef.size, map);
    case op.GNTTABOP_UNMAP_GRANT_REF:
      return unmapBatches(caller, address, count, false);
    case op.GNTTABOP_UNMAP_AND_REPLACE:
      return unmapBatches(caller, address, count, true);
    case op.GNTTABOP_COPY:
      return batch(caller, address, count, op.gnttabCopy.size, copy);
    case op.GNTTABOP_SWAP_GRANT_REF:
      return batch(caller, address, count, op.gnttabSwapGrantRef.size, swap);
    case op.GNTTABOP_TRANSFER:
      // As a Xen that was started with gnttab=no-transfer.
      if (!caller.domain.translated) return EOPNOTSUPP;
      return batch(caller, address, count, op.gnttabTransfer.size, transfer);
    case op.GNTTABOP_CACHE_FLUSH:
      if (!caller.domain.hasCacheFlush) return ENOSYS;
      return batch(caller, address, count, op.gnttabCacheFlush.size, flush);
    case op.GNTTABOP_SETUP_TABLE:
      return count === 1 ? setupTable(caller, address) : EINVAL;
    case op.GNTTABOP_QUERY_SIZE:
      return count === 1 ? querySize(caller, address) : EINVAL;
    case op.GNTTABOP_GET_STATUS_FRAMES:
      return count === 1 ? getStatusFrames(caller, address) : EINVAL;
    case op.GNTTABOP_SET_VERSION:
      return switchVersion(caller, address);
    case op.GNTTABOP_GET_VERSION:
      return getVersion(caller, address);
    default:
      return ENOSYS;
  }
}

function batch(
  caller: GrantTableCaller,
  address: number,
  count: number,
  size: number,
  element: Element,
): number {
  for (let index = 0; index < count; index++) {
    if (index > 0) caller.pause();
    const result = element(caller, address + index * size);
    if (result < 0) return result;
  }
  return 0;
}

function map(caller: GrantTableCaller, address: number): number {
  const bytes = caller.memory.from(address, op.gnttabMapGrantRef.size);
  if (bytes === undefined) return EFAULT;
  const argument = op.gnttabMapGrantRef.over(bytes);
  const gfn = Math.floor(argument.host_addr / XEN_PAGE_SIZE);
  const { mapping, domain } = caller;
  const result = mapping.map(domain, gfn, argument.flags, argument.ref, argument.dom, caller.vcpu);
  argument.status = Math.min(result, GNTST_OKAY);
  if (result >= 0) {
    argument.handle = result;
    argument.dev_bus_addr = mapping.busAddress;
  }
  return caller.memory.to(address, bytes) ? 0 : EFAULT;
}

/** Unmaps element by element; the owners are told after each 32, when caches have been flushed. */
function unmapBatches(caller: GrantTableCaller, address: number, count: number, replace: boolean): number {
  for (let done = 0; done < count; done += UNMAP_BATCH) {
    if (done > 0) caller.pause();
    const result = unmapBatch(caller, address, done, Math.min(count - done, UNMAP_BATCH), replace);
    if (result < 0) return result;
  }
  return 0;
}

function unmapBatch(
  caller: GrantTableCaller,
  address: number,
  first: number,
  count: number,
  replace: boolean,
): number {
  const { size } = replace ? op.gnttabUnmapAndReplace : op.gnttabUnmapGrantRef;
  const operations: Unmapping[] = [];
  let result = 0;
  for (let index = 0; index < count && result === 0; index++) {
    const operation = new Unmapping();
    operations.push(operation);
    result = unmap(caller, address + (first + index) * size, operation, replace);
  }
  for (const operation of operations) caller.mapping.complete(operation);
  return result;
}

function unmap(caller: GrantTableCaller, address: number, operation: Unmapping, replace: boolean): number {
  const argumentType = replace ? op.gnttabUnmapAndReplace : op.gnttabUnmapGrantRef;
  const bytes = caller.memory.from(address, argumentType.size);
  if (bytes === undefined) return EFAULT;
  const { host_addr: host, handle } = op.gnttabUnmapGrantRef.over(bytes);
  operation.handle = handle;
  // Address 0 stands for "not this part".
  operation.gfn = host === 0 ? NO_PLACE : Math.floor(host / XEN_PAGE_SIZE);
  if (replace) {
    const { new_addr: next } = op.gnttabUnmapAndReplace.over(bytes);
    operation.replacement = next === 0 ? NO_PLACE : Math.floor(next / XEN_PAGE_SIZE);
  } else operation.busAddress = op.gnttabUnmapGrantRef.over(bytes).dev_bus_addr;
  const status = caller.mapping.detach(operation, caller.domain);
  return putStatus(caller, address + argumentType.offsetOf('status'), status);
}

function copy(caller: GrantTableCaller, address: number): number {
  const bytes = caller.memory.from(address, op.gnttabCopy.size);
  if (bytes === undefined) return EFAULT;
  const argument = op.gnttabCopy.over(bytes);
  const source = endOf(
    argument.source_domid,
    argument.source_u,
    argument.source_offset,
    isSourceRef(argument.flags),
  );
  const dest = endOf(argument.dest_domid, argument.dest_u, argument.dest_offset, isDestRef(argument.flags));
  const { copying, domain, pause } = caller;
  const status = patientCopy(copying, domain, source, dest, argument.len, argument.flags, pause);
  return putStatus(caller, address + op.gnttabCopy.offsetOf('status'), status);
}

const isSourceRef = (flags: number) => (flags & op.GNTCOPY_SOURCE_GREF) !== 0;
const isDestRef = (flags: number) => (flags & op.GNTCOPY_DEST_GREF) !== 0;

/** A reference has 32 of the 64 bits that a frame number has. */
function endOf(domain: number, page: number, offset: number, isReference: boolean) {
  return { domain, page: isReference ? page % 2 ** 32 : page, offset };
}

function swap(caller: GrantTableCaller, address: number): number {
  const bytes = caller.memory.from(address, op.gnttabSwapGrantRef.size);
  if (bytes === undefined) return EFAULT;
  const { ref_a: a, ref_b: b } = op.gnttabSwapGrantRef.over(bytes);
  const status = swapEntries(caller.machine, caller.domain, a, b);
  return putStatus(caller, address + op.gnttabSwapGrantRef.offsetOf('status'), status);
}

/** Pages of a guest with an address space of its own cannot change hands. */
function transfer(caller: GrantTableCaller, address: number): number {
  const bytes = caller.memory.from(address, op.gnttabTransfer.size);
  if (bytes === undefined) return EFAULT;
  const isOwn = caller.domain.ownFrame(op.gnttabTransfer.over(bytes).mfn) !== 0;
  const status = isOwn ? GNTST_GENERAL_ERROR : GNTST_BAD_PAGE;
  return putStatus(caller, address + op.gnttabTransfer.offsetOf('status'), status);
}

function flush(caller: GrantTableCaller, address: number): number {
  const bytes = caller.memory.from(address, op.gnttabCacheFlush.size);
  if (bytes === undefined) return EFAULT;
  const { a, offset, length, op: operation } = op.gnttabCacheFlush.over(bytes);
  return flushCache(caller.machine, caller.domains, caller.domain, a, offset, length, operation);
}

/** The domain that an operation is about, if the caller may act on it; otherwise a GNTST status. */
function target(caller: GrantTableCaller, id: number): DomainRecord | number {
  const domain = caller.domains.findFor(caller.domain, id);
  if (domain === undefined) return GNTST_BAD_DOMAIN;
  return domain === caller.domain || caller.domain.privileged ? domain : GNTST_PERMISSION_DENIED;
}

function setupTable(caller: GrantTableCaller, address: number): number {
  const bytes = caller.memory.from(address, op.gnttabSetupTable.size);
  if (bytes === undefined) return EFAULT;
  const { dom, nr_frames: frames, frame_list: list } = op.gnttabSetupTable.over(bytes);
  const domain = target(caller, dom);
  const statusAt = address + op.gnttabSetupTable.offsetOf('status');
  if (typeof domain === 'number') return putStatus(caller, statusAt, domain);
  const status = growGrantTable(caller.machine, domain, frames)
    ? putFrames(caller, domain, frames, list, false)
    : GNTST_GENERAL_ERROR;
  return putStatus(caller, statusAt, status);
}

function getStatusFrames(caller: GrantTableCaller, address: number): number {
  const bytes = caller.memory.from(address, op.gnttabGetStatusFrames.size);
  if (bytes === undefined) return EFAULT;
  const { dom, nr_frames: frames, frame_list: list } = op.gnttabGetStatusFrames.over(bytes);
  const domain = target(caller, dom);
  const statusAt = address + op.gnttabGetStatusFrames.offsetOf('status');
  if (typeof domain === 'number') return putStatus(caller, statusAt, domain);
  // Never more than the caller has room for, nor more than there are (XSA-382).
  const status =
    frames > domain.statusFrames ? GNTST_GENERAL_ERROR : putFrames(caller, domain, frames, list, true);
  return putStatus(caller, statusAt, status);
}

function putFrames(
  caller: GrantTableCaller,
  domain: DomainRecord,
  frames: number,
  list: number,
  isStatus: boolean,
): number {
  const word = new DataView(new ArrayBuffer(8));
  for (let index = 0; index < frames; index++) {
    word.setBigUint64(0, tableFrameNumber(caller.machine, domain, index, isStatus), true);
    if (!caller.memory.to(list + index * 8, new Uint8Array(word.buffer))) return GNTST_BAD_VIRT_ADDR;
  }
  return GNTST_OKAY;
}

function querySize(caller: GrantTableCaller, address: number): number {
  const bytes = caller.memory.from(address, op.gnttabQuerySize.size);
  if (bytes === undefined) return EFAULT;
  const argument = op.gnttabQuerySize.over(bytes);
  const domain = target(caller, argument.dom);
  if (typeof domain === 'number') argument.status = domain;
  else {
    argument.nr_frames = domain.grantFrames;
    argument.max_nr_frames = domain.maxGrantFrames;
    argument.status = GNTST_OKAY;
  }
  return caller.memory.to(address, bytes) ? 0 : EFAULT;
}

function switchVersion(caller: GrantTableCaller, address: number): number {
  const bytes = caller.memory.from(address, op.gnttabSetVersion.size);
  if (bytes === undefined) return EFAULT;
  const argument = op.gnttabSetVersion.over(bytes);
  const result = setVersion(caller.machine, caller.domain, argument.version);
  argument.version = caller.domain.grantVersion;
  return caller.memory.to(address, bytes) ? result : EFAULT;
}

function getVersion(caller: GrantTableCaller, address: number): number {
  const bytes = caller.memory.from(address, op.gnttabGetVersion.size);
  if (bytes === undefined) return EFAULT;
  const argument = op.gnttabGetVersion.over(bytes);
  const domain = target(caller, argument.dom);
  if (domain === GNTST_BAD_DOMAIN) return ESRCH;
  if (typeof domain === 'number') return EPERM;
  argument.version = domain.grantVersion;
  return caller.memory.to(address, bytes) ? 0 : EFAULT;
}

function putStatus(caller: GrantTableCaller, address: number, status: number): number {
  const word = new DataView(new ArrayBuffer(2));
  word.setInt16(0, status, true);
  return caller.memory.to(address, new Uint8Array(word.buffer)) ? 0 : EFAULT;
}
