// Port: what the driver's side of vhost-user asks of its machine, so that the protocol can be tested without a
// socket or a descriptor. Implemented in hosts/linux/frontend-platform.ts; used by frontend-link.ts and frontend.ts.

/** What came in one read. */
export interface Incoming {
  /** Bytes read; 0 at the end of the stream, -1 when nothing came in time. */
  readonly length: number;
  /** Descriptors, which are the reader's to close. */
  readonly fds: readonly number[];
}

/** The machine of a frontend. Descriptors are the caller's to close unless said otherwise. */
export interface FrontendPlatform {
  /** Milliseconds on a clock that never runs backwards. */
  now(): number;
  /** Reads what there is into `room`; waits up to `milliseconds` for the first byte, not at all with 0. */
  receive(socket: number, room: Uint8Array, milliseconds: number): Incoming;
  /** Sends a message, and `fds` with it. Returns false when the backend is gone or does not read. */
  send(socket: number, bytes: Uint8Array, fds: readonly number[]): boolean;
  /** Two sockets that are connected with each other. */
  socketPair(): readonly [number, number];
  /** An eventfd of zero. */
  newEvent(): number;
  /** Adds one to an eventfd. */
  signal(event: number): void;
  /** Sets an eventfd to zero without waiting. Returns whether it was not. */
  takeSignal(event: number): boolean;
  close(fd: number): void;
}
