// A raw image by io_uring: many requests are under way at once, and go to the kernel in one call. For images past the
// page cache (O_DIRECT), where each takes as long as the disk. What direct I/O does not take goes the way of
// vectored-image.ts, at once. After io-uring.ts.

import { assert } from '../../errors.ts';
import type { Segments } from '../../memory/segments.ts';
import type { BlockStore, StoreAnswer, StoreRequest, StoreResult } from '../../storage/block-store.ts';
import type { Image } from '../../storage/image.ts';
import { EFAULT, type HostImageOptions, isInterrupted, resultOfErrno } from './host-image.ts';
import type { IoUring, UringOperation } from './io-uring.ts';
import { PUNCH, ZERO } from './space.ts';
import { type ImageHost, VectoredImage } from './vectored-image.ts';

/** So often work is repeated that was interrupted before it had done anything. */
const MOST_TRIES = 1000;

/** What an image uses of a ring. */
export type ImageRing = Pick<IoUring, 'move' | 'sync' | 'allocate' | 'wait'>;

/** Called with what has come of an operation. */
type Ended<T> = (operation: T, result: number) => void;

/** A read or a write that is under way. */
class Transfer implements UringOperation {
  request!: StoreRequest;
  segments!: Segments;
  offset = 0;
  isWrite = false;
  /** Bytes that have been moved. */
  done = 0;
  tries = 0;
  readonly #ended: Ended<Transfer>;

  constructor(ended: Ended<Transfer>) {
    this.#ended = ended;
  }

  completed(result: number): void {
    this.#ended(this, result);
  }
}

/** A raw image. */
export class UringImage implements BlockStore {
  readonly size: number;
  readonly readOnly: boolean;
  readonly freesZeroes: boolean;
  readonly image: Image;
  readonly #ring: ImageRing;
  readonly #blocking: VectoredImage;
  readonly #idle: Transfer[] = [];
  /** Who is answered by the flush that is under way, if there is one, and who by the next. */
  #flushing: StoreRequest[] = [];
  #waiting: StoreRequest[] = [];
  #underWay = 0;

  /** @throws ImageError when the image cannot be a disk */
  constructor(host: ImageHost, ring: ImageRing, path: string, options: HostImageOptions) {
    this.#blocking = new VectoredImage(host, path, options);
    this.#ring = ring;
    const { size, readOnly, freesZeroes, image } = this.#blocking;
    this.size = size;
    this.readOnly = readOnly;
    this.freesZeroes = freesZeroes;
    this.image = image;
  }

