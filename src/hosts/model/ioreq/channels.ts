// The event channels between Xen and a device model. Xen's end lies among the ports of the guest; the device model
// binds to it (Xen alloc_unbound_xen_event_channel). A guest that closes such a port has only itself to blame: its
// device model hears nothing any more.

import type { DomainRecord } from '../domain-record.ts';
import type { EventOps } from '../events/event-ops.ts';

/** Opens `count` channels that `emulator` may bind to. Returns their ports, or the error of the first refused. */
export function openChannels(
  events: EventOps,
  guest: DomainRecord,
  emulator: DomainRecord,
  count: number,
): number[] | number {
  const ports: number[] = [];
  for (let index = 0; index < count; index++) {
    const port = events.allocateUnbound(guest, emulator.id);
    if (port < 0) {
      closeChannels(events, guest, ports);
      return port;
    }
    ports.push(port);
  }
  return ports;
}

export function closeChannels(events: EventOps, guest: DomainRecord, ports: readonly number[]): void {
  for (const port of ports) events.close(guest, port);
}

/** Tells the device model, if it has bound the channel. */
export function notifyModel(events: EventOps, guest: DomainRecord, port: number): void {
  events.send(guest, port);
}
