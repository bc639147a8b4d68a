// Port: what serves the devices of `grantio serve`. Implemented in serve-run.ts, where a server in this process does,
// and by serve-supervisor.ts, with a process for each device.

import type { PlannedDevice } from './serve-plan.ts';
import type { OpenSocket } from './serve-sockets.ts';

/** Serves devices from when they are added until it is told to end. */
export interface Service {
  /** Serves a device at a socket; rejects when it cannot be served. */
  add(device: PlannedDevice, socket: OpenSocket): Promise<void>;
  /** Resolves when all that serves has answered. */
  ping(): Promise<void>;
  /** Ends everything; what was taken has been served then. */
  end(): Promise<void>;
  /** Resolves when all is over, with what went wrong. */
  readonly ended: Promise<Error | undefined>;
}
