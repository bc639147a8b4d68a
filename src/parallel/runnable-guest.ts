// Port: a guest as whoever runs it in a thread sees it. Implemented by machine/guest-domain.ts (a domain of the
// embedded Xen) and vhost-guest.ts; used by guest-runner.ts and copy-job.ts.

import type { GuestMemory } from '../dma/guest-memory.ts';

/** A guest's drivers, and the means to wait for their devices. Times are milliseconds. */
export interface RunnableGuest {
  readonly ports: {
    readonly memory: GuestMemory;
    readonly events: {
      /** Stops the thread until an event comes, or for `milliseconds`. */
      sleep(milliseconds: number): void;
      /** The same without stopping the thread's event loop. */
      nextEvent(milliseconds: number): Promise<unknown>;
    };
  };
  /** Whether any driver waits for its device. */
  readonly busy: boolean;
  /** Called when a driver has begun to wait for its device. */
  onWaiting: () => void;
  /** Takes events and completions. Returns whether there were any. */
  poll(): boolean;
  /** Asks for an interrupt. Returns true when something has been completed meanwhile. */
  arm(): boolean;
  /** Does what is due at `now`. Returns when to call again at the latest. */
  tick(now: number): number;
  /** Has every device reset that still has not answered. */
  revive(reason: string): void;
}
