// What a console's port is attached to, where that is a stream of bytes: a descriptor that comes and goes, or two.
// Runs in the thread that serves the device, which sleeps in epoll; nothing here waits. Implements
// devices/console-endpoint.ts; after console-socket.ts and console-pty.ts, before watches.ts.
//
// Memory is bounded (case D9): so much of the guest's output waits for whoever reads it. Beyond that the guest waits;
// but where nobody is there, what a console says last is kept for the next one who comes, and the guest goes on.

import type { ConsoleSize } from '../../abi/virtio-console.ts';
import { assert } from '../../errors.ts';
import { ByteRing } from '../../devices/byte-ring.ts';
import type { ConsoleEndpoint, ConsoleLine } from '../../devices/console-endpoint.ts';
import type { Arena, Scratch } from './arena.ts';
import { EPOLLIN, EPOLLOUT } from './epoll.ts';
import type { Libc } from './libc.ts';
import { HANGUP, type Watch, type Watches } from './watches.ts';

/** Bytes of the guest that wait for a reader, at most. */
export const CONSOLE_OUTPUT = 64 * 1024;
/** Bytes of one read or write. */
const PIECE = 4096;
const TIOCGWINSZ = 0x5413;
/** struct winsize: rows, columns, and two fields that nobody fills. */
const WINSIZE = 8;
const EINTR = 4;
const EAGAIN = 11;

/** What the thread has that serves a console. */
export interface ConsoleThread {
  readonly libc: Libc;
  readonly arena: Arena;
  readonly watches: Watches;
}

/** How a stream behaves. */
export interface ConsoleStreamOptions {
  /**
   * Whether the port is a console, whose guest speaks whether or not somebody listens: a Linux guest stands still
   * until its console takes what it says. Other ports are told when nobody is there, and wait.
   */
  readonly isConsole: boolean;
  /** Called when the other end has gone, after the descriptors were let go of: they can be closed. */
  readonly onGone: () => void;
}

/** Descriptors, which may be the same one. */
interface Ends {
  readonly input: number;
  readonly output: number;
  readonly inputWatch: Watch;
  readonly outputWatch: Watch;
  /** Nothing more comes. */
  ended: boolean;
}

/** A stream, with somebody at its other end or nobody. */
export class ConsoleStream implements ConsoleEndpoint {
  /** Bytes of the guest that nobody has read and that are lost. */
  dropped = 0;
  readonly #thread: ConsoleThread;
  readonly #options: ConsoleStreamOptions;
  readonly #output = new ByteRing(CONSOLE_OUTPUT);
  readonly #writing: Scratch;
  /** What was read, and which bytes of it the guest has not taken. */
  readonly #reading: Scratch;
  #first = 0;
  #end = 0;
  readonly #winsize: Scratch;
  #size: ConsoleSize | undefined;
  #line: ConsoleLine | undefined;
  #ends: Ends | undefined;

  constructor(thread: ConsoleThread, options: ConsoleStreamOptions) {
    this.#thread = thread;
    this.#options = options;
    this.#writing = thread.arena.take(PIECE);
    this.#reading = thread.arena.take(PIECE);
    this.#winsize = thread.arena.take(WINSIZE);
  }

  /** Whether somebody is at the other end. */
  get attached(): boolean {
    return this.#ends !== undefined;
  }

  connect(line: ConsoleLine): void {
    this.#line = line;
    this.#sayOpen();
    this.checkSize();
  }

