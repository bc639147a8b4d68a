// Serves disks as a guest sees them to NBD clients: nbdcopy, qemu-img, fio, the Linux kernel.
// After it: connection.ts, one for each client.

import { createServer, type Server, type Socket } from 'node:net';
import { listenAtPath, type RemoveSocket } from '../hosts/linux/unix-socket.ts';
import { type NbdAddress, nbdUri } from './address.ts';
import { type After, Connection } from './connection.ts';
import { type NbdExport, type ServedExports, serveExports } from './export.ts';

/** Clients at a time; one more is hung up on. */
export const MAX_CONNECTIONS = 64;
/** How long close() lets clients take their last replies. */
export const CLOSE_MILLISECONDS = 5_000;

/** What a server is told besides its exports. */
export interface NbdServerOptions {
  /** Told why, whenever a connection ends in bad order or cannot be accepted. */
  readonly report?: (reason: Error) => void;
  /** The clock; the system's when left out. */
  readonly after?: After;
}

/** An NBD server. Its disks belong to the caller, who flushes and closes them after close(). */
export class NbdServer {
  readonly #exports: ServedExports;
  readonly #report: (reason: Error) => void;
  readonly #after: After;
  readonly #listeners = new Map<Server, RemoveSocket>();
  /** Where clients reach it. */
  readonly #addresses: NbdAddress[] = [];
  readonly #connections = new Map<Connection, Promise<void>>();
  #closed: Promise<void> | undefined;

  /** Throws RangeError when the exports cannot be served under their names. The first one is the default. */
  constructor(exports: readonly NbdExport[], { report, after }: NbdServerOptions = {}) {
    this.#exports = serveExports(exports);
    this.#report = report ?? (() => undefined);
    this.#after = after ?? systemClock;
  }

  /**
   * Begins to accept clients; may be called for several addresses. Resolves to the URI of each export, in
   * their order; rejects with what is in the way.
   */
  async listen(address: NbdAddress): Promise<string[]> {
    const server = createServer({ allowHalfOpen: true, noDelay: true, keepAlive: true }, (socket) =>
      this.#accept(socket),
    );
    const remove =
      'path' in address ? await listenAtPath(server, address.path) : await listenAtPort(server, address);
    server.on('error', this.#report);
    this.#listeners.set(server, remove);
    const bound = server.address();
    const reached =
      'path' in address || bound === null || typeof bound === 'string'
        ? address
        : { host: address.host, port: bound.port };
    this.#addresses.push(reached);
    return Array.from(this.#exports, ({ name }) => nbdUri(reached, name));
  }

  /** Offers one more disk. Returns its URI at each address; throws RangeError when its name cannot be served. */
  add(added: NbdExport): string[] {
    this.#exports.add(added);
    return this.#addresses.map((address) => nbdUri(address, added.name));
  }

  /**
   * Offers the export with this name no more, and ends the connections of its clients as `close` does; others go on.
   * When it resolves, nobody uses the disk any more.
   */
  async remove(name: string): Promise<void> {
    const removed = this.#exports.remove(name);
    const clients = [...this.#connections.keys()].filter(
      ({ target }) => target !== undefined && target === removed,
    );
    await this.#end(clients, (client) => client.stop(), 'while its export was taken away');
  }

  /**
   * Accepts no more clients, finishes what is under way, answers new requests with ESHUTDOWN and hangs up.
   * Clients that do not take their replies are dropped after CLOSE_MILLISECONDS. Flushes nothing.
   */
  close(): Promise<void> {
    this.#closed ??= this.#shutDown();
    return this.#closed;
  }

  async #shutDown(): Promise<void> {
    const stopped = [...this.#listeners].map(([server, remove]) => stopListening(server, remove));
    const ended = async (client: Connection) => {
      await client.stop();
      await this.#connections.get(client);
    };
    await this.#end([...this.#connections.keys()], ended, 'while the server shut down');
    await Promise.all(stopped);
  }

  /** Has connections end, and waits for them, but not for ever. */
  #end(
    clients: readonly Connection[],
    ended: (client: Connection) => Promise<unknown>,
    occasion: string,
  ): Promise<void> {
    return new Promise((resolve) => {
      const giveUp = this.#after(CLOSE_MILLISECONDS, () => {
        for (const client of clients)
          client.abort(new Error(`dropped: it did not take its replies ${occasion}`));
        resolve();
      });
      void Promise.all(clients.map(ended)).then(() => {
        giveUp();
        resolve();
      });
    });
  }

  #accept(socket: Socket): void {
    if (this.#closed || this.#connections.size >= MAX_CONNECTIONS) {
      socket.destroy();
      this.#report(new Error(`client refused: ${this.#connections.size} of ${MAX_CONNECTIONS} connections`));
      return;
    }
    const connection = new Connection(socket, this.#exports, this.#after);
    this.#connections.set(connection, this.#serve(connection));
  }

  async #serve(connection: Connection): Promise<void> {
    const reason = await connection.run();
    this.#connections.delete(connection);
    if (reason) this.#report(reason);
  }
}

function listenAtPort(server: Server, { host, port }: { host: string; port: number }): Promise<RemoveSocket> {
  return new Promise((resolve, reject) => {
    const refuse = (cause: Error): void =>
      reject(new Error(`cannot listen on ${host} port ${port}: ${cause.message}`, { cause }));
    server.once('error', refuse);
    server.listen({ host, port }, () => {
      server.off('error', refuse);
      resolve(() => Promise.resolve());
    });
  });
}

async function stopListening(server: Server, remove: RemoveSocket): Promise<void> {
  const stopped = new Promise((resolve) => server.close(resolve));
  await remove();
  await stopped;
}

function systemClock(milliseconds: number, action: () => void): () => void {
  const timer = setTimeout(action, milliseconds);
  return () => clearTimeout(timer);
}
