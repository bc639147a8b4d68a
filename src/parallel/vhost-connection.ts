// One connection of a guest to a vhost-user backend: socket, protocol, and waiting for what the backend says.
// Used by vhost-guest.ts.

import { Arena } from '../hosts/linux/arena.ts';
import { Epoll } from '../hosts/linux/epoll.ts';
import { connectTo } from '../hosts/linux/fd-socket.ts';
import { LinuxFrontendPlatform } from '../hosts/linux/frontend-platform.ts';
import type { Libc } from '../hosts/linux/libc.ts';
import { type SharedMemory, VhostUserFrontend } from '../transports/vhost-user/frontend.ts';

/** Bytes of scratch memory: two sockets, two epolls, messages. */
const ARENA = 32 * 1024;

/** A frontend, and the descriptors that wake it. */
export class VhostConnection {
  readonly frontend: VhostUserFrontend;
  readonly #epoll: Epoll;
  /** Ends what was opened beside the frontend, the last one first. */
  readonly #undo: (() => void)[] = [];
  #watched: number[] = [];

  /** @throws SystemError when nobody listens; DeviceRefused when the backend cannot be used */
  constructor(libc: Libc, path: string, deviceId: number, memory: SharedMemory) {
    const arena = new Arena(libc, ARENA);
    this.#undo.unshift(() => arena.close());
    try {
      this.#epoll = new Epoll(libc, arena);
      this.#undo.unshift(() => this.#epoll.close());
      const platform = new LinuxFrontendPlatform(libc, arena);
      this.#undo.unshift(() => platform.release());
      const socket = connectTo(libc, arena, path);
      this.frontend = new VhostUserFrontend({ platform, socket, deviceId, memory });
    } catch (error) {
      this.#release();
      throw error;
    }
    this.#watch();
  }

  /** Waits up to `milliseconds` for the backend to say something. Returns whether it has, or is gone. */
  wait(milliseconds: number): boolean {
    // Its descriptors are closed then.
    if (this.frontend.failure !== undefined) return true;
    this.#watch();
    return this.#epoll.wait(milliseconds, () => undefined) > 0;
  }

  /** Ends it; what the backend still has of it is of no use to anyone. */
  close(reason: string): void {
    this.frontend.close(reason);
    this.#release();
  }

  /** Waits for what the frontend listens to now. */
  #watch(): void {
    const { watched } = this.frontend;
    for (const fd of this.#watched) if (!watched.includes(fd)) this.#epoll.remove(fd);
    for (const fd of watched) if (!this.#watched.includes(fd)) this.#epoll.add(fd, 0);
    this.#watched = watched;
  }

  #release(): void {
    for (const step of this.#undo.splice(0)) step();
  }
}
