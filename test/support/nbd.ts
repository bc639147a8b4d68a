// Test helper: a client that says exactly what a test tells it to, a pair of streams in place of a socket,
// and a clock that the test moves.

import { Duplex } from 'node:stream';
import {
  NBD_CMD_READ,
  NBD_OPT_GO,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_OPTION_MAGIC,
  NBD_REP_ACK,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REQUEST_MAGIC,
  NBD_SIMPLE_REPLY_MAGIC,
  nbdClientFlags,
  nbdExportInfo,
  nbdGreeting,
  nbdNameLength,
  nbdOffsetData,
  nbdOption,
  nbdOptionReply,
  nbdReplyChunk,
  nbdReplyError,
  nbdRequest,
  nbdSimpleReply,
} from '../../src/abi/nbd.ts';
import { type After, Connection } from '../../src/nbd/connection.ts';
import { type NbdExport, serveExports } from '../../src/nbd/export.ts';
import { StreamReader } from '../../src/nbd/stream-reader.ts';

/** One end of a connection in memory; what is written to it arrives at its peer. */
class End extends Duplex {
  peer: End | undefined;
  #written: (() => void) | undefined;

  override _read(): void {
    this.peer?.finishWrite();
  }

  override _write(chunk: Uint8Array, _encoding: string, done: () => void): void {
    this.#written = done;
    // The writer may use its memory again once it is told, whenever the reader looks at it.
    this.peer?.push(Buffer.from(chunk));
  }

  override _final(done: () => void): void {
    this.peer?.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    process.nextTick(() => this.peer?.destroy());
    done(error);
    this.finishWrite();
  }

  finishWrite(): void {
    const written = this.#written;
    this.#written = undefined;
    written?.();
  }
}

/** Two connected streams. */
function duplexPair(): [Duplex, Duplex] {
  // What a stream buffers by default is not the same in every version of Node.
  const options = { allowHalfOpen: true, highWaterMark: 16 * 1024 };
  const [one, other] = [new End(options), new End(options)];
  one.peer = other;
  other.peer = one;
  return [one, other];
}

/** Time that passes when a test says so. */
export class TestClock {
  #now = 0;
  readonly #timers = new Set<{ readonly at: number; readonly action: () => void }>();

