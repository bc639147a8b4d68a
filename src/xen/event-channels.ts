// Port: event channels, by which domains wake each other. Used by transports/ and machine.ts.

import type { DomainId, EventPort } from './ids.ts';

/** What a domain may ask of event channels. Failures are negative errno values, as Xen returns them. */
export interface EventChannels {
  /** A new port that `remote` may bind to; negative errno when none is free. */
  allocateUnbound(remote: DomainId): EventPort;
  /** A new local port joined to `remotePort` of `remote`; negative errno when that is refused. */
  bindInterdomain(remote: DomainId, remotePort: EventPort): EventPort;
  /** Closes a local port. Returns 0 or a negative errno. */
  close(port: EventPort): number;
  /** Makes the other end pending and wakes its domain. Returns 0 or a negative errno. */
  send(port: EventPort): number;
  /** Calls `handler` for each event on a local port, until `undefined` is set instead. */
  onEvent(port: EventPort, handler: (() => void) | undefined): void;
}
