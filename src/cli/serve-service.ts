// Port: what serves the devices of `grantio serve`. Implemented by serve-server.ts, in this process, and by
// serve-supervisor.ts, with a process for each device.

import type { Operation } from './operation.ts';
import type { PlannedDevice } from './serve-plan.ts';
import type { OpenSocket } from './serve-sockets.ts';

/** Serves devices from when they are added until it is told to end. */
export interface Service {
  /** Where it logs and shows its figures, to be called before devices are added. Rejects when it cannot show them. */
  operate(operation: Operation): Promise<void>;
  /** Serves a device at a socket; rejects when it cannot be served. */
  add(device: PlannedDevice, socket: OpenSocket): Promise<void>;
  /** Resolves when all that serves has answered. */
  ping(): Promise<void>;
  /** Ends everything; what was taken has been served then. */
  end(): Promise<void>;
  /** Resolves when all is over, with what went wrong. */
  readonly ended: Promise<Error | undefined>;
}
