// Parameters of guests with an address space of their own, and who may read and set which (HVMOP_set_param and
// HVMOP_get_param; Xen arch/x86/hvm/hvm.c, arch/arm/hvm.c). Two architectures, two sets of rules.

import * as hvm from '../../../abi/hvm-params.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Domains } from '../domains.ts';
import { EEXIST, EFAULT, EINVAL, ENODEV, ENOSYS, EPERM, ESRCH } from '../errno.ts';
import type { GuestCopy } from '../guest-copy.ts';
import { lock, unlock } from '../lock.ts';
import type { Machine } from '../state.ts';
import { MAX_SERVER_PAGES } from './legacy-pages.ts';
import { MachinePage } from './machine-page.ts';
import { mayServe } from './rights.ts';

/** Reasons of a shutdown that exist. */
const SHUTDOWN_MAX = 5;
/** Bytes of the task state segment of 80386, and the most that one may have. */
const TSS_SIZE = 104n;
const TSS_MAX_SIZE = TSS_SIZE + 0x100n / 8n + 0x1_0000n / 8n + 1n;
const OLD_TSS_SIZE = 128n;
const LOW = 0xffff_ffffn;

/** Parameters that a guest on x86 may set, and those that it may read besides. */
const GUEST_SETS = new Set([
  hvm.HVM_PARAM_CALLBACK_IRQ,
  hvm.HVM_PARAM_VM86_TSS,
  hvm.HVM_PARAM_VM86_TSS_SIZED,
  hvm.HVM_PARAM_ACPI_IOPORTS_LOCATION,
  hvm.HVM_PARAM_VM_GENERATION_ID_ADDR,
  hvm.HVM_PARAM_STORE_EVTCHN,
  hvm.HVM_PARAM_CONSOLE_EVTCHN,
  hvm.HVM_PARAM_X87_FIP_WIDTH,
]);
const GUEST_READS = new Set([
  ...GUEST_SETS,
  hvm.HVM_PARAM_STORE_PFN,
  hvm.HVM_PARAM_CONSOLE_PFN,
  hvm.HVM_PARAM_ALTP2M,
]);
/** Parameters that were, and are nobody's any more. */
const DEPRECATED = new Set([
  hvm.HVM_PARAM_PAE_ENABLED,
  hvm.HVM_PARAM_DM_DOMAIN,
  hvm.HVM_PARAM_MEMORY_EVENT_CR0,
  hvm.HVM_PARAM_MEMORY_EVENT_CR3,
  hvm.HVM_PARAM_MEMORY_EVENT_CR4,
  hvm.HVM_PARAM_MEMORY_EVENT_INT3,
  hvm.HVM_PARAM_NESTEDHVM,
  hvm.HVM_PARAM_MEMORY_EVENT_SINGLE_STEP,
  hvm.HVM_PARAM_BUFIOREQ_EVTCHN,
  hvm.HVM_PARAM_MEMORY_EVENT_MSR,
]);
/** Parameters that keep the first value that is not 0. */
const SET_ONCE = new Set([
  hvm.HVM_PARAM_VIRIDIAN,
  hvm.HVM_PARAM_IOREQ_PFN,
  hvm.HVM_PARAM_BUFIOREQ_PFN,
  hvm.HVM_PARAM_IOREQ_SERVER_PFN,
  hvm.HVM_PARAM_NR_IOREQ_SERVER_PAGES,
  hvm.HVM_PARAM_MCA_CAP,
]);
/** The parameters that exist on Arm, where the toolstack sets them all; the last one is not the guest's to read. */
const ARM_PARAMS = new Set([
  hvm.HVM_PARAM_CALLBACK_IRQ,
  hvm.HVM_PARAM_STORE_PFN,
  hvm.HVM_PARAM_STORE_EVTCHN,
  hvm.HVM_PARAM_CONSOLE_PFN,
  hvm.HVM_PARAM_CONSOLE_EVTCHN,
  hvm.HVM_PARAM_MONITOR_RING_PFN,
]);

/** Who calls. */
export interface ParamCaller {
  readonly machine: Machine;
  readonly domains: Domains;
  readonly domain: DomainRecord;
  readonly memory: GuestCopy;
}

/** Carries out HVMOP_ `command` with the argument at `address`. Returns 0 or a negative errno. */
export function hvmOp(caller: ParamCaller, command: number, address: number): number {
  if (command !== hvm.HVMOP_set_param && command !== hvm.HVMOP_get_param) return ENOSYS;
  const bytes = caller.memory.from(address, hvm.xenHvmParam.size);
  if (bytes === undefined) return EFAULT;
  const argument = hvm.xenHvmParam.over(bytes);
  const { index } = argument;
  if (index >= hvm.HVM_NR_PARAMS && caller.domain.architecture === 'x86') return EINVAL;
  const domain = caller.domains.findFor(caller.domain, argument.domid);
  if (domain === undefined) return ESRCH;
  const { machine } = caller;
  if (!new MachinePage(machine, domain).exists) return EINVAL;
  if (caller.domain !== domain && !mayServe(machine, caller.domain, domain)) return EPERM;
  if (command === hvm.HVMOP_set_param) return setParam(caller, domain, index, argument.value);
  const refusal = mayGet(domain, index, caller.domain === domain);
  if (refusal !== 0) return refusal;
  argument.value = shownValue(machine, domain, index);
  return caller.memory.to(address, bytes) ? 0 : EFAULT;
}

