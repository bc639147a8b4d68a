// The sockets at which frontends find the devices of `grantio serve`: made at a path, handed over as a descriptor, or
// opened by systemd. After serve-run.ts, before hosts/linux/unix-socket.ts.

import { unlinkSync } from 'node:fs';
import { Arena } from '../hosts/linux/arena.ts';
import { listenOn } from '../hosts/linux/fd-socket.ts';
import type { Libc } from '../hosts/linux/libc.ts';
import { passedSockets } from '../hosts/linux/service-manager.ts';
import { placeSocket } from '../hosts/linux/unix-socket.ts';
import type { PlannedDevice } from './serve-plan.ts';
import { UsageError } from './usage.ts';

const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_ACCEPTCONN = 30;
const SO_DOMAIN = 39;
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const F_SETFD = 2;
const FD_CLOEXEC = 1;

/** A socket, ready for a frontend. */
export interface OpenSocket {
  readonly fd: number;
  /** Frontends come and go; otherwise this is the only one. */
  readonly listening: boolean;
}

/** Serves the device at the socket; a rejection means that it cannot be served. */
type Serve = (socket: OpenSocket) => Promise<void>;

/** Opens sockets, and removes in the end what it has made. */
export class ServeSockets {
  readonly #libc: Libc;
  readonly #passed = new Map(passedSockets(process.env, process.pid).map(({ fd, name }) => [name, fd]));
  readonly #removals: (() => Promise<void>)[] = [];

  constructor(libc: Libc) {
    this.#libc = libc;
  }

  /**
   * Opens the device's socket and has it served. A socket at a path appears there when that has been done: whoever
   * finds it is served. Rejects with UsageError for a descriptor that is no such socket, with what is in the way of a
   * path, or with what `serve` rejects with.
   */
  async open({ name, place }: PlannedDevice, serve: Serve): Promise<void> {
    if ('path' in place) await this.#openAt(place.path, serve);
    else if ('fd' in place) await serve(this.#given(place.fd, `--fd ${place.fd}`));
    else await serve(this.#given(this.#passedFd(place.passed), `systemd's socket for '${name}'`));
  }

  /** Removes the sockets that are still ours. */
  async remove(): Promise<void> {
    for (const removal of this.#removals.splice(0)) await removal();
  }

  async #openAt(path: string, serve: Serve): Promise<void> {
    const removal = await placeSocket(path, async (bound) => {
      const fd = this.#listen(bound, path);
      try {
        await serve({ fd, listening: true });
      } catch (error) {
        unlinkSync(bound);
        throw error;
      }
    });
    this.#removals.push(removal);
  }

  #listen(bound: string, path: string): number {
    const arena = new Arena(this.#libc, 256);
    try {
      return listenOn(this.#libc, arena, bound);
    } catch (error) {
      const reason = error instanceof Error && 'code' in error ? error.code : error;
      throw new Error(`socket ${path} cannot be made; is its directory there and writable? (${reason})`, {
        cause: error,
      });
    } finally {
      arena.close();
    }
  }

  /** One socket is for one device, whatever it is called; of several each has its device's name. */
  #passedFd(name: string): number {
    const fd =
      this.#passed.get(name) ?? (this.#passed.size === 1 ? [...this.#passed.values()][0] : undefined);
    if (fd !== undefined) return fd;
    const names = [...this.#passed.keys()].join(', ') || 'none';
    throw new UsageError(`no socket for '${name}': systemd has passed ${names} (FileDescriptorName=)`);
  }

  #given(fd: number, called: string): OpenSocket {
    if (this.#option(fd, SO_DOMAIN) !== AF_UNIX || this.#option(fd, SO_TYPE) !== SOCK_STREAM)
      throw new UsageError(`${called} is no Unix stream socket of this process`);
    // Programs that this one starts have no business with it.
    this.#libc.fcntl(fd, F_SETFD, FD_CLOEXEC);
    return { fd, listening: this.#option(fd, SO_ACCEPTCONN) === 1 };
  }

  /** A socket's option; -1 when the descriptor is no socket. */
  #option(fd: number, option: number): number {
    const arena = new Arena(this.#libc, 64);
    try {
      const [value, length] = [arena.take(4), arena.take(4)];
      length.view.setUint32(0, 4, true);
      const result = this.#libc.getsockopt(fd, SOL_SOCKET, option, value.address, length.address);
      return result < 0 ? -1 : value.view.getInt32(0, true);
    } finally {
      arena.close();
    }
  }
}
