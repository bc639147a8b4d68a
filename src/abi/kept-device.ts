// What a backend keeps of a device outside of its process, for one that takes its place after a crash: the registers as
// the driver has left them. A layout of our own. After it come the queues, then the journals of vhost-user-inflight.ts.
// Used by serving/kept-device.ts.

import { struct } from './struct.ts';

/** "grio", little endian, and the layout below. */
export const KEPT_DEVICE_MAGIC = 0x6f697267;
export const KEPT_DEVICE_LAYOUT = 1;

/** The registers that are not of one queue. */
export const keptDevice = struct('KeptDevice', {
  magic: 'u32',
  layout: 'u16',
  queues: 'u16',
  device_id: 'u32',
  status: 'u32',
  driver_features: 'bits64',
  device_features_sel: 'u32',
  driver_features_sel: 'u32',
  queue_sel: 'u32',
  _pad: { bytes: 28 },
});

/** One for each queue. */
export const keptQueue = struct('KeptQueue', {
  size: 'u32',
  enabled: 'u16',
  was_reset: 'u16',
  descriptor: 'addr64',
  driver: 'addr64',
  device: 'addr64',
});
