// Virtual interrupts: what Xen tells a domain by an event channel of its own. Which are for one processor, for the
// domain, or for the one domain that looks after the machine is in public/xen.h. After event-ops.ts.

import {
  NR_VIRQS,
  VIRQ_ARGO,
  VIRQ_DEBUG,
  VIRQ_TIMER,
  VIRQ_XENOPROF,
  VIRQ_XENPMU,
} from '../../../abi/event-channel.ts';
import type { DomainRecord } from '../domain-record.ts';
import { EBUSY, EEXIST, EINVAL, ENOENT } from '../errno.ts';
import type { Channels } from './channels.ts';

/** The domain that gets what concerns the whole machine. */
export const HARDWARE_DOMAIN = 0;

const OF_A_PROCESSOR: readonly number[] = [VIRQ_TIMER, VIRQ_DEBUG, VIRQ_XENOPROF, VIRQ_XENPMU];
const OF_A_DOMAIN: readonly number[] = [VIRQ_ARGO];

/** Whether each processor of a domain has such an interrupt of its own, which cannot be moved to another. */
export function isPerProcessor(virq: number): boolean {
  return OF_A_PROCESSOR.includes(virq);
}

/** Whether there is one for the whole machine. */
export function isGlobal(virq: number): boolean {
  return !OF_A_PROCESSOR.includes(virq) && !OF_A_DOMAIN.includes(virq);
}

/** Why a domain may not bind an interrupt of a processor to a port, as a negative errno, or 0 where it may. */
export function refuseVirq(channels: Channels, domain: DomainRecord, virq: number, vcpu: number): number {
  if (!(virq >= 0 && virq < NR_VIRQS)) return EINVAL;
  if (!isPerProcessor(virq) && vcpu !== 0) return EINVAL;
  if (!(vcpu >= 0 && vcpu < domain.vcpus)) return ENOENT;
  if (isGlobal(virq) && domain.id !== HARDWARE_DOMAIN) return EBUSY;
  return channels.heap[channels.virqWord(domain, vcpu, virq)] === 0 ? 0 : EEXIST;
}
