// The event channel hypercall as guests make it: an operation, and the address of its argument in the caller's memory.
// The argument is copied in once; what Xen sets in it is copied out when the operation has succeeded, and only then.
// Before event-ops.ts.

import * as op from '../../../abi/event-channel-op.ts';
import {
  EVTCHN_FIFO_LINK_BITS,
  EVTCHNSTAT_INTERDOMAIN,
  EVTCHNSTAT_UNBOUND,
  EVTCHNSTAT_VIRQ,
} from '../../../abi/event-channel.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Domains } from '../domains.ts';
import { EFAULT, ENOSYS, ESRCH } from '../errno.ts';
import type { GuestCopy } from '../guest-copy.ts';
import type { EventOps } from './event-ops.ts';

/** What an operation needs; made once for each caller. */
export interface EventChannelCaller {
  readonly domains: Domains;
  readonly events: EventOps;
  readonly domain: DomainRecord;
  readonly memory: GuestCopy;
  /** Called between slices of a reset: others may run now (hypercall_preempt_check). */
  readonly pause: () => void;
}

/** An operation on the copy of its argument. Returns 0 or a positive number for success, or a negative errno. */
interface Operation {
  readonly size: number;
  /** Whether Xen answers in the argument. */
  readonly answers: boolean;
  run(caller: EventChannelCaller, bytes: Uint8Array): number;
}

const allocateUnbound: Operation = {
  size: op.evtchnAllocUnbound.size,
  answers: true,
  run({ domains, events, domain }, bytes) {
    const argument = op.evtchnAllocUnbound.over(bytes);
    const owner = domains.findFor(domain, argument.dom);
    if (owner === undefined) return ESRCH;
    const port = events.allocateUnbound(owner, argument.remote_dom, domain);
    if (port > 0) argument.port = port;
    return port;
  },
};

const bindInterdomain: Operation = {
  size: op.evtchnBindInterdomain.size,
  answers: true,
  run({ events, domain }, bytes) {
    const argument = op.evtchnBindInterdomain.over(bytes);
    const port = events.bindInterdomain(domain, argument.remote_dom, argument.remote_port);
    if (port > 0) argument.local_port = port;
    return port;
  },
};

const bindVirq: Operation = {
  size: op.evtchnBindVirq.size,
  answers: true,
  run({ events, domain }, bytes) {
    const argument = op.evtchnBindVirq.over(bytes);
    const port = events.bindVirq(domain, argument.virq, argument.vcpu);
    if (port > 0) argument.port = port;
    return port;
  },
};

const bindPirq: Operation = {
  size: op.evtchnBindPirq.size,
  answers: false,
  run: ({ events, domain }, bytes) => events.bindPirq(domain, op.evtchnBindPirq.over(bytes).pirq),
};

const bindIpi: Operation = {
  size: op.evtchnBindIpi.size,
  answers: true,
  run({ events, domain }, bytes) {
    const argument = op.evtchnBindIpi.over(bytes);
    const port = events.bindIpi(domain, argument.vcpu);
    if (port > 0) argument.port = port;
    return port;
  },
};

const close: Operation = {
  size: op.evtchnPort.size,
  answers: false,
  run: ({ events, domain }, bytes) => events.close(domain, op.evtchnPort.over(bytes).port),
};

const send: Operation = {
  size: op.evtchnPort.size,
  answers: false,
  run: ({ events, domain }, bytes) => events.send(domain, op.evtchnPort.over(bytes).port),
};

/** Statuses that have something in the first half of the union. */
const hasRemote: readonly number[] = [EVTCHNSTAT_UNBOUND, EVTCHNSTAT_INTERDOMAIN, EVTCHNSTAT_VIRQ];

