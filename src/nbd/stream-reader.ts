// Takes exact numbers of bytes from a stream that arrives in chunks of any size, each byte copied once, to
// where it is wanted. Before it: the socket of connection.ts. After it: handshake.ts and transmission.ts.

import { assert, ProtocolViolation } from '../errors.ts';

/** What brings the chunks and can be told to wait: a Node stream. */
interface ChunkSource {
  pause(): unknown;
  resume(): unknown;
}

/** A read that waits for more chunks. */
interface Want {
  /** Where the bytes go; undefined drops them. */
  readonly target: Uint8Array | undefined;
  readonly length: number;
  got: number;
  readonly resolve: (filled: boolean | Promise<boolean>) => void;
}

/** Longest piece that #copy shifts, in bytes: what Node reads from a socket at a time. */
const MAX_SHIFTED = 1 << 16;

const FILLED = Promise.resolve(true);
const ENDED = Promise.resolve(false);

/** What a peer sends. Holds two chunks at most: the source waits as long as one is unread. */
export class StreamReader {
  readonly #source: ChunkSource;
  readonly #chunks: Uint8Array[] = [];
  /** Bytes of the first chunk that were taken. */
  #taken = 0;
  #want: Want | undefined;
  #paused = false;
  #ended = false;
  #received = 0;
  /** Private memory for #copy, made when it is needed. */
  #shifted: Uint8Array | undefined;

  constructor(source: ChunkSource) {
    this.#source = source;
  }

  /** Bytes that have arrived so far. */
  get received(): number {
    return this.#received;
  }

  /** Whether a read waits for the peer. */
  get waiting(): boolean {
    return this.#want !== undefined;
  }

  /** A chunk arrived. After end() it is dropped. */
  push(chunk: Uint8Array): void {
    this.#received += chunk.length;
    if (this.#ended || chunk.length === 0) return;
    this.#chunks.push(chunk);
    const want = this.#want;
    if (want) {
      want.got = this.#move(want.target, want.got, want.length);
      if (want.got === want.length) this.#settle(want, true);
    }
    if (this.#chunks.length > 1) this.#pause();
  }

  /** No more bytes come. What has arrived can still be read. */
  end(): void {
    this.#ended = true;
    const want = this.#want;
    if (want) this.#settle(want, cutShort(want.got, want.length));
  }

  /** Drops what has arrived and was not read, and all that still comes. */
  discard(): void {
    this.#chunks.length = 0;
    this.#taken = 0;
    this.end();
    this.#resume();
  }

  /**
   * Fills `target`. Resolves to false when the stream ended before the first byte of it, and rejects with
   * ProtocolViolation when it ended after that. One read at a time.
   */
  fill(target: Uint8Array): Promise<boolean> {
    return this.#take(target, target.length);
  }

  /** Drops `length` bytes; resolves and rejects as fill() does. */
  skip(length: number): Promise<boolean> {
    return this.#take(undefined, length);
  }

  #take(target: Uint8Array | undefined, length: number): Promise<boolean> {
    assert(!this.#want, 'StreamReader: a read began while another was under way');
    const got = this.#move(target, 0, length);
    if (got === length) return FILLED;
    if (this.#ended) return cutShort(got, length);
    this.#resume();
    return new Promise((resolve) => {
      this.#want = { target, length, got, resolve };
    });
  }

  /** Moves what has arrived to `target` from byte `from` on, up to byte `length`; returns where it stopped. */
  #move(target: Uint8Array | undefined, from: number, length: number): number {
    let at = from;
    while (at < length && this.#chunks.length > 0) {
      const chunk = this.#chunks[0];
      const size = Math.min(length - at, chunk.length - this.#taken);
      if (target) this.#copy(target, at, chunk.subarray(this.#taken, this.#taken + size));
      at += size;
      this.#taken += size;
      if (this.#taken < chunk.length) break;
      this.#chunks.shift();
      this.#taken = 0;
    }
    return at;
  }

  /**
   * V8 copies into shared memory byte by byte, at 2 GB/s, unless source and target lie alike within a word;
   * then it is 11 GB/s. A header of 28 bytes puts everything behind it out of step, so bytes that lie
   * otherwise pass through private memory, where they are shifted at 30 GB/s.
   */
  #copy(target: Uint8Array, at: number, source: Uint8Array): void {
    const skew = (target.byteOffset + at) % 8;
    const outOfStep = target.buffer instanceof SharedArrayBuffer && source.byteOffset % 8 !== skew;
    let bytes = source;
    if (outOfStep && source.length <= MAX_SHIFTED) {
      this.#shifted ??= new Uint8Array(MAX_SHIFTED + 8);
      this.#shifted.set(source, skew);
      bytes = this.#shifted.subarray(skew, skew + source.length);
    }
    target.set(bytes, at);
  }

  #settle(want: Want, filled: boolean | Promise<boolean>): void {
    this.#want = undefined;
    want.resolve(filled);
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#source.pause();
  }

  #resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#source.resume();
  }
}

function cutShort(got: number, length: number): Promise<boolean> {
  if (got === 0) return ENDED;
  return Promise.reject(
    new ProtocolViolation('NBD protocol', `the stream ended after ${got} of ${length} bytes of a message`),
  );
}
