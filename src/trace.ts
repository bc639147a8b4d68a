// What happened, as typed events: the only window of the audit, the accounting and the inspector onto a
// run. Every part that grants, maps, touches or serves is given a Tracer and reports to it; the one that
// does nothing is the default. Arguments are numbers only, so that a call allocates nothing.
//
// Order is the meaning: an event that opens access (grant, map) is reported before the access exists for
// others, one that closes it (unmap, revoke) after it has ended, so that what a consumer computes from the
// stream is never less than what a backend could reach.

/** What a device may do with the bytes of a mapping: Linux's enum dma_data_direction, same values. */
export const DMA_BIDIRECTIONAL = 0;
export const DMA_TO_DEVICE = 1;
export const DMA_FROM_DEVICE = 2;

/** Type of a request that was reported before anybody knew what it asks for. No device type has it. */
export const UNKNOWN_TYPE = 0xffff_ffff;

/** Takes the events of one thread. Domains, devices, references and handles are plain numbers here. */
export interface Tracer {
  /** False when every call does nothing: callers may skip the work of collecting arguments. */
  readonly enabled: boolean;
  /** `domain` granted `count` frames from `frame` to `peer` through references from `ref`. */
  grant(domain: number, peer: number, ref: number, frame: number, count: number, readonly: boolean): void;
  /** Of the page that was just granted through `ref`, only `size` bytes from `offset` are (a sub-page grant). */
  narrow(domain: number, ref: number, offset: number, size: number): void;
  /** Access through `count` references from `ref` has ended. */
  revoke(domain: number, ref: number, count: number): void;
  /** The peer still maps `ref`, so its access could not be ended: reference and page are quarantined. */
  busy(domain: number, ref: number): void;
  /**
   * The driver of `device` asked to share `size` bytes that start `offset` bytes into the page behind
   * `ref` and go on through the following references. Everything else in those pages is foreign, unless
   * it belongs to another such mapping of the same device or to a page that is private to the device.
   */
  need(domain: number, device: number, ref: number, offset: number, size: number, direction: number): void;
  /** The mapping that `need` announced with the same `ref` and `offset` is over for the driver. */
  needEnd(domain: number, device: number, ref: number, offset: number, size: number): void;
  /** Where the mapping that `need` has just announced was made: the number of a stack of calls. */
  origin(domain: number, device: number, ref: number, offset: number, stack: number): void;
  /**
   * Pages of `device` may stay granted after their last use, for at most so many nanoseconds while the device
   * is at work: what its exposure mode declares. Without it the window is 0.
   */
  staleLimit(domain: number, device: number, nanoseconds: number): void;
  /** The `count` frames from `frame` hold nothing but the bytes of `device` and zeroes (a bounce pool). */
  privatePages(domain: number, device: number, frame: number, count: number): void;
  /** The `count` frames from `frame` are no longer private to a device. */
  privatePagesEnd(domain: number, frame: number, count: number): void;
  /** Domain `mapper` mapped `owner`'s reference; `handle` names the mapping. */
  map(mapper: number, owner: number, ref: number, handle: number, readonly: boolean): void;
  /** The hypervisor refused `mapper` a mapping, or a copy, with a negative GNTST status. */
  mapRefused(mapper: number, owner: number, ref: number, status: number): void;
  /** The mapping `handle` of `mapper` has ended. */
  unmap(mapper: number, owner: number, ref: number, handle: number): void;
  /** `mapper` may from now on reach `count` frames of `owner` from `frame` without any grant. */
  reach(mapper: number, owner: number, frame: number, count: number): void;
  /** That has ended. */
  reachEnd(mapper: number, owner: number, frame: number, count: number): void;
  /** The backend read or wrote `size` bytes from `offset` in the page behind `ref`, and on from there. */
  touch(mapper: number, owner: number, ref: number, offset: number, size: number, write: boolean): void;
  /**
   * The driver took request `id` (unique for the domain) of `type` (the device type's own numbers, e.g.
   * VIRTIO_BLK_T_IN) for `bytes` of data. Where only a backend reports: it took a request, of UNKNOWN_TYPE, whose
   * descriptors speak of `bytes`.
   */
  requestBegin(domain: number, device: number, id: number, type: number, bytes: number): void;
  /** The request's result was handed to whoever asked, or back to the driver; `status` 0 is success. */
  requestEnd(domain: number, device: number, id: number, status: number): void;
}

/** The tracer that does nothing. */
export const noTrace: Tracer = {
  enabled: false,
  grant: () => undefined,
  narrow: () => undefined,
  revoke: () => undefined,
  busy: () => undefined,
  need: () => undefined,
  needEnd: () => undefined,
  origin: () => undefined,
  staleLimit: () => undefined,
  privatePages: () => undefined,
  privatePagesEnd: () => undefined,
  map: () => undefined,
  mapRefused: () => undefined,
  unmap: () => undefined,
  reach: () => undefined,
  reachEnd: () => undefined,
  touch: () => undefined,
  requestBegin: () => undefined,
  requestEnd: () => undefined,
};
