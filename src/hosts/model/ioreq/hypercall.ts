// The hypercall of device models (dm_op): an operation on one guest, its arguments in buffers of the caller's memory
// (Xen common/dm.c, arch/x86/hvm/dm.c, arch/arm/dm.c). The first buffer is copied in once and, where there is an
// answer, out again. Before servers.ts and interrupts.ts.

import * as dm from '../../../abi/dm-op.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Domains } from '../domains.ts';
import { E2BIG, EFAULT, EINVAL, ENODATA, EOPNOTSUPP, EPERM, ESRCH } from '../errno.ts';
import type { GuestCopy } from '../guest-copy.ts';
import type { Machine } from '../state.ts';
import type { Interrupts } from './interrupts.ts';
import { MachinePage } from './machine-page.ts';
import { mayServe } from './rights.ts';
import type { IoreqServers } from './servers.ts';

/** Buffers of one hypercall at most. */
const MAX_BUFFERS = 2;
/** A bitmap of the frames of a gigabyte is the most that track_dirty_vram takes. */
const MAX_TRACKED_FRAMES = 2 ** 18;
/** What no frame has: the page is not in the guest's address space. */
const INVALID_GFN = 2 ** 53 - 1;

/** A buffer as the caller names it. */
export interface DmOpBuffer {
  readonly address: number;
  readonly size: number;
}

/** Who calls, and what an operation needs. */
export interface DmOpCaller {
  readonly machine: Machine;
  readonly domains: Domains;
  readonly servers: IoreqServers;
  readonly interrupts: Interrupts;
  readonly domain: DomainRecord;
  readonly memory: GuestCopy;
}

/** What an operation acts on. */
interface Call {
  readonly caller: DmOpCaller;
  readonly guest: DomainRecord;
  readonly buffers: readonly DmOpBuffer[];
}

/** One operation: its arguments' bytes, whether they are copied out again, and what it does with them. */
interface Operation {
  readonly size: number;
  readonly answers?: boolean;
  run(call: Call, bytes: Uint8Array): number;
}

/** Operations that both architectures have. */
const COMMON: readonly (readonly [number, Operation])[] = [
  [
    dm.XEN_DMOP_create_ioreq_server,
    { size: dm.xenDmOpCreateIoreqServer.size, answers: true, run: createServer },
  ],
  [
    dm.XEN_DMOP_get_ioreq_server_info,
    { size: dm.xenDmOpGetIoreqServerInfo.size, answers: true, run: getServerInfo },
  ],
  [dm.XEN_DMOP_map_io_range_to_ioreq_server, { size: dm.xenDmOpIoreqServerRange.size, run: mapRange }],
  [dm.XEN_DMOP_unmap_io_range_from_ioreq_server, { size: dm.xenDmOpIoreqServerRange.size, run: unmapRange }],
  [dm.XEN_DMOP_set_ioreq_server_state, { size: dm.xenDmOpSetIoreqServerState.size, run: setServerState }],
  [dm.XEN_DMOP_destroy_ioreq_server, { size: dm.xenDmOpDestroyIoreqServer.size, run: destroyServer }],
  [dm.XEN_DMOP_nr_vcpus, { size: dm.xenDmOpNrVcpus.size, answers: true, run: countVcpus }],
];
const ARM = new Map<number, Operation>([
  ...COMMON,
  [dm.XEN_DMOP_set_irq_level, { size: dm.xenDmOpSetIrqLevel.size, run: setIrqLevel }],
]);
const X86 = new Map<number, Operation>([
  ...COMMON,
  [dm.XEN_DMOP_track_dirty_vram, { size: dm.xenDmOpTrackDirtyVram.size, run: trackDirtyVram }],
  [dm.XEN_DMOP_set_pci_intx_level, { size: dm.xenDmOpSetPciIntxLevel.size, run: setPciLevel }],
  [dm.XEN_DMOP_set_isa_irq_level, { size: dm.xenDmOpSetIsaIrqLevel.size, run: setIsaLevel }],
  [dm.XEN_DMOP_set_pci_link_route, { size: dm.xenDmOpSetPciLinkRoute.size, run: setLinkRoute }],
  [dm.XEN_DMOP_modified_memory, { size: dm.xenDmOpModifiedMemory.size, run: modifiedMemory }],
  [dm.XEN_DMOP_inject_msi, { size: dm.xenDmOpInjectMsi.size, run: injectMessage }],
  [dm.XEN_DMOP_remote_shutdown, { size: dm.xenDmOpRemoteShutdown.size, run: shutDown }],
]);

/**
 * Carries out an operation on domain `domid`.
 *
 * @param buffers the first one holds the operation and its arguments
 * @returns 0 or a negative errno; operations that this Xen does not have are EOPNOTSUPP
 */
export function dmOp(caller: DmOpCaller, domid: number, buffers: readonly DmOpBuffer[]): number {
  if (buffers.length === 0) return ENODATA;
  if (buffers.length > MAX_BUFFERS) return E2BIG;
  const guest = caller.domains.find(domid);
  if (guest === undefined) return ESRCH;
  if (guest === caller.domain) return EPERM;
  if (!new MachinePage(caller.machine, guest).exists) return EINVAL;
  if (!mayServe(caller.machine, caller.domain, guest)) return EPERM;
  const [{ address, size }] = buffers;
  const header = size < dm.xenDmOp.size ? undefined : caller.memory.from(address, dm.xenDmOp.size);
  if (header === undefined) return EFAULT;
  const { op, pad } = dm.xenDmOp.over(header);
  const operation = (guest.architecture === 'arm' ? ARM : X86).get(op);
  if (operation === undefined) return EOPNOTSUPP;
  if (size < dm.xenDmOp.size + operation.size) return EFAULT;
  const bytes = caller.memory.from(address + dm.xenDmOp.size, operation.size);
  if (bytes === undefined) return EFAULT;
  if (pad !== 0) return EINVAL;
  const result = operation.run({ caller, guest, buffers }, bytes);
  if (result < 0 || operation.answers !== true) return result;
  return caller.memory.to(address + dm.xenDmOp.size, bytes) ? 0 : EFAULT;
}

