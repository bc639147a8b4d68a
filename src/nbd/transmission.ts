// The transmission phase of one connection: reads requests, lets them run side by side on the disk, and
// answers each as it finishes (proto.md, "Transmission").
// Before it: handshake.ts and stream-reader.ts. After it: byte-disk.ts, then replies.ts and sender.ts.

import {
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_ESHUTDOWN,
  NBD_MAX_PAYLOAD,
  nbdRequest,
} from '../abi/nbd.ts';
import { DiskError, type GuestBuffer } from '../drivers/disk.ts';
import { ProtocolViolation } from '../errors.ts';
import { Allowance } from './allowance.ts';
import { type ByteDisk, dataOf, type Piece } from './byte-disk.ts';
import type { ServedExport } from './export.ts';
import { failureIn, outcomeOf, refusalFor } from './outcome.ts';
import { dataChunk, endChunk, errorChunk, simpleReply } from './replies.ts';
import { changesData, decodeRequest, type Refusal, type Request, refusalOf } from './request.ts';
import type { Sender } from './sender.ts';
import type { StreamReader } from './stream-reader.ts';

/** What client and server agreed on in the handshake. */
export interface Agreement {
  readonly target: ServedExport;
  /** Whether replies to reads are structured. */
  readonly structured: boolean;
}

/** Requests of one client at a time, from the header until the kernel has the last byte of the reply. */
export const MAX_REQUESTS = 64;
/** Bytes of payload of these requests, in both directions together. */
export const MAX_PAYLOAD = 16 << 20;
/**
 * Bytes of the guest's memory that one client may keep busy. It is scarce, all clients share it, and one
 * that takes no replies keeps its part until it is hung up on.
 */
export const MAX_LENT = 4 << 20;

/** Longest payload of a write that is taken from the stream in order to refuse it, in bytes. */
const MAX_SKIPPED = 2 * NBD_MAX_PAYLOAD;

const SHUTTING_DOWN: Refusal = { error: NBD_ESHUTDOWN, message: 'the server is shutting down' };

/** Serves the requests of one client on one export. */
export class Transmission {
  readonly #reader: StreamReader;
  readonly #sender: Sender;
  readonly #target: ServedExport;
  readonly #disk: ByteDisk;
  readonly #structured: boolean;
  readonly #requests = new Allowance(MAX_REQUESTS, MAX_PAYLOAD);
  readonly #lent = new Allowance(Number.MAX_SAFE_INTEGER, MAX_LENT);
  #stopping = false;
  #receiving = false;

  constructor(reader: StreamReader, sender: Sender, { target, structured }: Agreement) {
    this.#reader = reader;
    this.#sender = sender;
    this.#target = target;
    this.#disk = target.disk;
    this.#structured = structured;
  }

  /** Whether the client announced data that have not arrived. */
  get awaitsPayload(): boolean {
    return this.#receiving && this.#reader.waiting;
  }

  /**
   * Serves until the client disconnects or the stream ends, with requests perhaps still under way. Rejects
   * with ProtocolViolation when the stream cannot be followed any further.
   */
  async run(): Promise<void> {
    const header = nbdRequest.make();
    while (await this.#reader.fill(header.bytes)) {
      const request = decodeRequest(header);
      if (request.type === NBD_CMD_DISC) return;
      await this.#requests.enter(payloadOf(request));
      const refusal = this.#stopping ? SHUTTING_DOWN : refusalOf(request, this.#target, this.#structured);
      if (request.type === NBD_CMD_WRITE) await this.#receive(request, refusal);
      else if (refusal) this.#refuse(request, refusal);
      else void this.#serve(request);
    }
  }

  /** From now on, requests are answered with ESHUTDOWN. */
  stop(): void {
    this.#stopping = true;
  }

  /** Resolves when no request is under way: all replies have left, all buffers are returned. */
  idle(): Promise<void> {
    return this.#requests.idle();
  }

