// Ringing eventfds that belong to a peer. Writing to one waits when its count is full, unless its description says
// otherwise; and both the count and the description are shared with the peer, who can fill the one and change the other
// at any moment. What the kernel itself adds, when an asynchronous write (aio_abi.h) has ended, never waits: so each
// ring is a write of nothing to /dev/null that ends by ringing. It costs about a microsecond more than write(2).

import type { Arena, Scratch } from './arena.ts';
import { checked, type Libc, SystemError } from './libc.ts';

/** Numbers of the system calls: those of x86-64, and those of all newer machines. */
const [IO_SETUP, IO_DESTROY, IO_SUBMIT] = process.arch === 'x64' ? [206, 207, 209] : [0, 1, 2];
const O_WRONLY_CLOEXEC = 0x80001;
/** struct iocb of linux/aio_abi.h. */
const IOCB_SIZE = 64;
const OPCODE = 16;
const FILE = 20;
const FLAGS = 56;
const RESULT_FD = 60;
const IOCB_CMD_PWRITE = 1;
const IOCB_FLAG_RESFD = 1;
/** struct aio_ring, which the kernel maps: 32-bit words with the first completion and the one behind the last. */
const RING_HEADER = 32;
const HEAD = 2;
const TAIL = 3;
/** Completions for which the kernel is to have room. */
const ROOM = 8;

/** Rings eventfds of peers from one thread. */
export class PeerEventfds {
  readonly #libc: Libc;
  readonly #context: number;
  readonly #completions: Uint32Array;
  readonly #null: number;
  readonly #request: Scratch;
  /** A list of one request. */
  readonly #list: Scratch;

  /** Throws SystemError where the kernel has no asynchronous writes, or no descriptor is left; nothing is open then. */
  constructor(libc: Libc, arena: Arena) {
    this.#libc = libc;
    this.#list = arena.take(8);
    this.#request = arena.take(IOCB_SIZE);
    this.#null = checked(libc, 'open', libc.open('/dev/null', O_WRONLY_CLOEXEC, 0), 'waking peers');
    const made = libc.syscall(IO_SETUP, ROOM, this.#list.address, 0, 0, 0, 0);
    if (made < 0) {
      const errno = libc.errno();
      libc.close(this.#null);
      throw new SystemError('io_setup', errno, 'waking peers');
    }
    this.#context = Number(this.#list.view.getBigUint64(0, true));
    this.#completions = new Uint32Array(libc.view(this.#context, RING_HEADER));
    const { view, address } = this.#request;
    view.setUint16(OPCODE, IOCB_CMD_PWRITE, true);
    view.setUint32(FILE, this.#null, true);
    view.setUint32(FLAGS, IOCB_FLAG_RESFD, true);
    this.#list.view.setBigUint64(0, BigInt(address), true);
  }

  /** Adds one; a full count has woken its reader already. Returns false for what is no eventfd. */
  ring(fd: number): boolean {
    this.#request.view.setUint32(RESULT_FD, fd, true);
    // Nobody asks how the writes have ended: they are taken for read.
    this.#completions[HEAD] = this.#completions[TAIL];
    return this.#libc.syscall(IO_SUBMIT, this.#context, 1, this.#list.address, 0, 0, 0) === 1;
  }

  close(): void {
    this.#libc.syscall(IO_DESTROY, this.#context, 0, 0, 0, 0, 0);
    this.#libc.close(this.#null);
  }
}
