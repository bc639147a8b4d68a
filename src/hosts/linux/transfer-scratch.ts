// What blocking transfers need of a thread, one for all its images: the pieces of a request as an iovec array, a
// buffer for memory that the kernel cannot reach or does not take, and zeroes to write. Used by vectored-image.ts.

import type { Segments } from '../../memory/segments.ts';
import type { Arena, Scratch } from './arena.ts';

/** Pieces that one system call takes at most (UIO_MAXIOV). */
export const MOST_VECTORS = 1024;
/** struct iovec: base, length. */
export const VECTOR_SIZE = 16;
const BOUNCE_SIZE = 256 * 1024;
const ZEROES_SIZE = 64 * 1024;
/** Of the buffers: enough for direct I/O of any disk. */
const ALIGNMENT = 4096;
const HIGH = 2 ** 32;

/** Bytes of an arena that one takes. */
export const TRANSFER_SCRATCH_SIZE = BOUNCE_SIZE + ZEROES_SIZE + MOST_VECTORS * VECTOR_SIZE + 2 * ALIGNMENT;

/**
 * Writes the pieces of `segments` from byte `skip` on as struct iovec at `first` of `words`.
 *
 * @returns how many those are, at most `most`
 */
export function putVectors(
  words: Uint32Array,
  first: number,
  most: number,
  segments: Segments,
  skip: number,
): number {
  const { count, regions, offsets, lengths } = segments;
  let passed = 0;
  let put = 0;
  for (let i = 0; i < count && put < most; passed += lengths[i++]) {
    const from = Math.max(skip - passed, 0);
    if (from >= lengths[i]) continue;
    const address = regions[i].address + offsets[i] + from;
    const at = first + put++ * 4;
    words[at] = address;
    words[at + 1] = address / HIGH;
    words[at + 2] = lengths[i] - from;
    words[at + 3] = 0;
  }
  return put;
}

/** Scratch memory for the transfers of one thread, of which no two are under way. */
export class TransferScratch {
  readonly vectors: Scratch;
  readonly vectorWords: Uint32Array;
  readonly bounce: Scratch;
  readonly zeroes: Scratch;

  constructor(arena: Arena) {
    this.bounce = arena.take(BOUNCE_SIZE, ALIGNMENT);
    this.zeroes = arena.take(ZEROES_SIZE, ALIGNMENT);
    this.vectors = arena.take(MOST_VECTORS * VECTOR_SIZE);
    const { buffer, byteOffset, byteLength } = this.vectors.u8;
    this.vectorWords = new Uint32Array(buffer, byteOffset, byteLength / 4);
  }
}