  /** Takes the payload of a write from the stream; after that the write goes on by itself. */
  async #receive(request: Request, refusal: Refusal | undefined): Promise<void> {
    const writes: Promise<unknown>[] = [];
    this.#receiving = true;
    try {
      if (refusal) await this.#skip(request.length);
      else
        for (const piece of this.#disk.pieces(request.offset, request.length))
          writes.push((await this.#receivePiece(piece)).written);
    } catch (error) {
      await Promise.all(writes);
      this.#requests.leave(payloadOf(request));
      throw error;
    } finally {
      this.#receiving = false;
    }
    if (refusal) this.#refuse(request, refusal);
    else void this.#conclude(request, writes);
  }

  /** Takes one piece of a payload and begins to write it; `written` resolves to the outcome. */
  async #receivePiece(piece: Piece): Promise<{ written: Promise<unknown> }> {
    const buffer = await this.#borrow(piece);
    if (buffer instanceof DiskError) {
      await this.#skip(piece.length);
      return { written: Promise.resolve(buffer) };
    }
    try {
      await payload(this.#reader.fill(dataOf(piece, buffer)));
    } catch (error) {
      this.#giveBack(piece, buffer);
      throw error;
    }
    const written = outcomeOf(this.#disk.write(piece, buffer));
    return { written: written.finally(() => this.#giveBack(piece, buffer)) };
  }

  async #skip(length: number): Promise<void> {
    if (length > MAX_SKIPPED)
      throw new ProtocolViolation(
        'NBD "Size constraints"',
        `a write of ${length} bytes, expected at most ${NBD_MAX_PAYLOAD}`,
      );
    await payload(this.#reader.skip(length));
  }

  /** Every command but a write. */
  #serve(request: Request): Promise<void> {
    const { type, flags, offset, length } = request;
    if (type === NBD_CMD_READ) return this.#read(request);
    if (type === NBD_CMD_FLUSH) return this.#conclude(request, [outcomeOf(this.#disk.disk.flush())]);
    if (type === NBD_CMD_TRIM)
      return this.#conclude(request, [outcomeOf(this.#disk.discard(offset, length))]);
    const mayUnmap = !(flags & NBD_CMD_FLAG_NO_HOLE);
    return this.#conclude(request, [outcomeOf(this.#disk.writeZeroes(offset, length, mayUnmap))]);
  }

  /** Answers when everything that a request started has ended, with FUA after a flush. */
  async #conclude(request: Request, work: readonly Promise<unknown>[]): Promise<void> {
    let failure = failureIn(await Promise.all(work));
    if (!failure && request.flags & NBD_CMD_FLAG_FUA && changesData(request.type))
      failure = failureIn([await outcomeOf(this.#disk.disk.flush())]);
    this.#answer(request, failure);
  }

  #read(request: Request): Promise<void> {
    const pieces = this.#disk.pieces(request.offset, request.length);
    if (pieces.length === 1) return this.#readPiece(request, pieces[0]);
    return this.#structured ? this.#readChunks(request, pieces) : this.#readGathered(request, pieces);
  }

  /** The usual read: from guest memory to the socket without a copy. */
  async #readPiece(request: Request, piece: Piece): Promise<void> {
    const buffer = await this.#load(piece);
    if (buffer instanceof DiskError) return this.#answer(request, buffer);
    const header = this.#structured ? dataChunk(request, piece, true) : simpleReply(request, 0);
    this.#sender.send(header, dataOf(piece, buffer), () => {
      this.#giveBack(piece, buffer);
      this.#requests.leave(payloadOf(request));
    });
  }

  /** A long read: each piece leaves as a chunk of its own as soon as it is there. */
  async #readChunks(request: Request, pieces: readonly Piece[]): Promise<void> {
    const chunks = pieces.map(async (piece) => {
      const buffer = await this.#load(piece);
      if (buffer instanceof DiskError) return buffer;
      return this.#sender.send(dataChunk(request, piece, false), dataOf(piece, buffer), () =>
        this.#giveBack(piece, buffer),
      );
    });
    this.#answer(request, failureIn(await Promise.all(chunks)));
  }

  /**
   * A long read for a simple reply, which says at its start whether everything went well. It is gathered
   * in memory of our own: the guest may have less for its buffers than one request is long.
   */
  async #readGathered(request: Request, pieces: readonly Piece[]): Promise<void> {
    const data = Buffer.allocUnsafeSlow(request.length);
    const parts = pieces.map(async (piece) => {
      const buffer = await this.#load(piece);
      if (buffer instanceof DiskError) return buffer;
      data.set(dataOf(piece, buffer), piece.offset - request.offset);
      return this.#giveBack(piece, buffer);
    });
    const failure = failureIn(await Promise.all(parts));
    if (failure || pieces.length === 0) return this.#answer(request, failure);
    this.#sender.send(simpleReply(request, 0));
    // In parts, so that a slow client is seen to take them.
    for (const { offset, length } of pieces) {
      const end = offset - request.offset + length;
      const sent = end === data.length ? () => this.#requests.leave(payloadOf(request)) : undefined;
      this.#sender.send(data.subarray(end - length, end), undefined, sent);
    }
  }

  /** A buffer with the data of `piece`, or why there is none. */
  async #load(piece: Piece): Promise<GuestBuffer | DiskError> {
    const buffer = await this.#borrow(piece);
    if (buffer instanceof DiskError) return buffer;
    const failure = await outcomeOf(this.#disk.read(piece, buffer));
    if (!(failure instanceof DiskError)) return buffer;
    this.#giveBack(piece, buffer);
    return failure;
  }

  /** Guest memory for `piece`, when it is this client's turn, or why there is none. */
  async #borrow(piece: Piece): Promise<GuestBuffer | DiskError> {
    await this.#lent.enter(piece.length);
    const buffer = await outcomeOf(this.#disk.buffer(piece));
    if (buffer instanceof DiskError) this.#lent.leave(piece.length);
    return buffer;
  }

  #giveBack(piece: Piece, buffer: GuestBuffer): void {
    buffer.release();
    this.#lent.leave(piece.length);
  }

  #answer(request: Request, failure: DiskError | undefined): void {
    const needsChunk = this.#structured && request.type === NBD_CMD_READ;
    if (failure) this.#refuse(request, refusalFor(failure));
    else this.#finish(request, needsChunk ? endChunk(request) : simpleReply(request, 0));
  }

  #refuse(request: Request, refusal: Refusal): void {
    this.#finish(
      request,
      this.#structured ? errorChunk(request, refusal) : simpleReply(request, refusal.error),
    );
  }

  #finish(request: Request, reply: Uint8Array): void {
    this.#sender.send(reply, undefined, () => this.#requests.leave(payloadOf(request)));
  }
}

/** Bytes that a request moves over the connection. */
function payloadOf({ type, length }: Request): number {
  return type === NBD_CMD_READ || type === NBD_CMD_WRITE ? length : 0;
}

async function payload(taken: Promise<boolean>): Promise<void> {
  if (!(await taken)) throw new ProtocolViolation('NBD "Request message"', 'the stream ended in a write');
}