const status: Operation = {
  size: op.evtchnStatus.size,
  answers: true,
  run({ domains, events, domain }, bytes) {
    const argument = op.evtchnStatus.over(bytes);
    const owner = domains.findFor(domain, argument.dom);
    if (owner === undefined) return ESRCH;
    const answer = events.status(owner, argument.port, domain);
    if (typeof answer === 'number') return answer;
    argument.status = answer.status;
    argument.vcpu = answer.vcpu;
    if (hasRemote.includes(answer.status)) argument.u_dom = answer.remote;
    if (answer.status === EVTCHNSTAT_INTERDOMAIN) argument.u_port = answer.remotePort;
    if (answer.status === EVTCHNSTAT_VIRQ) argument.u_high = 0;
    return 0;
  },
};

const bindVcpu: Operation = {
  size: op.evtchnBindVcpu.size,
  answers: false,
  run({ events, domain }, bytes) {
    const { port, vcpu } = op.evtchnBindVcpu.over(bytes);
    return events.bindVcpu(domain, port, vcpu);
  },
};

const unmask: Operation = {
  size: op.evtchnPort.size,
  answers: false,
  run: ({ events, domain }, bytes) => events.unmask(domain, op.evtchnPort.over(bytes).port),
};

const resetting = (resuming: boolean): Operation => ({
  size: op.evtchnReset.size,
  answers: false,
  run({ domains, events, domain, pause }, bytes) {
    const owner = domains.findFor(domain, op.evtchnReset.over(bytes).dom);
    return owner === undefined ? ESRCH : events.reset(owner, domain, resuming, pause);
  },
});

const initControl: Operation = {
  size: op.evtchnInitControl.size,
  answers: true,
  run({ events, domain }, bytes) {
    const argument = op.evtchnInitControl.over(bytes);
    argument.link_bits = EVTCHN_FIFO_LINK_BITS;
    return events.initControl(domain, argument.vcpu, argument.control_gfn, argument.offset);
  },
};

const expandArray: Operation = {
  size: op.evtchnExpandArray.size,
  answers: false,
  run: ({ events, domain }, bytes) => events.expandArray(domain, op.evtchnExpandArray.over(bytes).array_gfn),
};

const setPriority: Operation = {
  size: op.evtchnSetPriority.size,
  answers: false,
  run({ events, domain }, bytes) {
    const { port, priority } = op.evtchnSetPriority.over(bytes);
    return events.setPriority(domain, port, priority);
  },
};

const operations: Readonly<Record<number, Operation | undefined>> = {
  [op.EVTCHNOP_BIND_INTERDOMAIN]: bindInterdomain,
  [op.EVTCHNOP_BIND_VIRQ]: bindVirq,
  [op.EVTCHNOP_BIND_PIRQ]: bindPirq,
  [op.EVTCHNOP_CLOSE]: close,
  [op.EVTCHNOP_SEND]: send,
  [op.EVTCHNOP_STATUS]: status,
  [op.EVTCHNOP_ALLOC_UNBOUND]: allocateUnbound,
  [op.EVTCHNOP_BIND_IPI]: bindIpi,
  [op.EVTCHNOP_BIND_VCPU]: bindVcpu,
  [op.EVTCHNOP_UNMASK]: unmask,
  [op.EVTCHNOP_RESET]: resetting(false),
  [op.EVTCHNOP_INIT_CONTROL]: initControl,
  [op.EVTCHNOP_EXPAND_ARRAY]: expandArray,
  [op.EVTCHNOP_SET_PRIORITY]: setPriority,
  [op.EVTCHNOP_RESET_CONT]: resetting(true),
};

/**
 * Carries out EVTCHNOP_ `command` on the argument at `address`.
 *
 * @returns 0 or a negative errno; answers are in the argument
 */
export function eventChannelOp(caller: EventChannelCaller, command: number, address: number): number {
  const operation = operations[command];
  if (operation === undefined) return ENOSYS;
  const bytes = caller.memory.from(address, operation.size);
  if (bytes === undefined) return EFAULT;
  const result = operation.run(caller, bytes);
  if (result < 0) return result;
  // A port that was opened stays so where the answer cannot be written, as in Xen.
  return operation.answers && !caller.memory.to(address, bytes) ? EFAULT : 0;
}
