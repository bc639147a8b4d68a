// One thread's io_uring: work is put into a ring in memory, handed to the kernel in batches, and its results are found
// in another ring without a system call. After libc.ts and abi/io-uring.ts, before uring-image.ts.
//
// Rings are driven by the thread that made them (SINGLE_ISSUER). The kernel does not interrupt it to finish work
// (COOP_TASKRUN): it does so when the thread enters the kernel anyway, or is asked to, which a flag says. Nor is it put
// off until somebody waits (DEFER_TASKRUN), for then a thread that sleeps in epoll is never woken.

import * as uring from '../../abi/io-uring.ts';
import { assert } from '../../errors.ts';
import type { Segments } from '../../memory/segments.ts';
import type { Arena, Scratch } from './arena.ts';
import { Eventfds, newEventfd } from './epoll.ts';
import { checked, type Libc, SystemError } from './libc.ts';
import { MOST_VECTORS, putVectors, VECTOR_SIZE } from './transfer-scratch.ts';

const PROT_READ_WRITE = 3;
const MAP_SHARED_POPULATE = 0x8001;
const EINTR = 4;
const EAGAIN = 11;
const EBUSY = 16;
const EINVAL = 22;
const HIGH = 2 ** 32;

/** Entries of the ring of work; what does not fit goes to the kernel at once. */
const ENTRIES = 256;
/** Results are far more than that, because what is under way is not in the ring of work any more. */
const RESULTS = 4096;
/** Pieces of memory of the work that has not gone to the kernel. */
const VECTORS = 4 * MOST_VECTORS;
const SQE_WORDS = uring.ioUringSqe.size / 4;
const CQE_WORDS = uring.ioUringCqe.size / 4;

const BEST =
  uring.IORING_SETUP_SUBMIT_ALL |
  uring.IORING_SETUP_COOP_TASKRUN |
  uring.IORING_SETUP_TASKRUN_FLAG |
  uring.IORING_SETUP_SINGLE_ISSUER;
const SIZES = uring.IORING_SETUP_CQSIZE | uring.IORING_SETUP_CLAMP;
/** Linux 5.6: one mapping, no result lost, vectors copied at once, reading and writing without vectors. */
const NEEDED =
  uring.IORING_FEAT_SINGLE_MMAP |
  uring.IORING_FEAT_NODROP |
  uring.IORING_FEAT_SUBMIT_STABLE |
  uring.IORING_FEAT_RW_CUR_POS;

/** This machine has no io_uring that could be used. `message` says why, in a sentence. */
export class IoUringUnavailable extends Error {
  constructor(reason: string, cause?: unknown) {
    super(`io_uring cannot be used: ${reason}`, { cause });
    this.name = 'IoUringUnavailable';
  }
}

/** Something that the kernel does meanwhile. */
export interface UringOperation {
  /** It has ended: with how much was moved, or a negative error number. May begin the next. */
  completed(result: number): void;
}

/** Where the parts of both rings are, in words. */
type RingPlaces = Readonly<
  Record<'sqHead' | 'sqTail' | 'sqFlags' | 'cqHead' | 'cqTail' | 'cqFlags' | 'cqes', number>
>;

type Params = ReturnType<typeof uring.ioUringParams.over>;

/** A pair of rings. */
export class IoUring {
  /** Can be read when something has ended, if `arm` was called before. */
  readonly wakeFd: number;
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #eventfds: Eventfds;
  readonly #maps: { readonly address: number; readonly length: number }[] = [];
  /** Both rings. */
  readonly #ring: Uint32Array;
  readonly #sqes: Uint32Array;
  readonly #at: RingPlaces;
  readonly #sqMask: number;
  readonly #cqMask: number;
  readonly #vectors: Scratch;
  readonly #vectorWords: Uint32Array;
  #vectorsUsed = 0;
  /** Free-running u32: the next entry to fill, and the first that the kernel has not been told of. */
  #tail = 0;
  #told = 0;
  #cqHead = 0;
  /** What is under way, by the number that the kernel gives back. */
  readonly #operations: (UringOperation | undefined)[] = [];
  readonly #free: number[] = [];
  #inFlight = 0;
  #armed = false;

