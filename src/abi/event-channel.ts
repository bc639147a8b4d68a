// The 2-level event channel ABI: bits in the shared_info page (public/xen.h, public/event_channel.h).

/** Ports of a 64-bit guest: 64 words of 64 bits. */
export const EVTCHN_2L_PORTS = 4096;

/** Offsets in shared_info of a 64-bit guest. */
export const SHARED_INFO_UPCALL_PENDING = 0;
export const SHARED_INFO_PENDING_SEL = 8;
export const SHARED_INFO_EVTCHN_PENDING = 2048;
export const SHARED_INFO_EVTCHN_MASK = 2560;

export const EVTCHNSTAT_CLOSED = 0;
export const EVTCHNSTAT_UNBOUND = 1;
export const EVTCHNSTAT_INTERDOMAIN = 2;
