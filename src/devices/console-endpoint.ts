// Port: what a console's port is attached to on the host, and what that may ask of the port. Implemented by
// echo-endpoint.ts and by whoever has a use for a console; used by console.ts.
//
// Bytes are bytes: nothing on the way looks at escape sequences (case D9). Whoever shows them to a person filters them.

import type { ConsoleSize } from '../abi/virtio-console.ts';

/** A port as the host uses it. */
export interface ConsoleLine {
  /**
   * Sends bytes to the guest: to its buffers, and as many as fit into a buffer of ours while it has none.
   *
   * @returns how many of them, from the start; after less than all, `hasRoom` tells when to go on
   */
  send(bytes: Uint8Array): number;
  /** Goes on with what `take` has left. */
  resume(): void;
  /** Tells the guest whether anybody is at the host's end: yes, unless said otherwise. */
  setOpen(open: boolean): void;
  /** Tells the guest the size of its terminal, at first and whenever it changes; a port that is no console has none. */
  resize(size: ConsoleSize): void;
}

/** The host's end of a port. None of its methods may throw. */
export interface ConsoleEndpoint {
  /** Called once, before anything else; `line` works from then on. */
  connect(line: ConsoleLine): void;
  /**
   * Takes what the guest wrote. What it does not take stays with the guest, which has to wait: see
   * ConsoleLine.resume. It takes no more than it has memory for, or a guest that writes without end keeps others
   * waiting (case F25).
   *
   * @param bytes the caller's, and valid during the call only
   * @returns how many of them, from the start
   */
  take(bytes: Uint8Array): number;
  /** There is room again after `send` did not take all. */
  hasRoom(): void;
  /** The guest has opened its end, or closed it; a driver that knows one port only has it open. */
  opened(open: boolean): void;
}