  /** Throws IoUringUnavailable where the kernel has none, or forbids it. */
  constructor(libc: Libc, arena: Arena) {
    const { fd, params } = setUp(libc, arena);
    this.#libc = libc;
    this.#fd = fd;
    this.wakeFd = newEventfd(libc);
    this.#eventfds = new Eventfds(libc, arena);
    this.#at = {
      sqHead: params.sq_off_head / 4,
      sqTail: params.sq_off_tail / 4,
      sqFlags: params.sq_off_flags / 4,
      cqHead: params.cq_off_head / 4,
      cqTail: params.cq_off_tail / 4,
      cqFlags: params.cq_off_flags / 4,
      cqes: params.cq_off_cqes / 4,
    };
    this.#sqMask = params.sq_entries - 1;
    this.#cqMask = params.cq_entries - 1;
    const sqEnd = params.sq_off_array + params.sq_entries * 4;
    const cqEnd = params.cq_off_cqes + params.cq_entries * uring.ioUringCqe.size;
    this.#ring = this.#map(uring.IORING_OFF_SQ_RING, Math.max(sqEnd, cqEnd));
    this.#sqes = this.#map(uring.IORING_OFF_SQES, params.sq_entries * uring.ioUringSqe.size);
    for (let i = 0; i < params.sq_entries; i++) this.#ring[params.sq_off_array / 4 + i] = i;
    this.#vectors = arena.take(VECTORS * VECTOR_SIZE);
    const { buffer, byteOffset, byteLength } = this.#vectors.u8;
    this.#vectorWords = new Uint32Array(buffer, byteOffset, byteLength / 4);
    this.#registerWake(arena);
    this.#wakes(false);
  }

  /** Operations that were begun and have not ended. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Whether something was begun that the kernel has not been told of: `submit` does that. */
  get unsubmitted(): boolean {
    return this.#told !== this.#tail;
  }

  /**
   * Begins to read or write: bytes of `segments` from `skip` on, at `offset` of `fd`. Pieces beyond the first 1024 are
   * left out, so that less is moved. Segments and memory stay as they are until it has ended.
   */
  move(
    operation: UringOperation,
    isWrite: boolean,
    fd: number,
    offset: number,
    segments: Segments,
    skip: number,
  ): void {
    this.#makeRoom(MOST_VECTORS);
    const words = this.#vectorWords;
    const first = this.#vectorsUsed * (VECTOR_SIZE / 4);
    const count = putVectors(words, first, MOST_VECTORS, segments, skip);
    const isOne = count === 1;
    const one = isWrite ? uring.IORING_OP_WRITE : uring.IORING_OP_READ;
    const many = isWrite ? uring.IORING_OP_WRITEV : uring.IORING_OP_READV;
    const at = this.#entry(operation, isOne ? one : many, fd, offset);
    const sqes = this.#sqes;
    if (isOne) {
      sqes[at + 4] = words[first];
      sqes[at + 5] = words[first + 1];
      sqes[at + 6] = words[first + 2];
      return;
    }
    const address = this.#vectors.address + first * 4;
    sqes[at + 4] = address;
    sqes[at + 5] = address / HIGH;
    sqes[at + 6] = count;
    this.#vectorsUsed += count;
  }

  /** Begins fdatasync(2). */
  sync(operation: UringOperation, fd: number): void {
    this.#makeRoom(0);
    const at = this.#entry(operation, uring.IORING_OP_FSYNC, fd, 0);
    this.#sqes[at + 7] = uring.IORING_FSYNC_DATASYNC;
  }

  /** Begins fallocate(2). */
  allocate(operation: UringOperation, fd: number, mode: number, offset: number, length: number): void {
    this.#makeRoom(0);
    const at = this.#entry(operation, uring.IORING_OP_FALLOCATE, fd, offset);
    this.#sqes[at + 4] = length;
    this.#sqes[at + 5] = length / HIGH;
    this.#sqes[at + 6] = mode;
  }

  /** Hands what was begun to the kernel, in one call. What the kernel has no room for stays for the next time. */
  submit(): void {
    const count = (this.#tail - this.#told) >>> 0;
    if (count > 0) this.#enter(count, 0, 0);
  }

  /**
   * Tells operations that have ended so, without a system call unless the kernel asks for one.
   *
   * @returns how many those were
   */
  reap(): number {
    if (this.#armed) {
      this.#wakes(false);
      this.#eventfds.clear(this.wakeFd);
    }
    if (this.#kernelHasMore) this.#enter(0, 0, uring.IORING_ENTER_GETEVENTS);
    let count = 0;
    // Those that are begun meanwhile wait for the next time.
    for (const most = this.#inFlight; count < most && this.#hasResult; count++) this.#takeResult();
    if (count > 0) Atomics.store(this.#ring, this.#at.cqHead, this.#cqHead);
    return count;
  }

  /** Waits until something has ended, if anything is under way, and tells it so. */
  wait(): void {
    if (this.#inFlight === 0) return;
    const count = (this.#tail - this.#told) >>> 0;
    if (!this.#hasResult) this.#enter(count, 1, uring.IORING_ENTER_GETEVENTS);
    this.reap();
  }

  /**
   * Before the thread sleeps: submits, and has `wakeFd` told when something ends. Returns true when something has ended
   * already: reap, and do not sleep.
   */
  arm(): boolean {
    this.submit();
    this.#wakes(true);
    return this.#hasResult || this.#kernelHasMore;
  }

  /** Nothing may be under way. */
  close(): void {
    assert(this.#inFlight === 0, 'a ring is closed when nothing is under way', this.#inFlight);
    for (const { address, length } of this.#maps) this.#libc.munmap(address, length);
    this.#libc.close(this.#fd);
    this.#libc.close(this.wakeFd);
  }

  get #hasResult(): boolean {
    return Atomics.load(this.#ring, this.#at.cqTail) !== this.#cqHead;
  }

  /** Whether results wait in the kernel until this thread enters it. */
  get #kernelHasMore(): boolean {
    const flags = Atomics.load(this.#ring, this.#at.sqFlags);
    return (flags & (uring.IORING_SQ_TASKRUN | uring.IORING_SQ_CQ_OVERFLOW)) !== 0;
  }

  #map(offset: number, length: number): Uint32Array {
    const address = this.#libc.mmap(0, length, PROT_READ_WRITE, MAP_SHARED_POPULATE, this.#fd, offset);
    this.#maps.push({ address: checked(this.#libc, 'mmap', address, 'the rings of io_uring'), length });
    return new Uint32Array(this.#libc.view(address, length & ~3));
  }

  #registerWake(arena: Arena): void {
    const place = arena.take(4);
    place.view.setInt32(0, this.wakeFd, true);
    const { syscall } = this.#libc;
    const command = uring.IORING_REGISTER_EVENTFD;
    const result = syscall(uring.NR_IO_URING_REGISTER, this.#fd, command, place.address, 1, 0, 0);
    checked(this.#libc, 'io_uring_register', result, 'an eventfd of io_uring');
    arena.giveBack(place);
  }

  /** Whether the kernel writes to `wakeFd`. Kernels before 5.8 always do, which wakes more often. */
  #wakes(wakes: boolean): void {
    this.#armed = wakes;
    if (this.#at.cqFlags === 0) return;
    Atomics.store(this.#ring, this.#at.cqFlags, wakes ? 0 : uring.IORING_CQ_EVENTFD_DISABLED);
  }

  /** Takes an entry of the ring of work and fills what all have in common. Returns its first word. */
  #entry(operation: UringOperation, opcode: number, fd: number, offset: number): number {
    const slot = this.#free.pop() ?? this.#operations.length;
    this.#operations[slot] = operation;
    this.#inFlight++;
    const at = (this.#tail & this.#sqMask) * SQE_WORDS;
    this.#tail = (this.#tail + 1) >>> 0;
    const sqes = this.#sqes;
    sqes[at] = opcode;
    sqes[at + 1] = fd;
    sqes[at + 2] = offset;
    sqes[at + 3] = offset / HIGH;
    // What the last operation left here would be refused, or do something else.
    sqes[at + 4] = 0;
    sqes[at + 5] = 0;
    sqes[at + 6] = 0;
    sqes[at + 7] = 0;
    sqes[at + 8] = slot;
    sqes[at + 9] = 0;
    // The words from here on stay zero: they are for operations that nobody asks for.
    return at;
  }

  /** Makes room for one more, by telling the kernel, and for what the kernel has no memory by waiting. May end others. */
  #makeRoom(vectors: number): void {
    while ((this.#tail - this.#told) >>> 0 > this.#sqMask || this.#vectorsUsed + vectors > VECTORS) {
      this.submit();
      if (this.unsubmitted) this.wait();
    }
  }

  #enter(count: number, least: number, flags: number): void {
    Atomics.store(this.#ring, this.#at.sqTail, this.#tail);
    const { syscall } = this.#libc;
    const taken = syscall(uring.NR_IO_URING_ENTER, this.#fd, count, least, flags, 0, 0);
    if (taken < 0) {
      const errno = this.#libc.errno();
      const isBusy = errno === EINTR || errno === EAGAIN || errno === EBUSY;
      if (!isBusy) throw new SystemError('io_uring_enter', errno, 'work for the kernel');
    }
    this.#told = Atomics.load(this.#ring, this.#at.sqHead);
    if (this.#told === this.#tail) this.#vectorsUsed = 0;
  }

  #takeResult(): void {
    const at = this.#at.cqes + (this.#cqHead & this.#cqMask) * CQE_WORDS;
    const slot = this.#ring[at];
    const result = this.#ring[at + 2] | 0;
    this.#cqHead = (this.#cqHead + 1) >>> 0;
    const operation = this.#operations[slot];
    assert(operation !== undefined, 'the kernel ends what is under way', slot);
    this.#operations[slot] = undefined;
    this.#free.push(slot);
    this.#inFlight--;
    operation.completed(result);
  }
}

/** Makes the rings, with all that this kernel knows of what we would like. */
function setUp(libc: Libc, arena: Arena): { fd: number; params: Params } {
  const place = arena.take(uring.ioUringParams.size);
  const params = uring.ioUringParams.over(place.u8);
  const attempt = (flags: number): number => {
    place.u8.fill(0);
    params.flags = flags;
    params.cq_entries = RESULTS;
    return libc.syscall(uring.NR_IO_URING_SETUP, ENTRIES, place.address, 0, 0, 0, 0);
  };
  let fd = attempt(BEST | SIZES);
  if (fd < 0 && libc.errno() === EINVAL) fd = attempt(SIZES);
  if (fd < 0) throw whyUnavailable(libc.errno());
  if ((params.features & NEEDED) === NEEDED) return { fd, params };
  libc.close(fd);
  throw new IoUringUnavailable('this kernel is too old, expected Linux 5.6 or later');
}

function whyUnavailable(errno: number): IoUringUnavailable {
  const cause = new SystemError('io_uring_setup', errno, 'io_uring');
  if (cause.code === 'ENOSYS') return new IoUringUnavailable('this kernel has none', cause);
  if (cause.code === 'EPERM' || cause.code === 'EACCES')
    return new IoUringUnavailable(
      'this system forbids it (kernel.io_uring_disabled, or the filter of a container)',
      cause,
    );
  return new IoUringUnavailable(cause.message, cause);
}
