// Plugging a device into a running guest and unplugging it, as the toolstack does: announce and wait for both ends, ask
// both to close and wait again (libxl's device_add and device_remove). The ends are machine/backend-service.ts and
// machine/guest-devices.ts.

import type { Xenstore } from '../xen/xenstore.ts';
import {
  announceDevice,
  backendPath,
  type DeviceAddress,
  frontendPath,
  type VirtioNodes,
  withdrawDevice,
  XENBUS_CLOSED,
  XENBUS_CLOSING,
  XENBUS_CONNECTED,
} from './virtio-nodes.ts';
import { lookUntil, stateAt, valueAt } from './xenbus.ts';

/** A device that one of its ends does not want, or that does not get ready. */
export class DeviceNotConnected extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = 'DeviceNotConnected';
  }
}

/**
 * Gives a guest a device. Resolves when driver and device are connected.
 *
 * @param signal ends the waiting
 * @throws DeviceNotConnected with the reason that an end gave; then its nodes are gone again
 */
export async function plugDevice(store: Xenstore, device: VirtioNodes, signal?: AbortSignal): Promise<void> {
  await announceDevice(store, device);
  const ends = [frontendPath(device), backendPath(device)];
  try {
    const refusal = await lookUntil(store, ends, () => outcomeOf(store, ends), signal);
    if (refusal !== '') throw new DeviceNotConnected(refusal);
  } catch (error) {
    await withdrawDevice(store, device);
    throw error;
  }
}

/**
 * Takes a device away from a guest: both ends are asked to close, and finish what is under way. Its nodes are removed
 * afterwards, in any case.
 *
 * @param signal ends the waiting for an end that does not close
 * @returns whether both closed; if not, the device was taken from them
 */
export async function unplugDevice(
  store: Xenstore,
  device: DeviceAddress,
  signal?: AbortSignal,
): Promise<boolean> {
  const ends = [frontendPath(device), backendPath(device)];
  await askToClose(store, backendPath(device));
  const closed = await lookUntil(store, ends, () => bothClosed(store, ends), signal).catch((error) => {
    if (signal?.aborted) return false;
    throw error;
  });
  await withdrawDevice(store, device);
  return closed;
}

/** "" when both ends are connected, the reason when one has closed, undefined as long as neither is so. */
async function outcomeOf(store: Xenstore, ends: readonly string[]): Promise<string | undefined> {
  const states = await Promise.all(ends.map((path) => stateAt(store, path)));
  if (states.every((state) => state === XENBUS_CONNECTED)) return '';
  // The backend first: where it has no device, the guest has one reason less.
  for (const index of [1, 0]) {
    if (states[index] !== XENBUS_CLOSED && states[index] !== undefined) continue;
    const error = await valueAt(store, `${ends[index]}/error`);
    return error === undefined ? `${ends[index]} was closed without a reason` : plainText(error);
  }
  return undefined;
}

async function askToClose(store: Xenstore, back: string): Promise<void> {
  await store.transaction(async (nodes) => {
    if ((await stateAt(nodes, back)) === undefined) return;
    await nodes.write(`${back}/online`, '0');
    await nodes.write(`${back}/state`, `${XENBUS_CLOSING}`);
  });
}

async function bothClosed(store: Xenstore, ends: readonly string[]): Promise<true | undefined> {
  const states = await Promise.all(ends.map((path) => stateAt(store, path)));
  return states.every((state) => state === XENBUS_CLOSED || state === undefined) ? true : undefined;
}

/** What a domain wrote, for people: no control characters, which a terminal might obey (case D9). */
function plainText(text: string): string {
  return text.replace(/[^\P{C}\n]/gu, '\ufffd');
}
