// How a guest finds a device that the toolstack gave it: where its registers are, and which domain serves it.
// Both come from nodes of the toolstack, never from the device. Before guest-domain.ts.

import {
  backendPath,
  frontendPath,
  readDevice,
  type VirtioKind,
  XENBUS_CLOSED,
  XENBUS_CLOSING,
  XENBUS_INIT_WAIT,
} from '../toolstack/virtio-nodes.ts';
import { DeviceRefused } from '../virtio/negotiate.ts';
import { type DomainId, domainId } from '../xen/ids.ts';
import { type Xenstore, XenstoreError } from '../xen/xenstore.ts';
import type { DevicePlace } from './guest-domain.ts';

/**
 * Waits until the backend is ready to serve the device, and says where it is.
 *
 * @throws DeviceRefused when the backend cannot serve it, with the backend's reason, or grants are not used
 */
export async function findDevice(
  store: Xenstore,
  kind: VirtioKind,
  guest: DomainId,
  devid: number,
): Promise<Omit<DevicePlace, 'device'>> {
  const backend = domainId(Number(await store.read(`${frontendPath({ kind, guest, devid })}/backend-id`)));
  if (backend === guest) throw new DeviceRefused('the guest itself is named as the backend of its device');
  const path = backendPath({ kind, backend, guest, devid });
  await backendReady(store, path);
  const nodes = await readDevice(store, kind, backend, guest, devid);
  if (nodes === undefined) throw new DeviceRefused('the toolstack has taken the device away');
  if (!nodes.grantUsage)
    throw new DeviceRefused(
      'the toolstack gave the device without grants (grant_usage=0); grants are required here',
    );
  return { base: nodes.base, backend };
}

/** Resolves when the backend waits for the guest, rejects with its reason when it has given up. */
async function backendReady(store: Xenstore, path: string): Promise<void> {
  let resolve: (state: number) => void = () => undefined;
  let reject: (reason: unknown) => void = () => undefined;
  const promise = new Promise<number>((...ends) => {
    [resolve, reject] = ends;
  });
  const look = async () => {
    const found = Number(await store.read(`${path}/state`));
    if (found === XENBUS_INIT_WAIT || found === XENBUS_CLOSING || found === XENBUS_CLOSED) resolve(found);
  };
  const unwatch = await store.watch(`${path}/state`, () => void look().catch(reject));
  try {
    if ((await promise) !== XENBUS_INIT_WAIT) throw new DeviceRefused(await reasonAt(store, path));
  } finally {
    await unwatch();
  }
}

async function reasonAt(store: Xenstore, path: string): Promise<string> {
  try {
    return await store.read(`${path}/error`);
  } catch (error) {
    if (error instanceof XenstoreError) return `the backend does not serve the device (${path})`;
    throw error;
  }
}
