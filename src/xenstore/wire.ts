// Messages out of bytes and into bytes (docs/misc/xenstore.txt): a header, then at most 4096 bytes. How the
// stream is cut into pieces does not matter. Both the store's end and a client's use it.

import { XENSTORE_PAYLOAD_MAX, xsdSockmsg } from '../abi/xenstore.ts';
import { ProtocolViolation } from '../errors.ts';

const HEADER = xsdSockmsg.size;
const NO_BYTES = new Uint8Array(0);

type Header = ReturnType<typeof xsdSockmsg.over>;

/** Clause of the ProtocolViolation for a payload that is too long. */
const PAYLOAD_TOO_LONG = 'xenstore.txt: XENSTORE_PAYLOAD_MAX';

/** Finds the messages in a stream. */
export class MessageReader {
  type = 0;
  requestId = 0;
  transactionId = 0;
  /** Valid until the next take(): it may lie in the input, or in the reader's own memory. */
  payload: Uint8Array = NO_BYTES;
  /** The start of a message whose rest has not come yet. */
  readonly #partial = new Uint8Array(HEADER + XENSTORE_PAYLOAD_MAX);
  readonly #partialHeader = xsdSockmsg.over(this.#partial);
  #held = 0;
  #input: Uint8Array = NO_BYTES;
  #inputHeader = xsdSockmsg.over(NO_BYTES);
  #taken = 0;

  /** Bytes of `input` that the last take() used. */
  get taken(): number {
    return this.#taken;
  }

  /**
   * Takes bytes of `input` from `from` until one message is whole; true if one is, and then it is in the
   * fields. Throws ProtocolViolation as soon as a header announces too much.
   */
  take(input: Uint8Array, from: number): boolean {
    if (this.#held > 0) return this.#continue(input, from);
    const available = input.length - from;
    if (available >= HEADER) {
      const length = this.#lengthAt(input, from);
      if (available >= length) {
        this.#finish(this.#inputHeader.at(from), input.subarray(from + HEADER, from + length));
        this.#taken = length;
        return true;
      }
    }
    this.#partial.set(input.subarray(from));
    this.#held = available;
    this.#taken = available;
    return false;
  }

  /** Forgets the start of a message. */
  reset(): void {
    this.#held = 0;
  }

  /** Goes on with a message whose start is held: first up to its header's end, then up to its own. */
  #continue(input: Uint8Array, from: number): boolean {
    let at = from;
    if (this.#held < HEADER) at += this.#hold(input, at, HEADER);
    let whole = false;
    if (this.#held >= HEADER) {
      const length = this.#lengthAt(this.#partial, 0);
      at += this.#hold(input, at, length);
      whole = this.#held === length;
      if (whole) this.#finish(this.#partialHeader, this.#partial.subarray(HEADER, length));
    }
    if (whole) this.#held = 0;
    this.#taken = at - from;
    return whole;
  }

  /** Copies input until `upTo` bytes are held; returns how many bytes that took. */
  #hold(input: Uint8Array, from: number, upTo: number): number {
    const bytes = Math.min(upTo - this.#held, input.length - from);
    this.#partial.set(input.subarray(from, from + bytes), this.#held);
    this.#held += bytes;
    return bytes;
  }

  /** Bytes of the message that starts at `at`, header and all. */
  #lengthAt(bytes: Uint8Array, at: number): number {
    const { len } = this.#headerIn(bytes).at(at);
    if (len > XENSTORE_PAYLOAD_MAX)
      throw new ProtocolViolation(
        PAYLOAD_TOO_LONG,
        `xenstore message of type ${this.#headerIn(bytes).type}: payload of ${len} bytes, expected at most ${XENSTORE_PAYLOAD_MAX}`,
      );
    return HEADER + len;
  }

  #headerIn(bytes: Uint8Array): Header {
    if (bytes === this.#partial) return this.#partialHeader;
    if (bytes !== this.#input) {
      this.#input = bytes;
      this.#inputHeader = xsdSockmsg.over(bytes);
    }
    return this.#inputHeader;
  }

  #finish(header: Header, payload: Uint8Array): void {
    this.type = header.type;
    this.requestId = header.req_id;
    this.transactionId = header.tx_id;
    this.payload = payload;
  }
}

/** Bytes to send, message after message in one piece of memory. */
export class MessageWriter {
  #bytes: Uint8Array<ArrayBuffer> = NO_BYTES;
  #header = xsdSockmsg.over(NO_BYTES);
  #start = 0;
  #end = 0;
  /** What was needed before, so that a busy client's buffer does not grow anew each time. */
  #capacity = 1024;

  /** Bytes that wait. */
  get length(): number {
    return this.#end - this.#start;
  }

  /** Adds a message. A string goes out as one byte for each character. */
  add(type: number, requestId: number, transactionId: number, payload: Uint8Array | string): void {
    const total = HEADER + payload.length;
    if (this.#end + total > this.#bytes.length) this.#makeRoom(total);
    const header = this.#header.at(this.#end);
    header.type = type;
    header.req_id = requestId;
    header.tx_id = transactionId;
    header.len = payload.length;
    const at = this.#end + HEADER;
    if (typeof payload !== 'string') this.#bytes.set(payload, at);
    else for (let i = 0; i < payload.length; i++) this.#bytes[at + i] = payload.charCodeAt(i);
    this.#end += total;
  }

  /** The bytes that wait; valid until the next call. */
  peek(): Uint8Array {
    return this.#bytes.subarray(this.#start, this.#end);
  }

  /** Drops the first `count` bytes that wait. */
  drop(count: number): void {
    this.#start += count;
    if (this.#start === this.#end) this.#start = this.#end = 0;
  }

  /** The bytes that wait, for good: the writer goes on in other memory. */
  take(): Uint8Array<ArrayBuffer> {
    const bytes = this.#bytes.subarray(this.#start, this.#end);
    this.#bytes = NO_BYTES;
    this.#start = this.#end = 0;
    return bytes;
  }

  #makeRoom(total: number): void {
    const kept = this.peek();
    while (this.#capacity < kept.length + total) this.#capacity *= 2;
    this.#bytes = new Uint8Array(this.#capacity);
    this.#bytes.set(kept);
    this.#header = xsdSockmsg.over(this.#bytes);
    this.#end = kept.length;
    this.#start = 0;
  }
}

/** Bytes as a string of one character for each. */
export function textOf(bytes: Uint8Array): string {
  return String.fromCharCode.apply(null, bytes as unknown as number[]);
}

/** The strings of a payload: each ends with a NUL; what follows the last NUL is none. */
export function stringsIn(payload: Uint8Array): string[] {
  const strings = textOf(payload).split('\0');
  strings.pop();
  return strings;
}

/** Strings as a payload carries them: each with a NUL after it. */
export function terminated(strings: readonly string[]): string {
  return strings.map((each) => `${each}\0`).join('');
}
