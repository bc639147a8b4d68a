// Event channels: bits in the shared_info page (2-level), event words and control blocks (FIFO), and the numbers
// that both share (public/xen.h, public/event_channel.h). Before event-channel-op.ts.

/** Ports of a 64-bit guest in the 2-level ABI: 64 words of 64 bits. */
export const EVTCHN_2L_PORTS = 4096;

/** Offsets in shared_info of a 64-bit guest. */
export const SHARED_INFO_EVTCHN_PENDING = 2048;
export const SHARED_INFO_EVTCHN_MASK = 2560;

/** A processor's vcpu_info stands so many bytes after the one before it, from the start of shared_info. */
export const VCPU_INFO_STRIDE = 64;
/** Offsets in vcpu_info. */
export const VCPU_INFO_UPCALL_PENDING = 0;
export const VCPU_INFO_PENDING_SEL = 8;

/** Ports in the FIFO ABI: as many as a link can name. */
export const EVTCHN_FIFO_LINK_BITS = 17;
export const EVTCHN_FIFO_PORTS = 1 << EVTCHN_FIFO_LINK_BITS;
/** Event words in a page of the event array. */
export const EVTCHN_FIFO_WORDS_PER_PAGE = 1024;

/** Bits of an event word; the rest is the link: the port that follows in the queue. */
export const EVTCHN_FIFO_PENDING = 1 << 31;
export const EVTCHN_FIFO_MASKED = 1 << 30;
export const EVTCHN_FIFO_LINKED = 1 << 29;
export const EVTCHN_FIFO_BUSY = 1 << 28;
export const EVTCHN_FIFO_LINK_MASK = EVTCHN_FIFO_PORTS - 1;

/** Priorities of events: 0 is the highest. */
export const EVTCHN_FIFO_PRIORITY_DEFAULT = 7;
export const EVTCHN_FIFO_PRIORITY_MIN = 15;
export const EVTCHN_FIFO_QUEUES = EVTCHN_FIFO_PRIORITY_MIN + 1;

/** A control block: one bit for each queue that has become non-empty, and the queues' heads; in bytes. */
export const CONTROL_BLOCK_READY = 0;
export const CONTROL_BLOCK_HEADS = 8;
export const CONTROL_BLOCK_SIZE = CONTROL_BLOCK_HEADS + 4 * EVTCHN_FIFO_QUEUES;

/** What EVTCHNOP_status calls a port's state. */
export const EVTCHNSTAT_CLOSED = 0;
export const EVTCHNSTAT_UNBOUND = 1;
export const EVTCHNSTAT_INTERDOMAIN = 2;
export const EVTCHNSTAT_PIRQ = 3;
export const EVTCHNSTAT_VIRQ = 4;
export const EVTCHNSTAT_IPI = 5;

/** Virtual interrupts: one for each processor (V), one for the domain (D), or one for the whole machine. */
export const VIRQ_TIMER = 0;
export const VIRQ_DEBUG = 1;
export const VIRQ_CONSOLE = 2;
export const VIRQ_DOM_EXC = 3;
export const VIRQ_XENOPROF = 7;
export const VIRQ_ARGO = 11;
export const VIRQ_XENPMU = 13;
export const NR_VIRQS = 24;
