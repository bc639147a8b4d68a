// What Xen itself knows of a grant: how often it is pinned, for whom, and which machine frame it was when it was
// first pinned. The guest may rewrite its shared entry at any time; what is pinned stays as it was snapshot.
// Every active entry has a lock; what it guards is plain words.

// Words of an active entry.
export const ACTIVE_LOCK = 0;
/** Four counters of 8 bits: see below. */
export const ACTIVE_PINS = 1;
/** The domain that the entry is pinned for. */
export const ACTIVE_PEER = 2;
/** The machine frame. */
export const ACTIVE_FRAME = 3;
/** Which bytes of the page: the first in 15 bits, ACTIVE_PART, and how many in the upper half. */
export const ACTIVE_EXTENT = 4;
/** Of a grant that was passed on: the domain and the reference it comes from; its own otherwise. */
export const ACTIVE_SOURCE = 5;
export const ACTIVE_SOURCE_REF = 6;
/** 1 when its page outlives the dying domain, see teardown.ts. */
export const ACTIVE_KEPT = 7;

/** Extent of a whole page. */
export const ACTIVE_WHOLE = 4096 << 16;
/** Set in the extent of a part of a page, and of everything passed on: such entries cannot be mapped. */
export const ACTIVE_PART = 0x8000;

/** One pin in each counter. */
export const PIN_HOST_WRITABLE = 1;
export const PIN_HOST_READONLY = 1 << 8;
export const PIN_DEVICE_WRITABLE = 1 << 16;
export const PIN_DEVICE_READONLY = 1 << 24;
/** The counters of writable pins. */
export const PINS_WRITABLE = 0x00ff00ff;

/** The bits at which the counters that `increment` adds to are full: 128 pins. */
export function fullPins(increment: number): number {
  return increment << 7;
}

/** Notes what a first pin has found; the entry is locked. */
export function setActive(
  heap: Int32Array,
  active: number,
  peer: number,
  frame: number,
  extent: number,
  source: number,
  sourceRef: number,
): void {
  heap[active + ACTIVE_PEER] = peer;
  heap[active + ACTIVE_FRAME] = frame;
  heap[active + ACTIVE_EXTENT] = extent;
  heap[active + ACTIVE_SOURCE] = source;
  heap[active + ACTIVE_SOURCE_REF] = sourceRef;
}
