// What a driver says of a queue before it enables it (virtio 1.3 §4.2.2), the same for every transport. Used by
// device-state.ts, and by device-keeper.ts for a successor.

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

/** A queue of which the driver has said nothing. */
export function freshQueue(size: number): QueueRegisters {
  return {
    size,
    enabled: false,
    wasReset: false,
    descriptorLow: 0,
    descriptorHigh: 0,
    driverLow: 0,
    driverHigh: 0,
    deviceLow: 0,
    deviceHigh: 0,
  };
}
