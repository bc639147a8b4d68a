// A driver as whoever runs its guest sees it, and what drivers of every kind do alike: they are driven by interrupts
// and by time, and their device can be reset, suspended and given up. After machine/guest-domain.ts and
// driver-kinds.ts, before virtio-driver.ts.

import type { GuestDevice } from './guest.ts';
import type { DeviceHealth } from './recovery.ts';
import type { VirtioDriver } from './virtio-driver.ts';

/** A driver of a device that was started. Whoever runs the guest calls `poll`, `interrupt` and `tick`. */
export abstract class Driver {
  protected readonly driver: VirtioDriver;

  constructor(driver: VirtioDriver) {
    this.driver = driver;
  }

  /** Whether something was asked for and is not answered. */
  abstract readonly busy: boolean;
  /** Requests that the device has and has not completed; others may be waiting for references. */
  abstract readonly inFlight: number;
  /** Takes what the device has completed. Returns how much that was. */
  abstract poll(): number;
  /**
   * Stops the device; what is still under way fails.
   *
   * @returns whether all pages could be taken back from the backend; if not, `release` is to be called when they have
   */
  abstract close(): boolean;

  get health(): DeviceHealth {
    return this.driver.health;
  }

  /** Why the device cannot be used for the time being; requests wait. */
  get outage(): string | undefined {
    return this.driver.outage;
  }

  /** How often it was reset because something was wrong. */
  get resets(): number {
    return this.driver.resets;
  }

  /** Why the device is no longer used; undefined while it is. */
  get failure(): string | undefined {
    return this.driver.failure;
  }

  /** Whether the device is still the one that was started: it was neither reset nor replaced by another. */
  get holdsDevice(): boolean {
    return this.driver.holdsDevice;
  }

  /** To be called when the device interrupts. */
  interrupt(): void {
    if (this.driver.takeInterrupt()) this.poll();
  }

  /** Does what is due at `now`, in milliseconds. Returns when that is next so; see DmaOperations.tick. */
  tick(now: number): number {
    return this.driver.tick(now);
  }

  /** Asks for an interrupt at the next completion. Returns true when there is one to poll for already. */
  arm(): boolean {
    return this.driver.guard(() => {
      let more = false;
      for (const queue of this.driver.queues) if (queue.enableInterrupts()) more = true;
      return more;
    }, false);
  }

  /** Resets a device that does not answer, and asks it again; gives it up when that has been done too often. */
  recover(reason: string): void {
    this.driver.recover(reason);
  }

  /** Stops the device for the time being: nothing stays shared, what is asked for waits for `resume`. */
  suspend(reason: string): void {
    this.driver.stop(reason);
  }

  /**
   * Goes on where the device is now; what was unfinished is asked again.
   *
   * @throws DeviceRefused when it is not the same device; it may be tried again
   */
  resume(device: GuestDevice): void {
    this.driver.restart(device);
  }

  /** Gives up a device: it is reset, and what was asked of it fails. */
  fail(reason: string): void {
    this.driver.fail(reason);
  }

  /** After `close`: gives memory back that the backend still reached then. */
  release(): void {
    // Most drivers leave that to the quarantine.
  }

  /** Resets a device that is not used any more. Returns whether all pages could be taken back from the backend. */
  protected detach(what: string): boolean {
    this.driver.fail(`${what} was detached`);
    return this.driver.close();
  }
}
