// One connection of a guest to a vhost-user backend: socket, protocol, and waiting for what the backend says.
// Used by vhost-guest.ts.

import { Arena } from '../hosts/linux/arena.ts';
import { Epoll } from '../hosts/linux/epoll.ts';
import { connectTo } from '../hosts/linux/fd-socket.ts';
import { LinuxFrontendPlatform } from '../hosts/linux/frontend-platform.ts';
import type { Libc } from '../hosts/linux/libc.ts';
import { type SharedMemory, VhostUserFrontend } from '../transports/vhost-user/frontend.ts';

/** Scratch memory for the socket's address and for waiting. */
const ARENA = 4096;

/** A frontend, and the descriptors that wake it. */
export class VhostConnection {
  readonly frontend: VhostUserFrontend;
  readonly #platform: LinuxFrontendPlatform;
  readonly #epoll: Epoll;
  #watched: number[] = [];

  /** @throws SystemError when nobody listens; DeviceRefused when the backend cannot be used */
  constructor(libc: Libc, path: string, deviceId: number, memory: SharedMemory) {
    const arena = new Arena(libc, ARENA);
    const socket = connectTo(libc, arena, path);
    this.#platform = new LinuxFrontendPlatform(libc);
    this.#epoll = new Epoll(libc, arena);
    try {
      this.frontend = new VhostUserFrontend({ platform: this.#platform, socket, deviceId, memory });
    } catch (error) {
      this.#release();
      throw error;
    }
    this.#watch();
  }

  /** Waits up to `milliseconds` for the backend to say something. Returns whether it has. */
  wait(milliseconds: number): boolean {
    this.#watch();
    return this.#epoll.wait(milliseconds, () => undefined) > 0;
  }

  /** Ends it; what the backend still has of it is of no use to anyone. */
  close(reason: string): void {
    // First: the backend's copies of these descriptors would go on waking us.
    this.#release();
    this.frontend.close(reason);
  }

  /** Waits for what the frontend listens to now. */
  #watch(): void {
    const { watched } = this.frontend;
    for (const fd of this.#watched) if (!watched.includes(fd)) this.#epoll.remove(fd);
    for (const fd of watched) if (!this.#watched.includes(fd)) this.#epoll.add(fd, 0);
    this.#watched = watched;
  }

  #release(): void {
    this.#epoll.close();
    this.#platform.release();
  }
}
