// Port: keeps a device outside of the process that serves it, so that another can go on with it where that one was
// killed: what the driver has said, and what is under way. Used by machine/backend-domain.ts, implemented by
// serving/kept-device.ts.

import type { QueueJournals } from '../virtqueue/queue-journal.ts';

/** A queue as the driver configures it, before and after it is enabled. */
export interface QueueRegisters {
  size: number;
  enabled: boolean;
  /** Whether the driver has reset it since DRIVER_OK, and so may configure it anew. */
  wasReset: boolean;
  descriptorLow: number;
  descriptorHigh: number;
  driverLow: number;
  driverHigh: number;
  deviceLow: number;
  deviceHigh: number;
}

/** A device's registers as the driver has left them. */
export interface KeptRegisters {
  readonly status: number;
  readonly driverFeatures: bigint;
  readonly queues: readonly QueueRegisters[];
  /** What the transport remembers between two accesses: DeviceFeaturesSel, DriverFeaturesSel, QueueSel. */
  readonly selectors: readonly [deviceFeatures: number, driverFeatures: number, queue: number];
}

/** What is kept of one device. */
export interface DeviceKeeper {
  readonly journals: QueueJournals;
  /** What a predecessor kept; undefined when there was none. */
  load(): KeptRegisters | undefined;
  /** The driver has written a register; it does not go on before this returns. */
  save(registers: KeptRegisters): void;
  /** The device has ended: there is nothing to go on with. */
  forget(): void;
  /** This process ends, and what is kept stays. */
  close(): void;
}