function mayGet(domain: DomainRecord, index: number, isOwn: boolean): number {
  if (domain.architecture === 'arm') {
    if (!ARM_PARAMS.has(index)) return EINVAL;
    return isOwn && index === hvm.HVM_PARAM_MONITOR_RING_PFN ? EPERM : 0;
  }
  if (DEPRECATED.has(index)) return EINVAL;
  return isOwn && !GUEST_READS.has(index) ? EPERM : 0;
}

function shownValue(machine: Machine, domain: DomainRecord, index: number): bigint {
  if (index !== hvm.HVM_PARAM_VM86_TSS) return new MachinePage(machine, domain).param(index);
  return new MachinePage(machine, domain).param(hvm.HVM_PARAM_VM86_TSS_SIZED) & LOW;
}

function maySet(
  machine: Machine,
  domain: DomainRecord,
  index: number,
  value: bigint,
  isOwn: boolean,
): number {
  if (domain.architecture === 'arm') {
    if (!ARM_PARAMS.has(index)) return EINVAL;
    return isOwn ? EPERM : 0;
  }
  if (index === hvm.HVM_PARAM_ALTP2M) return EEXIST;
  if (DEPRECATED.has(index)) return EINVAL;
  if (isOwn && !GUEST_SETS.has(index)) return EPERM;
  const before = new MachinePage(machine, domain).param(index);
  return SET_ONCE.has(index) && before !== 0n && before !== value ? EEXIST : 0;
}

function setParam(caller: ParamCaller, domain: DomainRecord, index: number, value: bigint): number {
  const { machine } = caller;
  const { heap } = machine;
  const page = new MachinePage(machine, domain);
  const isOwn = caller.domain === domain;
  lock(heap, page.lockWord);
  let result = maySet(machine, domain, index, value, isOwn);
  let isCrash = false;
  if (result === 0 && domain.architecture === 'x86') {
    result = checkValue(domain, index, value);
    isCrash = result !== 0 && isOwn && isTss(index);
  }
  if (result === 0) store(machine, domain, index, value);
  unlock(heap, page.lockWord);
  // A segment that no processor could use ends the guest that sets it.
  if (isCrash) caller.domains.crash(domain);
  return result;
}

function isTss(index: number): boolean {
  return index === hvm.HVM_PARAM_VM86_TSS || index === hvm.HVM_PARAM_VM86_TSS_SIZED;
}

/** Whether a parameter of x86 can have this value. */
function checkValue(domain: DomainRecord, index: number, value: bigint): number {
  switch (index) {
    case hvm.HVM_PARAM_TIMER_MODE:
      return value > hvm.HVMPTM_one_missed_tick_pending ? EINVAL : 0;
    case hvm.HVM_PARAM_VIRIDIAN:
      return ENODEV;
    case hvm.HVM_PARAM_ACPI_S_STATE:
      return value === 0n || value === 3n ? 0 : EINVAL;
    case hvm.HVM_PARAM_ACPI_IOPORTS_LOCATION:
      if (domain.kind !== 'hvm') return ENODEV;
      return value > 1n ? EINVAL : 0;
    case hvm.HVM_PARAM_TRIPLE_FAULT_REASON:
      return value > SHUTDOWN_MAX ? EINVAL : 0;
    case hvm.HVM_PARAM_NR_IOREQ_SERVER_PAGES:
      return value === 0n || value > MAX_SERVER_PAGES ? EINVAL : 0;
    case hvm.HVM_PARAM_X87_FIP_WIDTH:
      return value === 0n || value === 4n || value === 8n ? 0 : EINVAL;
    case hvm.HVM_PARAM_VM86_TSS:
      return value > LOW ? EINVAL : 0;
    case hvm.HVM_PARAM_VM86_TSS_SIZED:
      return value >> 32n < TSS_SIZE ? EINVAL : 0;
    case hvm.HVM_PARAM_MCA_CAP:
      return value === 0n ? 0 : EINVAL;
    default:
      return 0;
  }
}

/** Stores a value that may be, and does what follows from it. */
function store(machine: Machine, domain: DomainRecord, index: number, value: bigint): void {
  const { heap } = machine;
  const page = new MachinePage(machine, domain);
  if (domain.architecture === 'x86' && isTss(index)) {
    page.setParam(hvm.HVM_PARAM_VM86_TSS_SIZED, tssOf(index, value));
    return;
  }
  page.setParam(index, value);
  if (index === hvm.HVM_PARAM_NR_IOREQ_SERVER_PAGES)
    for (let bit = 0; bit < value; bit++) heap[page.freePagesWord + (bit >>> 5)] |= 1 << (bit & 31);
  const isLegacy = index === hvm.HVM_PARAM_IOREQ_PFN || index === hvm.HVM_PARAM_BUFIOREQ_PFN;
  if (isLegacy && value !== 0n) heap[page.freeLegacyPagesWord] |= 1 << index;
}

function tssOf(index: number, value: bigint): bigint {
  if (index === hvm.HVM_PARAM_VM86_TSS) return value === 0n ? 0n : value | (OLD_TSS_SIZE << 32n);
  return value >> 32n > TSS_MAX_SIZE ? (value & LOW) | (TSS_MAX_SIZE << 32n) : value;
}
