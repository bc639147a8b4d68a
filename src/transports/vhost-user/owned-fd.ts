// Descriptors that came over the socket and who closes them: each exactly once (rule 12, CVE-2022-0669).

import type { VhostPlatform } from './platform.ts';

/** A place that holds one descriptor or none (-1), and closes what it held. */
export class OwnedFd {
  readonly #platform: VhostPlatform;
  #fd = -1;

  constructor(platform: VhostPlatform) {
    this.#platform = platform;
  }

  get fd(): number {
    return this.#fd;
  }

  /** Holds `fd`, -1 for none, from now on. */
  replace(fd: number): void {
    const before = this.#fd;
    this.#fd = fd;
    if (before >= 0) this.#platform.close(before);
  }
}

/** The descriptors of one message: what nobody has taken when it has been dealt with is closed. */
export class MessageFds {
  readonly #platform: VhostPlatform;
  readonly #fds: number[];

  constructor(platform: VhostPlatform, fds: readonly number[]) {
    this.#platform = platform;
    this.#fds = [...fds];
  }

  /** Gives the first one away; -1 when there is none left. */
  take(): number {
    return this.#fds.shift() ?? -1;
  }

  closeRest(): void {
    for (const fd of this.#fds.splice(0)) this.#platform.close(fd);
  }
}