  read(offset: number, into: Segments, request: StoreRequest): StoreAnswer {
    if (!this.#isTaken(offset, into)) return this.#blocking.read(offset, into);
    return this.#begin(offset, into, false, request);
  }

  write(offset: number, from: Segments, request: StoreRequest): StoreAnswer {
    if (this.readOnly) return 'EROFS';
    if (!this.#isTaken(offset, from)) return this.#blocking.write(offset, from);
    return this.#begin(offset, from, true, request);
  }

  /**
   * One at a time, for all that ask meanwhile the next: the kernel reports a lost write to one of those that wait, and
   * with one there is no doubt which.
   */
  flush(request: StoreRequest): StoreAnswer {
    const known = this.image.knownFlush();
    if (known !== undefined) return known;
    this.#waiting.push(request);
    if (this.#flushing.length === 0) this.#beginFlush();
    return 'later';
  }

  discard(offset: number, length: number, request: StoreRequest): StoreAnswer {
    if (this.readOnly) return 'EROFS';
    if (length === 0 || this.#blocking.space.lacks(PUNCH)) return 'ok';
    return this.#allocate([PUNCH], offset, length, request, () => 'ok');
  }

  writeZeroes(offset: number, length: number, mayUnmap: boolean, request: StoreRequest): StoreAnswer {
    if (this.readOnly) return 'EROFS';
    if (length === 0) return 'ok';
    const modes = (mayUnmap ? [PUNCH, ZERO] : [ZERO]).filter((mode) => !this.#blocking.space.lacks(mode));
    if (modes.length === 0) return this.#blocking.putZeroes(offset, length);
    return this.#allocate(modes, offset, length, request, () => this.#blocking.putZeroes(offset, length));
  }

  drain(): void {
    while (this.#underWay > 0) this.#ring.wait();
  }

  /** Flushes at once, when nothing more is asked for: nobody waits for the answers of a ring any more. */
  flushNow(): StoreResult {
    this.drain();
    return this.#blocking.flush();
  }

  close(): void {
    assert(this.#underWay === 0, 'an image is closed when nothing is under way', this.#underWay);
    this.#blocking.close();
  }

  #isTaken(offset: number, segments: Segments): boolean {
    return this.#blocking.takes(offset, segments.byteLength) && this.#blocking.reaches(segments);
  }

  #begin(offset: number, segments: Segments, isWrite: boolean, request: StoreRequest): 'later' {
    const transfer = this.#idle.pop() ?? new Transfer((ended, result) => this.#moved(ended, result));
    transfer.request = request;
    transfer.segments = segments;
    transfer.offset = offset;
    transfer.isWrite = isWrite;
    transfer.done = 0;
    transfer.tries = 0;
    this.#underWay++;
    this.#goOn(transfer);
    return 'later';
  }

  #goOn(transfer: Transfer): void {
    const { isWrite, offset, segments, done } = transfer;
    this.#ring.move(transfer, isWrite, this.image.fd, offset + done, segments, done);
  }

  #moved(transfer: Transfer, result: number): void {
    if (result > 0) {
      transfer.done += result;
      transfer.tries = 0;
      if (transfer.done === transfer.segments.byteLength) this.#endTransfer(transfer, 'ok');
      else this.#goOn(transfer);
    } else if (result === 0) this.#endTransfer(transfer, transfer.isWrite ? 'EIO' : this.image.ended());
    else if (isInterrupted(-result) && ++transfer.tries < MOST_TRIES) this.#goOn(transfer);
    else if (-result === EFAULT) this.#endTransfer(transfer, this.#moveAtOnce(transfer));
    else this.#endTransfer(transfer, resultOfErrno(-result));
  }

  /** From the beginning, by whoever knows what to do about memory that the kernel cannot use. */
  #moveAtOnce({ isWrite, offset, segments }: Transfer): StoreResult {
    return isWrite ? this.#blocking.write(offset, segments) : this.#blocking.read(offset, segments);
  }

  #endTransfer(transfer: Transfer, result: StoreResult): void {
    this.#underWay--;
    this.#idle.push(transfer);
    transfer.request.finish(result);
  }

  #beginFlush(): void {
    [this.#flushing, this.#waiting] = [this.#waiting, []];
    this.#underWay++;
    let tries = 0;
    const operation = {
      completed: (result: number) => {
        if (result < 0 && isInterrupted(-result) && ++tries < MOST_TRIES)
          this.#ring.sync(operation, this.image.fd);
        else this.#endFlush(this.image.flushed(result < 0 ? resultOfErrno(-result) : 'ok'));
      },
    };
    this.#ring.sync(operation, this.image.fd);
  }

  #endFlush(result: StoreResult): void {
    const answered = this.#flushing;
    this.#flushing = [];
    this.#underWay--;
    for (const request of answered) request.finish(result);
    if (this.#waiting.length === 0 || this.#flushing.length > 0) return;
    const known = this.image.knownFlush();
    if (known === undefined) this.#beginFlush();
    else for (const request of this.#waiting.splice(0)) request.finish(known);
  }

  /** Tries one way after the other to have a range freed or zeroed; `otherwise`, when the host knows none of them. */
  #allocate(
    modes: readonly number[],
    offset: number,
    length: number,
    request: StoreRequest,
    otherwise: () => StoreResult,
  ): 'later' {
    const [mode, ...others] = modes;
    const { fd } = this.image;
    let tries = 0;
    const end = (result: StoreResult): void => {
      this.#underWay--;
      request.finish(result);
    };
    const operation = {
      completed: (result: number) => {
        if (result >= 0) end('ok');
        else if (isInterrupted(-result) && ++tries < MOST_TRIES)
          this.#ring.allocate(operation, fd, mode, offset, length);
        else if (!this.#blocking.space.isRefused(mode, -result)) end(resultOfErrno(-result));
        else if (others.length === 0) end(otherwise());
        else {
          this.#underWay--;
          this.#allocate(others, offset, length, request, otherwise);
        }
      },
    };
    this.#underWay++;
    this.#ring.allocate(operation, fd, mode, offset, length);
    return 'later';
  }
}