function createServer({ caller, guest }: Call, bytes: Uint8Array): number {
  const argument = dm.xenDmOpCreateIoreqServer.over(bytes);
  if ((argument.pad0 | argument.pad1 | argument.pad2) !== 0) return EINVAL;
  const id = caller.servers.create(caller.domain, guest, argument.handle_bufioreq);
  if (id < 0) return id;
  argument.id = id;
  return 0;
}

function getServerInfo({ caller, guest }: Call, bytes: Uint8Array): number {
  const argument = dm.xenDmOpGetIoreqServerInfo.over(bytes);
  if ((argument.flags & ~dm.XEN_DMOP_no_gfns) !== 0) return EINVAL;
  const withPages = argument.flags === 0;
  const info = caller.servers.info(caller.domain, guest, argument.id, withPages);
  if (typeof info === 'number') return info;
  if (withPages) argument.ioreq_gfn = info.gfn < 0 ? INVALID_GFN : info.gfn;
  if (info.bufferedPort === 0) return 0;
  argument.bufioreq_port = info.bufferedPort;
  if (withPages) argument.bufioreq_gfn = info.bufferedGfn < 0 ? INVALID_GFN : info.bufferedGfn;
  return 0;
}

function mapRange({ caller, guest }: Call, bytes: Uint8Array): number {
  const { id, pad, type, start, end } = dm.xenDmOpIoreqServerRange.over(bytes);
  return pad !== 0 ? EINVAL : caller.servers.mapRange(caller.domain, guest, id, type, start, end);
}

function unmapRange({ caller, guest }: Call, bytes: Uint8Array): number {
  const { id, pad, type, start, end } = dm.xenDmOpIoreqServerRange.over(bytes);
  return pad !== 0 ? EINVAL : caller.servers.unmapRange(caller.domain, guest, id, type, start, end);
}

function setServerState({ caller, guest }: Call, bytes: Uint8Array): number {
  const { id, enabled, pad } = dm.xenDmOpSetIoreqServerState.over(bytes);
  return pad !== 0 ? EINVAL : caller.servers.setState(caller.domain, guest, id, enabled !== 0);
}

function destroyServer({ caller, guest }: Call, bytes: Uint8Array): number {
  const { id, pad } = dm.xenDmOpDestroyIoreqServer.over(bytes);
  return pad !== 0 ? EINVAL : caller.servers.destroy(caller.domain, guest, id);
}

function countVcpus({ guest }: Call, bytes: Uint8Array): number {
  dm.xenDmOpNrVcpus.over(bytes).vcpus = guest.vcpus;
  return 0;
}

function setIrqLevel({ caller, guest }: Call, bytes: Uint8Array): number {
  const { irq, level, pad0, pad1, pad2 } = dm.xenDmOpSetIrqLevel.over(bytes);
  return (pad0 | pad1 | pad2) !== 0 ? EINVAL : caller.interrupts.setSpi(guest, irq, level);
}

/** There is no graphics card whose memory could change. */
function trackDirtyVram({ buffers }: Call, bytes: Uint8Array): number {
  const { nr, pad } = dm.xenDmOpTrackDirtyVram.over(bytes);
  if (pad !== 0 || buffers.length < 2 || nr > MAX_TRACKED_FRAMES) return EINVAL;
  return Math.ceil(nr / 8) > buffers[1].size ? EINVAL : EOPNOTSUPP;
}

function setPciLevel({ caller, guest }: Call, bytes: Uint8Array): number {
  const { domain, bus, device, intx, level } = dm.xenDmOpSetPciIntxLevel.over(bytes);
  return caller.interrupts.setPciPin(guest, [domain, bus], device, intx, level);
}

function setIsaLevel({ caller, guest }: Call, bytes: Uint8Array): number {
  const { isa_irq: irq, level } = dm.xenDmOpSetIsaIrqLevel.over(bytes);
  return caller.interrupts.setIsaIrq(guest, irq, level);
}

function setLinkRoute({ caller, guest }: Call, bytes: Uint8Array): number {
  const { link, isa_irq: irq } = dm.xenDmOpSetPciLinkRoute.over(bytes);
  return caller.interrupts.routePciLink(guest, link, irq);
}

/** Only a domain that is being migrated keeps account of changed memory. */
function modifiedMemory({ buffers }: Call): number {
  return buffers.length === MAX_BUFFERS ? 0 : EINVAL;
}

function injectMessage({ caller, guest }: Call, bytes: Uint8Array): number {
  const { data, pad, addrLow, addrHigh } = dm.xenDmOpInjectMsi.over(bytes);
  return pad !== 0 ? EINVAL : caller.interrupts.injectMessage(guest, addrLow, addrHigh, data);
}

function shutDown({ caller, guest }: Call, bytes: Uint8Array): number {
  // Xen keeps a reason in 8 bits.
  caller.domains.shutDown(guest, dm.xenDmOpRemoteShutdown.over(bytes).reason & 0xff);
  return 0;
}
