// A stretch of memory with every typed view on it made once: guest memory, a ring, the host's frames.
//
// Rings and devices index these views directly, so one implementation serves the embedded Xen (shared
// memory of the model), a vhost-user memory region and a plain buffer of a test.

/** Memory, and the typed views over exactly these bytes. Offsets into it are bytes from its start. */
export interface Region {
  readonly buffer: ArrayBufferLike;
  /** Where the region starts in `buffer`; a multiple of 8. */
  readonly byteOffset: number;
  /** Bytes; a multiple of 8. */
  readonly byteLength: number;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  readonly i32: Int32Array;
  /** Where its first byte is in this process's address space, for system calls; 0 where they cannot have it. */
  readonly address: number;
}

/**
 * Makes the views over `byteLength` bytes of `buffer` from `byteOffset`; both must be multiples of 8.
 *
 * @param address where these bytes are in this process's address space, if they never move
 */
export function regionOver(
  buffer: ArrayBufferLike,
  byteOffset = 0,
  byteLength = buffer.byteLength - byteOffset,
  address = 0,
): Region {
  return {
    buffer,
    byteOffset,
    byteLength,
    u8: new Uint8Array(buffer, byteOffset, byteLength),
    u16: new Uint16Array(buffer, byteOffset, byteLength / 2),
    u32: new Uint32Array(buffer, byteOffset, byteLength / 4),
    i32: new Int32Array(buffer, byteOffset, byteLength / 4),
    address,
  };
}
