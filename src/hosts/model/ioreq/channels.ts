// The event channels between Xen and a device model. Xen's end lies among the ports of the guest, who can neither
// send from it nor close it; the device model binds to it.

import type { DomainRecord } from '../domain-record.ts';
import type { EventOps } from '../events/event-ops.ts';

/**
 * Opens a channel for each of `vcpus` that `emulator` may bind to. Returns their ports, or the error of the first
 * that is refused, and then there are none.
 */
export function openChannels(
  events: EventOps,
  guest: DomainRecord,
  emulator: DomainRecord,
  vcpus: readonly number[],
): number[] | number {
  const ports: number[] = [];
  for (const vcpu of vcpus) {
    const port = events.allocateForXen(guest, emulator.id, vcpu);
    if (port < 0) {
      closeChannels(events, guest, ports);
      return port;
    }
    ports.push(port);
  }
  return ports;
}

export function closeChannels(events: EventOps, guest: DomainRecord, ports: readonly number[]): void {
  for (const port of ports) events.closeForXen(guest, port);
}

/** Tells the device model, if it has bound the channel. */
export function notifyModel(events: EventOps, guest: DomainRecord, port: number): void {
  events.sendFromXen(guest, port);
}
