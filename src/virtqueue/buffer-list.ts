// The buffers of one request on its way into a queue; made once and refilled.

/** Guest-physical buffers in the order of the chain: those the device reads, then those it writes. */
export class BufferList {
  count = 0;
  /** How many of them the device only reads. */
  readable = 0;
  /** Bytes the device may write. */
  writableBytes = 0;
  readonly addresses: number[] = [];
  readonly lengths: number[] = [];

  clear(): this {
    this.count = 0;
    this.readable = 0;
    this.writableBytes = 0;
    return this;
  }

  /** Adds a buffer that the device reads; all of them come before the first writable one (§2.7.4.2). */
  addReadable(address: number, length: number): this {
    this.addresses[this.count] = address;
    this.lengths[this.count++] = length;
    this.readable++;
    return this;
  }

  /** Adds a buffer that the device writes. */
  addWritable(address: number, length: number): this {
    this.addresses[this.count] = address;
    this.lengths[this.count++] = length;
    this.writableBytes += length;
    return this;
  }
}
