// Test helper: a GuestDisk in memory, checked like a real one, with a bounded pool of buffers that is
// counted, and requests that a test can hold back or fail.

import { DiskError, type GuestBuffer, type GuestDisk } from '../../src/drivers/disk.ts';

/** What a test wants to be different from a plain writable disk. */
export interface MemoryDiskOptions {
  readonly readOnly?: boolean;
  readonly canFlush?: boolean;
  readonly canDiscard?: boolean;
  readonly canWriteZeroes?: boolean;
  readonly maxTransfer?: number;
  /** Bytes of guest memory for buffers. */
  readonly pool?: number;
}

/** A disk of `capacity` bytes. */
export class MemoryDisk implements GuestDisk {
  readonly capacity: number;
  readonly readOnly: boolean;
  readonly canFlush: boolean;
  readonly canDiscard: boolean;
  readonly canWriteZeroes: boolean;
  readonly maxTransfer: number;
  readonly bytes: Uint8Array;
  /** Bytes of guest memory that are lent out. */
  lent = 0;
  /** What was done, in the order of completion: 'read 0+512', 'flush', … */
  readonly log: string[] = [];
  /** Called before each request, which waits for it; throwing fails the request. */
  before: (request: string) => Promise<void> | void = () => undefined;
  readonly #pool: number;
  readonly #free: Uint8Array[] = [];
  #waiting: (() => void)[] = [];

  constructor(capacity: number, options: MemoryDiskOptions = {}) {
    this.capacity = capacity;
    this.readOnly = options.readOnly ?? false;
    this.canFlush = options.canFlush ?? true;
    this.canDiscard = options.canDiscard ?? true;
    this.canWriteZeroes = options.canWriteZeroes ?? true;
    this.maxTransfer = options.maxTransfer ?? 1 << 20;
    this.#pool = options.pool ?? 64 << 20;
    this.bytes = new Uint8Array(new SharedArrayBuffer(capacity));
  }

  async buffer(length: number): Promise<GuestBuffer> {
    if (length > this.maxTransfer) throw new DiskError('EINVAL', `a buffer of ${length} bytes`);
    while (this.lent + length > this.#pool) await new Promise<void>((wake) => this.#waiting.push(wake));
    this.lent += length;
    const at = this.#free.findIndex((each) => each.length === length);
    const bytes = at < 0 ? new Uint8Array(new SharedArrayBuffer(length)) : this.#free.splice(at, 1)[0];
    let released = false;
    const release = (): void => {
      if (released) throw new Error('a buffer was released twice');
      released = true;
      this.lent -= length;
      this.#free.push(bytes);
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const wake of waiting) wake();
    };
    return { bytes, release };
  }

  async read(offset: number, buffer: GuestBuffer, length: number): Promise<void> {
    await this.#begin('read', offset, length, this.maxTransfer);
    buffer.bytes.set(this.bytes.subarray(offset, offset + length));
  }

  async write(offset: number, buffer: GuestBuffer, length: number): Promise<void> {
    this.#refuseReadOnly();
    await this.#begin('write', offset, length, this.maxTransfer);
    this.bytes.set(buffer.bytes.subarray(0, length), offset);
  }

  async flush(): Promise<void> {
    await this.before('flush');
    this.log.push('flush');
  }

  async discard(offset: number, length: number): Promise<void> {
    this.#refuseReadOnly();
    await this.#begin('discard', offset, length, this.capacity);
    this.bytes.fill(0xdd, offset, offset + length);
  }

  async writeZeroes(offset: number, length: number, mayUnmap: boolean): Promise<void> {
    this.#refuseReadOnly();
    await this.#begin(mayUnmap ? 'zero, may unmap' : 'zero', offset, length, this.capacity);
    this.bytes.fill(0, offset, offset + length);
  }

  #refuseReadOnly(): void {
    if (this.readOnly) throw new DiskError('EROFS', 'the disk is read-only');
  }

  async #begin(what: string, offset: number, length: number, longest: number): Promise<void> {
    const request = `${what} ${offset}+${length}`;
    const aligned = offset % 512 === 0 && length % 512 === 0;
    if (!aligned || length > longest || offset + length > this.capacity)
      throw new DiskError('EINVAL', `${request} on a disk of ${this.capacity} bytes`);
    await this.before(request);
    if (this.log.length < 10_000) this.log.push(request);
  }
}
