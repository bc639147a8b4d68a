// Port: what is counted of a device's queue. Called by device-queue.ts and by who gives the queue its turns; implemented
// in serving/queue-counters.ts. Arguments are numbers only, so that a call allocates nothing.

/** Told what a queue does, in order. All calls are on the hot path. */
export interface QueueMeter {
  /** The device looks at the queue: what it takes until the next look is one turn. */
  turn(): void;
  /**
   * A chain was taken.
   *
   * @param head names it until it is completed
   * @param byteLength bytes that its descriptors speak of
   * @param depth chains that wait or are under way, with this one
   */
  taken(head: number, byteLength: number, depth: number): void;
  /** The platform refused a buffer of a chain that was taken, or what was written to it; once for a chain. */
  refused(): void;
  /**
   * The driver gets it back now.
   *
   * @param type the kind of request, in the device type's own numbers; NO_TYPE where there are none
   * @param status the answer, in the device type's own numbers; 0 is success
   * @param bytesRead bytes that the device took from it
   * @param written bytes that the driver is told were written to it
   */
  completed(head: number, type: number, status: number, bytesRead: number, written: number): void;
  /** The driver was interrupted. */
  interrupted(): void;
  /** The queue is served no more; nothing is told after that. */
  closed(): void;
}

/** The type of a request of a device that has only one, or that was not looked at. */
export const NO_TYPE = -1;

/** Told what a device does; makes the meters of its queues. */
export interface DeviceMeter {
  /** The meter of queue `index`, of `size` descriptors, which starts now. */
  queue(index: number, size: number): QueueMeter;
  /** A driver's notification has come. */
  notified(): void;
  /** The device can reach so many bytes of the guest's memory from now on. */
  exposed(byteLength: number): void;
}
