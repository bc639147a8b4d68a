// Arguments of the ioctls of /dev/xen/evtchn, through which a process has event channels of its own (Linux,
// include/uapi/xen/evtchn.h). Those that bind return the local port. The file itself is read for the ports that have
// had an event, 4 bytes each, and a port that is written to it may have the next.

import { struct } from './struct.ts';

export const IOCTL_EVTCHN_BIND_INTERDOMAIN = 0x8_4501;
export const IOCTL_EVTCHN_BIND_UNBOUND_PORT = 0x4_4502;
export const IOCTL_EVTCHN_UNBIND = 0x4_4503;
export const IOCTL_EVTCHN_NOTIFY = 0x4_4504;

export const ioctlEvtchnBindInterdomain = struct('ioctl_evtchn_bind_interdomain', {
  remote_domain: 'u32',
  remote_port: 'u32',
});
/** ioctl_evtchn_bind_unbound_port, whose one field is the remote domain; ioctl_evtchn_unbind and _notify: a port. */
export const ioctlEvtchnWord = struct('ioctl_evtchn_unbind', { value: 'u32' });
