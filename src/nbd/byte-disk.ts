// A guest's disk that takes any offset and length, as an NBD client may send them: whole blocks go straight
// through, a part of a block is read, changed and written back under a lock.
// Before it: transmission.ts. After it: drivers/disk.ts.

import type { GuestBuffer, GuestDisk } from '../drivers/disk.ts';
import { RangeLock } from './range-lock.ts';

/** What a GuestDisk's offsets and lengths are multiples of, in bytes. */
const BLOCK = 512;

/** A stretch of a request that is served with one buffer: whole blocks, or a part of one block. */
export interface Piece {
  /** Bytes from the start of the disk. */
  readonly offset: number;
  /** Bytes; never 0. */
  readonly length: number;
}

/** A GuestDisk with byte granularity. All clients of a disk must share one, since it holds the lock. */
export class ByteDisk {
  readonly disk: GuestDisk;
  readonly #longest: number;
  readonly #writing = new RangeLock();

  constructor(disk: GuestDisk) {
    this.disk = disk;
    this.#longest = floorBlock(disk.maxTransfer);
  }

  /** Cuts a range into pieces, first to last. */
  pieces(offset: number, length: number): Piece[] {
    return cut(offset, length, this.#longest);
  }

  /** Guest memory for one piece; its data lie where dataOf() says. */
  buffer({ offset, length }: Piece): Promise<GuestBuffer> {
    return this.disk.buffer(ceilBlock((offset % BLOCK) + length));
  }

  /** Reads a piece into its buffer. */
  read({ offset, length }: Piece, buffer: GuestBuffer): Promise<void> {
    const skip = offset % BLOCK;
    return this.disk.read(offset - skip, buffer, ceilBlock(skip + length));
  }

  /** Writes a piece from its buffer. */
  write(piece: Piece, buffer: GuestBuffer): Promise<void> {
    const { offset, length } = piece;
    if (isPartial(piece)) return this.#change(piece, buffer, dataOf(piece, buffer).slice());
    return this.#writing.shared(offset, offset + length, () => this.disk.write(offset, buffer, length));
  }

  /** Makes the bytes read as zero; with `mayUnmap` the backend may free the space of whole blocks. */
  async writeZeroes(offset: number, length: number, mayUnmap: boolean): Promise<void> {
    for (const piece of cut(offset, length, Number.MAX_SAFE_INTEGER))
      await (isPartial(piece) ? this.#zeroPart(piece) : this.#zeroBlocks(piece, mayUnmap));
  }

  /** Says that the bytes are no longer needed; a block that is not wholly among them is kept. */
  async discard(offset: number, length: number): Promise<void> {
    const start = ceilBlock(offset);
    const end = floorBlock(offset + length);
    if (start < end) await this.#writing.shared(start, end, () => this.disk.discard(start, end - start));
  }

  #zeroBlocks({ offset, length }: Piece, mayUnmap: boolean): Promise<void> {
    return this.#writing.shared(offset, offset + length, () =>
      this.disk.writeZeroes(offset, length, mayUnmap),
    );
  }

  async #zeroPart(piece: Piece): Promise<void> {
    const buffer = await this.buffer(piece);
    try {
      await this.#change(piece, buffer, new Uint8Array(piece.length));
    } finally {
      buffer.release();
    }
  }

  /** Puts `data` into a part of a block. The buffer is taken before the lock: who holds the lock never waits. */
  #change(piece: Piece, buffer: GuestBuffer, data: Uint8Array): Promise<void> {
    const start = floorBlock(piece.offset);
    return this.#writing.exclusive(start, start + BLOCK, async () => {
      await this.disk.read(start, buffer, BLOCK);
      dataOf(piece, buffer).set(data);
      await this.disk.write(start, buffer, BLOCK);
    });
  }
}

/** The bytes of a piece in its buffer. */
export function dataOf({ offset, length }: Piece, buffer: GuestBuffer): Uint8Array {
  const skip = offset % BLOCK;
  return buffer.bytes.subarray(skip, skip + length);
}

/** Pieces of at most `longest` bytes, a multiple of the block; a part of a block is a piece of its own. */
function cut(offset: number, length: number, longest: number): Piece[] {
  const pieces: Piece[] = [];
  const end = offset + length;
  for (let at = offset; at < end; ) {
    const blockEnd = floorBlock(at) + BLOCK;
    const whole = at % BLOCK === 0 && blockEnd <= end;
    const size = whole ? Math.min(floorBlock(end - at), longest) : Math.min(blockEnd, end) - at;
    pieces.push({ offset: at, length: size });
    at += size;
  }
  return pieces;
}

function isPartial({ offset, length }: Piece): boolean {
  return offset % BLOCK !== 0 || length % BLOCK !== 0;
}

function floorBlock(bytes: number): number {
  return bytes - (bytes % BLOCK);
}

function ceilBlock(bytes: number): number {
  return floorBlock(bytes + BLOCK - 1);
}
