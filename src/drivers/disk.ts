// A disk as the guest sees it: what a file system, the copy job or the NBD server uses of a block driver.

/** A request that did not succeed, by errno name. */
export class DiskError extends Error {
  readonly code: 'EIO' | 'EROFS' | 'EINVAL' | 'ENOTSUP' | 'ENODEV' | 'ENOMEM';

  constructor(code: DiskError['code'], message: string) {
    super(message);
    this.name = 'DiskError';
    this.code = code;
  }
}

/** A piece of the guest's own memory for data on its way to or from the disk. */
export interface GuestBuffer {
  /**
   * The bytes, in shared memory: the backend may write to them while a read is under way, never after. To be looked
   * up anew when the guest has been suspended: it may go on in other memory.
   */
  readonly bytes: Uint8Array;
  /** Gives the memory back to the guest's allocator. Call it once, when nothing uses `bytes` any more. */
  release(): void;
}

/**
 * A disk behind a driver. Offsets and lengths are bytes and multiples of 512; anything else, and anything
 * past the end, rejects with EINVAL. Requests run concurrently and may finish in any order.
 */
export interface GuestDisk {
  /** Bytes. */
  readonly capacity: number;
  readonly readOnly: boolean;
  /** Whether completed writes are volatile until a flush, and flush() does something. */
  readonly canFlush: boolean;
  readonly canDiscard: boolean;
  readonly canWriteZeroes: boolean;
  /** Longest read or write, in bytes; at least 4096. */
  readonly maxTransfer: number;
  /** Guest memory for at least `length` bytes (up to maxTransfer); waits while none is free. */
  buffer(length: number): Promise<GuestBuffer>;
  /** Fills the first `length` bytes of `buffer` from `offset`. */
  read(offset: number, buffer: GuestBuffer, length: number): Promise<void>;
  /** Writes the first `length` bytes of `buffer` to `offset`. */
  write(offset: number, buffer: GuestBuffer, length: number): Promise<void>;
  /** Makes every write that had completed before the call survive a power cut. */
  flush(): Promise<void>;
  /** Says that the bytes are no longer needed; their contents become undefined. */
  discard(offset: number, length: number): Promise<void>;
  /** Makes the bytes read as zero; with `mayUnmap` the backend may free their space. */
  writeZeroes(offset: number, length: number, mayUnmap: boolean): Promise<void>;
}