  readonly after: After = (milliseconds, action) => {
    const timer = { at: this.#now + milliseconds, action };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };

  get pending(): number {
    return this.#timers.size;
  }

  advance(milliseconds: number): void {
    this.#now += milliseconds;
    for (const timer of this.#timers) if (timer.at <= this.#now && this.#timers.delete(timer)) timer.action();
  }
}

/** What a request says besides its type. */
interface RawRequest {
  readonly flags?: number;
  readonly offset?: number | bigint;
  readonly length?: number;
  readonly cookie?: bigint;
  /** Payload of a write; `length` is its length unless given. */
  readonly data?: Uint8Array;
}

/** A message of the transmission phase from the server: a simple reply or a chunk. */
interface RawReply {
  readonly cookie: bigint;
  readonly error: number;
  readonly message: string;
  /** Data of a read, and where they belong. */
  readonly data: Uint8Array;
  readonly offset: number;
  /** Type of a chunk; undefined for a simple reply. */
  readonly chunk: number | undefined;
  readonly done: boolean;
}

const NO_DATA = new Uint8Array(0);

/** An option with its data, as bytes. */
export function optionBytes(option: number, data: Uint8Array = NO_DATA): Uint8Array {
  return Buffer.concat([
    nbdOption.make({ magic: NBD_OPTION_MAGIC, option, length: data.length }).bytes,
    data,
  ]);
}

/** The data of NBD_OPT_INFO and NBD_OPT_GO. */
export function infoData(name: string, types: readonly number[] = []): Uint8Array {
  const bytes = Buffer.from(name);
  const list = Buffer.alloc(2 + 2 * types.length);
  list.writeUInt16BE(types.length, 0);
  for (const [index, type] of types.entries()) list.writeUInt16BE(type, 2 + 2 * index);
  return Buffer.concat([nbdNameLength.make({ length: bytes.length }).bytes, bytes, list]);
}

/** A request with its payload, as bytes. */
export function requestBytes(type: number, request: RawRequest = {}): Uint8Array {
  const { flags = 0, offset = 0, cookie = 0n, data = NO_DATA, length = data.length } = request;
  const header = Buffer.alloc(nbdRequest.size);
  header.writeUInt32BE(NBD_REQUEST_MAGIC, 0);
  header.writeUInt16BE(flags, 4);
  header.writeUInt16BE(type, 6);
  header.writeBigUInt64BE(cookie, 8);
  header.writeBigUInt64BE(BigInt(offset), 16);
  header.writeUInt32BE(length, 24);
  return Buffer.concat([header, data]);
}

/** The client's end of a connection. */
export class RawClient {
  readonly stream: Duplex;
  readonly #reader: StreamReader;
  structured = false;

  constructor(stream: Duplex) {
    this.stream = stream;
    this.#reader = new StreamReader(stream);
    stream.on('data', (chunk: Uint8Array) => this.#reader.push(chunk));
    stream.on('end', () => this.#reader.end());
    stream.on('close', () => this.#reader.end());
    stream.on('error', () => this.#reader.end());
  }

  send(...parts: readonly Uint8Array[]): void {
    this.stream.write(Buffer.concat(parts));
  }

  /** The next `length` bytes; throws when the server ends before. */
  async take(length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    if (!(await this.#reader.fill(bytes))) throw new Error('the server hung up');
    return bytes;
  }

  /** Whether the server hangs up next, with not a byte more. */
  async hungUp(): Promise<boolean> {
    return !(await this.#reader.fill(new Uint8Array(1)));
  }

  /** Takes the greeting and answers with client flags. */
  async greet(flags = 3): Promise<ReturnType<typeof nbdGreeting.over>> {
    const greeting = nbdGreeting.over(await this.take(nbdGreeting.size));
    this.send(nbdClientFlags.make({ flags }).bytes);
    return greeting;
  }

  async optionReply(): Promise<{ option: number; type: number; data: Uint8Array; text: string }> {
    const { option, type, length } = nbdOptionReply.over(await this.take(nbdOptionReply.size));
    const data = await this.take(length);
    return { option, type, data, text: Buffer.from(data).toString() };
  }

  /** Sends an option and takes its one reply. */
  ask(option: number, data?: Uint8Array): ReturnType<RawClient['optionReply']> {
    this.send(optionBytes(option, data));
    return this.optionReply();
  }

  /** A whole handshake; resolves to size and transmission flags. */
  async go(name = '', structured = false): Promise<{ size: number; flags: number }> {
    await this.greet();
    if (structured) await this.ask(NBD_OPT_STRUCTURED_REPLY);
    this.structured = structured;
    const { size, transmissionFlags } = nbdExportInfo.over((await this.ask(NBD_OPT_GO, infoData(name))).data);
    if ((await this.optionReply()).type !== NBD_REP_ACK) throw new Error('NBD_OPT_GO was not acknowledged');
    return { size, flags: transmissionFlags };
  }

  /** The next message; a simple reply brings `length` bytes if it is no error. */
  async reply(length = 0): Promise<RawReply> {
    const magic = await this.take(4);
    const isSimple = Buffer.from(magic).readUInt32BE() === NBD_SIMPLE_REPLY_MAGIC;
    const size = isSimple ? nbdSimpleReply.size : nbdReplyChunk.size;
    const header = Buffer.concat([magic, await this.take(size - magic.length)]);
    return isSimple ? this.#simple(header, length) : this.#chunk(header);
  }

  async #simple(header: Buffer, length: number): Promise<RawReply> {
    const error = header.readUInt32BE(4);
    const data = await this.take(error === 0 ? length : 0);
    const cookie = header.readBigUInt64BE(8);
    return { cookie, error, message: '', data, offset: 0, chunk: undefined, done: true };
  }

  async #chunk(header: Buffer): Promise<RawReply> {
    const { flags, type, length } = nbdReplyChunk.over(header);
    const payload = await this.take(length);
    const common = {
      cookie: header.readBigUInt64BE(8),
      chunk: type,
      done: (flags & NBD_REPLY_FLAG_DONE) !== 0,
    };
    if (type === NBD_REPLY_TYPE_OFFSET_DATA) {
      const data = payload.subarray(nbdOffsetData.size);
      return { ...common, error: 0, message: '', data, offset: nbdOffsetData.over(payload).offset };
    }
    const failed = type === NBD_REPLY_TYPE_ERROR;
    const error = failed ? nbdReplyError.over(payload).error : 0;
    const message = failed ? Buffer.from(payload.subarray(nbdReplyError.size)).toString() : '';
    return { ...common, error, message, data: NO_DATA, offset: 0 };
  }

  /** Sends a request and collects its whole reply; nothing else may be under way. */
  async call(type: number, request: RawRequest = {}): Promise<{ error: number; data: Uint8Array }> {
    this.send(requestBytes(type, request));
    const expected = type === NBD_CMD_READ ? (request.length ?? 0) : 0;
    const data = new Uint8Array(expected);
    for (;;) {
      const reply = await this.reply(expected);
      const at = reply.chunk === NBD_REPLY_TYPE_OFFSET_DATA ? reply.offset - Number(request.offset ?? 0) : 0;
      data.set(reply.data, at);
      if (reply.done) return { error: reply.error, data };
    }
  }
}

/** A client connected to a fresh Connection that serves `exports`, without a socket. */
export function connected(exports: readonly NbdExport[]): {
  client: RawClient;
  clock: TestClock;
  connection: Connection;
  /** What run() resolves to. */
  over: Promise<Error | undefined>;
} {
  const [near, far] = duplexPair();
  const clock = new TestClock();
  const connection = new Connection(near, serveExports(exports), clock.after);
  return { client: new RawClient(far), clock, connection, over: connection.run() };
}
