// A console's port at a pseudo terminal, to which a terminal program attaches by a link to it: `screen ./console`.
// Before console-stream.ts.
//
// Whether a program has the terminal open is known from reading it, which fails with EIO when none has, and nobody is
// told when one opens it again: inotify is. So the terminal is watched while it is open, and inotify all the time.

import { closeSync, constants, lstatSync, openSync, readlinkSync, symlinkSync, unlinkSync } from 'node:fs';
import type { ConsoleEndpoint } from '../../devices/console-endpoint.ts';
import type { Arena } from './arena.ts';
import { ConsoleStream, type ConsoleThread } from './console-stream.ts';
import { EPOLLIN } from './epoll.ts';
import { checked, type Libc } from './libc.ts';
import type { Watch } from './watches.ts';

/** Where the kernel puts pseudo terminals. */
const TERMINALS = '/dev/pts/';
const TIOCGPTN = 0x80045430;
const TIOCSPTLCK = 0x40045431;
const TCGETS = 0x5401;
const TCSETS = 0x5402;
/** The kernel's struct termios: four words of flags, the line discipline and 19 control characters. */
const TERMIOS = 36;
const INPUT_FLAGS = 0;
const OUTPUT_FLAGS = 4;
const LOCAL_FLAGS = 12;
const IN_CLOEXEC_NONBLOCK = 0x80800;
const IN_OPEN = 0x20;
/** Events without a name of a file are so long; many are read at once. */
const INOTIFY_BYTES = 1024;

/** A pseudo terminal. */
export interface Pty {
  /** Descriptor of our side, which does not block. */
  readonly fd: number;
  /** Where programs find the other side. */
  readonly path: string;
}

/**
 * Makes a pseudo terminal that changes no byte and echoes none. Throws SystemError, or what `openSync` throws. Its
 * descriptor is the caller's to close.
 */
export function openPty(libc: Libc, arena: Arena): Pty {
  const { O_RDWR, O_NOCTTY, O_NONBLOCK } = constants;
  const fd = openSync('/dev/ptmx', O_RDWR | O_NOCTTY | O_NONBLOCK);
  try {
    const path = prepare(libc, arena, fd);
    // Once opened and closed, reading tells whether it is open.
    closeSync(openSync(path, O_RDWR | O_NOCTTY));
    return { fd, path };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Unlocks the other side and makes it raw; returns its path. */
function prepare(libc: Libc, arena: Arena, fd: number): string {
  const scratch = arena.take(TERMIOS);
  try {
    const { view, address } = scratch;
    const ask = (request: number): void => {
      checked(libc, 'ioctl', libc.ioctl(fd, request, address), 'a pseudo terminal');
    };
    ask(TIOCSPTLCK);
    ask(TIOCGPTN);
    const path = `${TERMINALS}${view.getUint32(0, true)}`;
    ask(TCGETS);
    for (const flags of [INPUT_FLAGS, OUTPUT_FLAGS, LOCAL_FLAGS]) view.setUint32(flags, 0, true);
    ask(TCSETS);
    return path;
  } finally {
    arena.giveBack(scratch);
  }
}

/** Where a link leads; undefined where there is none, null where something else is. */
function targetOf(path: string): string | undefined | null {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return undefined;
  return found.isSymbolicLink() ? readlinkSync(path) : null;
}

/** Removes a link to a terminal, which whoever made it has left there. */
function makeWay(link: string): void {
  const target = targetOf(link);
  if (target === undefined) return;
  if (!target?.startsWith(TERMINALS))
    throw new Error(`console terminal ${link} is there and no link to a terminal; choose another path`);
  unlinkSync(link);
}

function openLinked({ libc, arena }: ConsoleThread, link: string): Pty {
  makeWay(link);
  const pty = openPty(libc, arena);
  try {
    symlinkSync(pty.path, link);
    return pty;
  } catch (error) {
    closeSync(pty.fd);
    throw error;
  }
}

/** A pseudo terminal and the program that has it open. */
export class ConsolePty {
  readonly #thread: ConsoleThread;
  readonly #pty: Pty;
  readonly #link: string;
  readonly #inotify: number;
  readonly #opens: Watch;
  readonly #stream: ConsoleStream;

  /**
   * Makes a pseudo terminal and a link to it.
   *
   * @param link where programs find it, in place of an old link to a terminal
   * @throws SystemError, or Error when something else is there
   */
  constructor(thread: ConsoleThread, link: string, isConsole: boolean) {
    const { libc, watches } = thread;
    const pty = openLinked(thread, link);
    this.#thread = thread;
    this.#pty = pty;
    this.#link = link;
    this.#inotify = checked(libc, 'inotify_init1', libc.inotify_init1(IN_CLOEXEC_NONBLOCK), pty.path);
    const watched = libc.inotify_add_watch(this.#inotify, pty.path, IN_OPEN);
    checked(libc, 'inotify_add_watch', watched, pty.path);
    this.#opens = watches.open(this.#inotify, () => this.#noticeOpen());
    this.#opens.want(EPOLLIN);
    // When it has gone, the next one is waited for.
    this.#stream = new ConsoleStream(thread, { isConsole, onGone: () => undefined });
    // Somebody may have opened it before; if not, that is noticed at once.
    this.#stream.attach(pty.fd, pty.fd);
  }

  get endpoint(): ConsoleEndpoint {
    return this.#stream;
  }

  close(): void {
    this.#opens.end();
    this.#stream.close();
    this.#thread.libc.close(this.#inotify);
    closeSync(this.#pty.fd);
    if (targetOf(this.#link) === this.#pty.path) unlinkSync(this.#link);
  }

  #noticeOpen(): void {
    const { libc, arena } = this.#thread;
    const scratch = arena.take(INOTIFY_BYTES);
    libc.read(this.#inotify, scratch.address, INOTIFY_BYTES);
    arena.giveBack(scratch);
    if (!this.#stream.attached) this.#stream.attach(this.#pty.fd, this.#pty.fd);
    else this.#stream.checkSize();
  }
}
