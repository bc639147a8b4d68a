// The event channel hypercall: numbers of its operations and the structures that they take
// (public/event_channel.h, LP64 layout). After event-channel.ts.

import { struct } from './struct.ts';

export const EVTCHNOP_BIND_INTERDOMAIN = 0;
export const EVTCHNOP_BIND_VIRQ = 1;
export const EVTCHNOP_BIND_PIRQ = 2;
export const EVTCHNOP_CLOSE = 3;
export const EVTCHNOP_SEND = 4;
export const EVTCHNOP_STATUS = 5;
export const EVTCHNOP_ALLOC_UNBOUND = 6;
export const EVTCHNOP_BIND_IPI = 7;
export const EVTCHNOP_BIND_VCPU = 8;
export const EVTCHNOP_UNMASK = 9;
export const EVTCHNOP_RESET = 10;
export const EVTCHNOP_INIT_CONTROL = 11;
export const EVTCHNOP_EXPAND_ARRAY = 12;
export const EVTCHNOP_SET_PRIORITY = 13;
/** Xen's own, to go on with a reset that was interrupted; nothing keeps a guest from asking for it. */
export const EVTCHNOP_RESET_CONT = 14;

/** `port` is set by Xen. */
export const evtchnAllocUnbound = struct('evtchn_alloc_unbound', {
  dom: 'u16',
  remote_dom: 'u16',
  port: 'u32',
});
/** `local_port` is set by Xen. */
export const evtchnBindInterdomain = struct('evtchn_bind_interdomain', {
  remote_dom: 'u16',
  _pad0: 'u16',
  remote_port: 'u32',
  local_port: 'u32',
});
/** `port` is set by Xen. */
export const evtchnBindVirq = struct('evtchn_bind_virq', { virq: 'u32', vcpu: 'u32', port: 'u32' });
export const evtchnBindPirq = struct('evtchn_bind_pirq', { pirq: 'u32', flags: 'u32', port: 'u32' });
/** `port` is set by Xen. */
export const evtchnBindIpi = struct('evtchn_bind_ipi', { vcpu: 'u32', port: 'u32' });
/** evtchn_close, evtchn_send and evtchn_unmask: a port and nothing else. */
export const evtchnPort = struct('evtchn_close', { port: 'u32' });
/**
 * What follows `port` is set by Xen. The union has the remote domain and its port (unbound, interdomain), or in
 * `u_dom` the number of the interrupt, which is below 65536 here (virq).
 */
export const evtchnStatus = struct('evtchn_status', {
  dom: 'u16',
  _pad0: 'u16',
  port: 'u32',
  status: 'u32',
  vcpu: 'u32',
  u_dom: 'u16',
  u_high: 'u16',
  u_port: 'u32',
});
export const evtchnBindVcpu = struct('evtchn_bind_vcpu', { port: 'u32', vcpu: 'u32' });
export const evtchnReset = struct('evtchn_reset', { dom: 'u16' });
/** `link_bits` is set by Xen. */
export const evtchnInitControl = struct('evtchn_init_control', {
  control_gfn: 'u64',
  offset: 'u32',
  vcpu: 'u32',
  link_bits: 'u8',
  _pad: { bytes: 7 },
});
export const evtchnExpandArray = struct('evtchn_expand_array', { array_gfn: 'u64' });
export const evtchnSetPriority = struct('evtchn_set_priority', { port: 'u32', priority: 'u32' });
