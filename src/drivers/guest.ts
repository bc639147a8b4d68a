// What a driver gets from the guest it runs in.

import type { DmaOperations } from '../dma/dma.ts';
import type { GuestHeap } from '../dma/guest-heap.ts';
import type { GuestMemory } from '../dma/guest-memory.ts';
import type { Tracer } from '../trace.ts';
import type { DriverTransport } from '../virtio/transport.ts';
import type { RecoveryLimits } from './recovery.ts';

/** A device as the guest's platform found it, and the guest's means to drive it. */
export interface GuestDevice {
  readonly transport: DriverTransport;
  /** The DMA operations that the guest's policy chose for this device. */
  readonly dma: DmaOperations;
  /** Whether only grants may be handed out; a device that would not honour that is refused. */
  readonly restricted: boolean;
  /** What the guest puts up with before it resets the device, or gives it up. */
  readonly recovery: RecoveryLimits;
  readonly memory: GuestMemory;
  readonly heap: GuestHeap;
  readonly tracer: Tracer;
  /** Numbers of requests in the trace, unique in the guest. */
  readonly nextRequestId: () => number;
  /** Tells whoever runs the guest that a driver has begun to wait for its device. */
  readonly waiting: () => void;
  /** Whether any device of the guest has a request under way, whose end gives references and pages back. */
  readonly anyInFlight: () => boolean;
  /** Numbers for the trace. */
  readonly domain: number;
  readonly device: number;
}
