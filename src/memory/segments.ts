// A buffer as the device finds it: pieces of memory in the order of the chain's descriptors. Devices pass
// segments on; storage/ reads and writes straight into them. Nothing here copies more than it is asked to.

import type { Region } from '../abi/region.ts';
import { assert } from '../errors.ts';

/** Up to here a loop beats making a subarray for `set`. */
const SHORT = 64;

function copyBytes(from: Uint8Array, start: number, to: Uint8Array, at: number, length: number): void {
  if (length > SHORT) to.set(from.subarray(start, start + length), at);
  else for (let i = 0; i < length; i++) to[at + i] = from[start + i];
}

/** Pieces of memory, first to last. A list is filled by memory/, used while its chain is mapped, and reused. */
export class Segments {
  /** Pieces. */
  count = 0;
  /** Bytes in all pieces. */
  byteLength = 0;
  readonly regions: Region[] = [];
  /** Where each piece starts in its region. */
  readonly offsets: number[] = [];
  readonly lengths: number[] = [];

  clear(): void {
    this.count = 0;
    this.byteLength = 0;
  }

  /** Adds a piece, or lengthens the last one when the new piece goes on where that ends. */
  push(region: Region, offset: number, length: number): void {
    const last = this.count - 1;
    this.byteLength += length;
    if (last >= 0 && this.regions[last] === region && this.offsets[last] + this.lengths[last] === offset) {
      this.lengths[last] += length;
      return;
    }
    this.regions[this.count] = region;
    this.offsets[this.count] = offset;
    this.lengths[this.count] = length;
    this.count++;
  }

  /** Copies the first `length` bytes from `from` on into `target`: for headers, once, before they are read. */
  copyTo(target: Uint8Array, from: number, length: number): void {
    assert(from + length <= this.byteLength, 'copy past the end', from + length, this.byteLength);
    let skip = from;
    let done = 0;
    for (let i = 0; done < length; i++) {
      const available = this.lengths[i] - skip;
      if (available <= 0) {
        skip -= this.lengths[i];
        continue;
      }
      const piece = Math.min(available, length - done);
      copyBytes(this.regions[i].u8, this.offsets[i] + skip, target, done, piece);
      done += piece;
      skip = 0;
    }
  }

  /** Copies `source` into the memory, starting `at` bytes in. */
  copyFrom(source: Uint8Array, at: number): void {
    assert(at + source.length <= this.byteLength, 'copy past the end', at + source.length, this.byteLength);
    let skip = at;
    let done = 0;
    for (let i = 0; done < source.length; i++) {
      const available = this.lengths[i] - skip;
      if (available <= 0) {
        skip -= this.lengths[i];
        continue;
      }
      const piece = Math.min(available, source.length - done);
      copyBytes(source, done, this.regions[i].u8, this.offsets[i] + skip, piece);
      done += piece;
      skip = 0;
    }
  }

  /** Writes one byte, `at` bytes in. */
  setByte(at: number, value: number): void {
    assert(at >= 0 && at < this.byteLength, 'a byte outside', at, this.byteLength);
    let skip = at;
    let i = 0;
    for (; skip >= this.lengths[i]; i++) skip -= this.lengths[i];
    this.regions[i].u8[this.offsets[i] + skip] = value;
  }

  /** Takes `length` bytes from `from` of `source` as the pieces of this list. */
  slice(source: Segments, from: number, length: number): this {
    assert(from + length <= source.byteLength, 'slice past the end', from + length, source.byteLength);
    this.clear();
    let skip = from;
    let left = length;
    for (let i = 0; left > 0; i++) {
      const available = source.lengths[i] - skip;
      if (available <= 0) {
        skip -= source.lengths[i];
        continue;
      }
      const piece = Math.min(available, left);
      this.push(source.regions[i], source.offsets[i] + skip, piece);
      left -= piece;
      skip = 0;
    }
    return this;
  }
}
