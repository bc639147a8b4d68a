// `grantio xenstored`: the store as a daemon on a Unix socket, for the xenstore tools of any distribution
// (XENSTORED_PATH names the socket) and for toolstack tests without a hypervisor. Whoever may open the
// socket is domain 0, as with any xenstored.

import { createServer, type Socket } from 'node:net';
import type { Command } from 'commander';
import { ProtocolViolation } from '../errors.ts';
import { listenAtPath, type RemoveSocket } from '../hosts/linux/unix-socket.ts';
import { Connection } from '../xenstore/connection.ts';
import { Store } from '../xenstore/store.ts';
import { onInterrupt } from './signals.ts';

export interface XenstoredOptions {
  /** Path of the Unix socket. */
  readonly socket: string;
}

/** What the command needs of the process around it. */
export interface XenstoredIo {
  /** Ends the daemon. */
  readonly signal: AbortSignal;
  /** Prints to the standard output. */
  out(text: string): void;
  /** Prints to the standard error output. */
  err(text: string): void;
}

/** Adds the command to the program. */
export function addXenstoredCommand(program: Command): void {
  program
    .command('xenstored')
    .summary('run a xenstore on a Unix socket')
    .description(
      "Run a xenstore daemon. Clients of the socket are domain 0; Debian's xenstore-ls and others find it by XENSTORED_PATH.",
    )
    .requiredOption('--socket <path>', 'Unix socket to listen on')
    .addHelpText(
      'after',
      '\nEnds with status 0 on SIGINT or SIGTERM, 1 when it fails, 2 when the socket cannot be used.',
    )
    .action(runXenstored);
}

/** The daemon as a process: until a signal, which sets the exit status. */
export async function runXenstored(options: XenstoredOptions): Promise<void> {
  const ending = new AbortController();
  const interruption = onInterrupt('closing the store');
  interruption.onSignal(() => ending.abort());
  process.exitCode = await xenstoredCommand(options, {
    signal: ending.signal,
    out: (text) => process.stdout.write(text),
    err: (text) => process.stderr.write(text),
  });
  interruption.release();
}

/** Serves until the signal; resolves with the exit code: 0 done, 1 it failed, 2 the call was wrong. */
export async function xenstoredCommand({ socket }: XenstoredOptions, io: XenstoredIo): Promise<number> {
  const store = new Store();
  const clients = new Set<SocketClient>();
  const server = createServer((peer) => {
    const client = new SocketClient(peer, store, io);
    clients.add(client);
    peer.once('close', () => clients.delete(client));
  });
  let remove: RemoveSocket;
  try {
    remove = await listenAtPath(server, socket, { mode: 0o600 });
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    io.err(`grantio xenstored: ${error.message}\n`);
    return error instanceof RangeError ? 2 : 1;
  }
  server.on('error', (error) => io.err(`grantio xenstored: ${error.message}\n`));
  io.out(`grantio xenstored: listening on ${socket}\n`);
  await aborted(io.signal);
  const stopped = new Promise((resolve) => server.close(resolve));
  for (const client of clients) client.end();
  await Promise.all([stopped, remove()]);
  return 0;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** One connection: what came in one piece is served in one go, and answered with one write. */
class SocketClient {
  readonly #socket: Socket;
  readonly #connection: Connection;
  readonly #io: XenstoredIo;
  /** What has come and is not served, while the client leaves its replies unread. */
  #unserved: Uint8Array | undefined;
  #flushing = false;
  /** The kernel takes no more for now. */
  #full = false;

  constructor(socket: Socket, store: Store, io: XenstoredIo) {
    this.#socket = socket;
    this.#io = io;
    this.#connection = new Connection(
      store,
      store.domains.control,
      () => this.#flushSoon(),
      () => this.end(),
    );
    socket.on('data', (bytes) => this.#serve(bytes));
    socket.on('drain', () => this.#drained());
    socket.on('close', () => this.#connection.close());
    // A connection that breaks is closed; 'close' follows and does what there is to do.
    socket.on('error', () => socket.destroy());
  }

  end(): void {
    this.#socket.destroy();
  }

  #serve(bytes: Uint8Array): void {
    let taken = 0;
    try {
      // Replies that the kernel takes are no longer unread, so there may be room for more requests.
      for (let before = -1; taken < bytes.length && taken > before; this.#flush()) {
        before = taken;
        taken += this.#connection.receive(bytes.subarray(taken));
      }
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.#io.err(`grantio xenstored: connection closed: ${error.message}\n`);
      this.end();
      return;
    }
    this.#unserved = taken < bytes.length ? bytes.subarray(taken) : undefined;
    if (this.#unserved !== undefined) this.#socket.pause();
  }

  #drained(): void {
    this.#full = false;
    this.#flush();
    const bytes = this.#unserved;
    if (bytes === undefined || this.#full) return;
    this.#unserved = undefined;
    this.#socket.resume();
    this.#serve(bytes);
  }

  /** Events caused by others go out together, after all that is being served now. */
  #flushSoon(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    setImmediate(() => {
      this.#flushing = false;
      this.#flush();
    });
  }

  #flush(): void {
    while (!this.#full) {
      const bytes = this.#connection.take();
      if (bytes.length === 0) return;
      this.#full = !this.#socket.write(bytes);
    }
  }
}