  /** Somebody is there: reads `input` and writes `output`, neither of which blocks, until `detach`. */
  attach(input: number, output: number): void {
    assert(this.#ends === undefined, 'one at a time is attached to a console');
    const { watches } = this.#thread;
    const inputWatch = watches.open(input, () => this.#ready());
    const outputWatch = input === output ? inputWatch : watches.open(output, () => this.#flush());
    this.#ends = { input, output, inputWatch, outputWatch, ended: false };
    this.#sayOpen();
    this.checkSize();
    this.#flush();
  }

  /** Lets go of the descriptors. What the guest has written is kept for whoever comes next. */
  detach(): void {
    if (this.#ends === undefined) return;
    this.#ends.inputWatch.end();
    this.#ends.outputWatch.end();
    this.#ends = undefined;
    this.#sayOpen();
    // The guest waited for the one who has gone.
    if (this.#options.isConsole) this.#line?.resume();
  }

  /** Ends its use. */
  close(): void {
    this.#line = undefined;
    this.detach();
    for (const piece of [this.#writing, this.#reading, this.#winsize]) this.#thread.arena.giveBack(piece);
  }

  /** Tells the guest the size of the terminal, where there is one and its size is another. */
  checkSize(): void {
    if (this.#ends === undefined || this.#line === undefined) return;
    const { view, address } = this.#winsize;
    if (this.#thread.libc.ioctl(this.#ends.output, TIOCGWINSZ, address) < 0) return;
    const [rows, columns] = [view.getUint16(0, true), view.getUint16(2, true)];
    const isKnown = rows > 0 && columns > 0;
    if (!isKnown || (this.#size?.columns === columns && this.#size.rows === rows)) return;
    this.#size = { columns, rows };
    this.#line.resize(this.#size);
  }

  take(bytes: Uint8Array): number {
    if (this.#ends === undefined) return this.#options.isConsole ? this.#keepLatest(bytes) : 0;
    const wasEmpty = this.#output.length === 0;
    const taken = this.#output.push(bytes);
    if (wasEmpty) this.#flush();
    return taken;
  }

  hasRoom(): void {
    this.#deliver();
    this.#want();
  }

  opened(): void {
    // Whoever is at the other end does not care.
  }

  #keepLatest(bytes: Uint8Array): number {
    const excess = Math.max(0, this.#output.length + bytes.length - CONSOLE_OUTPUT);
    this.#output.drop(excess);
    this.dropped += excess;
    return this.#output.push(bytes);
  }

  #sayOpen(): void {
    if (!this.#options.isConsole) this.#line?.setOpen(this.attached);
  }

  /** The descriptor can be read, written where it is the only one, or its other end has gone. */
  #ready(): void {
    const ends = this.#ends;
    if (ends === undefined) return;
    const isOne = ends.input === ends.output;
    // After its end, nothing but the hangup was waited for.
    if (ends.ended && isOne && this.#output.length === 0) this.#gone();
    else {
      if (!ends.ended && this.#first === this.#end) this.#read(ends);
      if (isOne) this.#flush();
    }
  }

  #read(ends: Ends): void {
    const { libc } = this.#thread;
    const length = libc.read(ends.input, this.#reading.address, PIECE);
    if (length > 0) {
      [this.#first, this.#end] = [0, length];
      this.checkSize();
      this.#deliver();
    } else if (length === 0) ends.ended = true;
    else if (!isPassing(libc.errno())) {
      this.#gone();
      return;
    }
    this.#want();
  }

  /** What the guest does not take now waits until it has room; nothing more is read meanwhile. */
  #deliver(): void {
    if (this.#first === this.#end || this.#line === undefined) return;
    this.#first += this.#line.send(this.#reading.u8.subarray(this.#first, this.#end));
  }

  /** Writes what waits, as far as the other end takes it. */
  #flush(): void {
    const wasFull = this.#output.full;
    while (this.#ends !== undefined && this.#output.length > 0) {
      const piece = this.#output.peek(0, PIECE);
      this.#writing.u8.set(piece);
      const { libc } = this.#thread;
      const length = libc.write(this.#ends.output, this.#writing.address, piece.length);
      if (length > 0) this.#output.drop(length);
      else if (isPassing(libc.errno())) break;
      else this.#gone();
    }
    this.#want();
    if (wasFull && !this.#output.full) this.#line?.resume();
  }

  #want(): void {
    const ends = this.#ends;
    if (ends === undefined) return;
    const isReading = !ends.ended && this.#first === this.#end;
    const read = isReading ? EPOLLIN : 0;
    const write = this.#output.length > 0 ? EPOLLOUT : 0;
    if (ends.input !== ends.output) {
      ends.inputWatch.want(read);
      ends.outputWatch.want(write);
    } else ends.inputWatch.want(read | write || (ends.ended ? HANGUP : 0));
  }

  #gone(): void {
    this.detach();
    this.#options.onGone();
  }
}

/** Whether to try again when the descriptor is ready. */
function isPassing(errno: number): boolean {
  return errno === EAGAIN || errno === EINTR;
}
