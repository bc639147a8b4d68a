// Port within dma/: an exposure mode, which is how the buffers of one device become reachable for its backend
// while they are mapped. Implemented by direct-sharing.ts, bounce-sharing.ts and copy-sharing.ts; used by
// mapped-buffers.ts, which makes the DMA operations of them.

/** How one device's buffers are shared. A buffer is named by its place: reference * 4096 + offset in the page. */
export interface BufferSharing {
  /**
   * Makes `size` bytes at `address` reachable.
   *
   * @param copies false when the caller syncs by itself (DMA_ATTR_SKIP_CPU_SYNC): a copy begins as zeroes
   * @returns the place at which the device finds the buffer, or -1 when pages or references are exhausted
   */
  share(address: number, size: number, direction: number, copies: boolean): number;
  /**
   * Ends that; `size` and `direction` are those of `share`.
   *
   * @param copies false when what the device wrote is not wanted
   * @returns false when the device can still reach the caller's own pages
   */
  unshare(ref: number, offset: number, size: number, direction: number, copies: boolean): boolean;
  /** Brings `length` bytes from byte `at` of a shared buffer from the device's copy to the caller's, if there are two. */
  syncForCpu(ref: number, offset: number, size: number, direction: number, at: number, length: number): void;
  /** The other way round. */
  syncForDevice(
    ref: number,
    offset: number,
    size: number,
    direction: number,
    at: number,
    length: number,
  ): void;
  /** Ends access to pages that are granted and not in use. */
  revokeIdle(): void;
  /** Gives all pages back to the guest: nothing is shared, and nothing will be any more. */
  close(): void;
  /** Ends access to what has been idle for too long at `now`. Returns when that is next due; see DmaOperations.tick. */
  tick(now: number): number;
}
