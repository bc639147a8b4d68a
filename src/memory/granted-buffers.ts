// The buffers of one chain as its descriptors name them, checked, and which of their bytes a device has reached when
// it is done: what the trace is told (grant-memory.ts), and what is copied out (grant-copy-memory.ts).

import {
  formatAddress,
  grantAddressFault,
  grantAddressOffset,
  grantAddressRef,
  isGrantAddress,
  pagesTouched,
} from '../abi/grant-address.ts';
import { ProtocolViolation } from '../errors.ts';

const MAX_REF = 0xffff_ffff;

/** Takes `length` bytes from byte `from` of buffer number `index`. */
export type Piece = (index: number, from: number, length: number) => void;

/** Throws for what no correct frontend sends: a plain address (G5), set bits 44-62 (G4), a range that wraps. */
export function checkGrantRange(low: number, high: number, length: number): void {
  if (isGrantAddress(high) && grantAddressRef(low, high) + pagesTouched(low, length) - 1 <= MAX_REF) return;
  const fault = grantAddressFault(high) ?? 'the buffer runs past the last grant reference';
  throw new ProtocolViolation(
    'VIRTIO_F_ACCESS_PLATFORM §6.1',
    `buffer ${formatAddress(low, high)}, ${length} bytes: ${fault}`,
  );
}

/** A list that is filled for each chain and reused. */
export class GrantedBuffers {
  count = 0;
  /** First reference of each buffer, and its first byte in that page; the references that follow are its too. */
  readonly refs: number[] = [];
  readonly offsets: number[] = [];
  readonly lengths: number[] = [];
  readonly writable: boolean[] = [];
  /** Bytes of those that the device may write. */
  writableBytes = 0;

  clear(): void {
    this.count = 0;
    this.writableBytes = 0;
  }

  add(low: number, high: number, length: number, writable: boolean): void {
    const index = this.count++;
    this.refs[index] = grantAddressRef(low, high);
    this.offsets[index] = grantAddressOffset(low);
    this.lengths[index] = length;
    this.writable[index] = writable;
    if (writable) this.writableBytes += length;
  }

  /** The first `bytes` of what the device may only read, buffer by buffer. */
  eachRead(bytes: number, piece: Piece): void {
    let left = bytes;
    for (let index = 0; index < this.count && left > 0; index++) {
      if (this.writable[index]) continue;
      const length = Math.min(this.lengths[index], left);
      piece(index, 0, length);
      left -= length;
    }
  }

  /** Of what the device may write, the first `bytes` and the last `atEnd`, buffer by buffer; none of them twice. */
  eachWritten(bytes: number, atEnd: number, piece: Piece): void {
    const tail = Math.max(bytes, this.writableBytes - atEnd);
    let start = 0;
    for (let index = 0; index < this.count; index++) {
      if (!this.writable[index]) continue;
      const length = this.lengths[index];
      const head = Math.min(length, bytes - start);
      if (head > 0) piece(index, 0, head);
      const from = Math.max(tail - start, 0);
      if (from < length) piece(index, from, length - from);
      start += length;
    }
  }
}
