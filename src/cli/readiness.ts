// What a service says to the service manager that started it, if one did: that it is ready, that it lives, that it ends.
// Used by serve-run.ts and xen-backend-run.ts, before hosts/linux/service-manager.ts.

import type { Libc } from '../hosts/linux/libc.ts';
import { ServiceManager, watchdogTime } from '../hosts/linux/service-manager.ts';

/** A service's end of it. */
export class Readiness {
  readonly #manager: ServiceManager | undefined;
  #beats: NodeJS.Timeout | undefined;

  /** Throws what ServiceManager throws. */
  constructor(libc: Libc) {
    const address = process.env['NOTIFY_SOCKET'];
    this.#manager = address ? new ServiceManager(libc, address) : undefined;
  }

  /**
   * All is served; `status` says what.
   *
   * @param ping resolves when those who serve have answered: without that, the watchdog hears nothing
   */
  ready(status: string, ping: () => Promise<void>): void {
    const manager = this.#manager;
    manager?.notify('READY=1', `STATUS=${status}`);
    const time = watchdogTime(process.env, process.pid);
    if (manager === undefined || time === undefined) return;
    // Twice in the time that is allowed.
    this.#beats = setInterval(() => void ping().then(() => manager.notify('WATCHDOG=1')), time / 2);
  }

  stopping(status: string): void {
    this.#manager?.notify('STOPPING=1', `STATUS=${status}`);
  }

  /** Keeps nobody waiting any more. */
  close(): void {
    clearInterval(this.#beats);
  }
}
