// A guest's devices: watches the guest's own directories in xenstore, and keeps one end for each device that the
// toolstack has announced there. Before guest-device.ts; its counterpart is backend-service.ts.

import { DOMID_FIRST_RESERVED } from '../abi/xen.ts';
import { childrenOf, type DeviceAddress, frontendPath, VIRTIO_KINDS } from '../toolstack/virtio-nodes.ts';
import { valueAt } from '../toolstack/xenbus.ts';
import { domainId, type DomainId } from '../xen/ids.ts';
import type { Xenstore } from '../xen/xenstore.ts';
import { oneTransaction } from '../xenstore/one-transaction.ts';
import { type DeviceUse, GuestDevice } from './guest-device.ts';
import { Looks } from './looks.ts';

/** Uses the devices that xenstore announces, as they come and go. */
export class GuestDevices {
  readonly #store: Xenstore;
  readonly #guest: DomainId;
  readonly #use: DeviceUse;
  readonly #looks = new Looks(() => this.#look());
  /** By place and backend: a device that moves to another backend is another device. */
  readonly #devices = new Map<string, GuestDevice>();

  constructor(store: Xenstore, guest: DomainId, use: DeviceUse) {
    this.#store = oneTransaction(store);
    this.#guest = guest;
    this.#use = use;
  }

  /** Starts watching. */
  start(): Promise<void> {
    return this.#looks.watch(this.#store, `/local/domain/${this.#guest}/device`);
  }

  /** Detaches all drivers and stops watching. The nodes stay as they are: they are the toolstack's. */
  async stop(): Promise<void> {
    await this.#looks.end();
    for (const key of [...this.#devices.keys()]) await this.#end(key, 'the guest stops using its devices');
  }

  /** Devices announced now, as far as they were seen. */
  get size(): number {
    return this.#devices.size;
  }

  async #look(): Promise<void> {
    const announced = new Map<string, DeviceAddress>();
    for (const address of await this.#announced())
      announced.set(`${frontendPath(address)} ${address.backend}`, address);
    // First those that have gone: another device may be where they were.
    for (const key of [...this.#devices.keys()])
      if (!announced.has(key)) await this.#end(key, 'the toolstack has taken the device away');
    for (const [key, address] of announced)
      (this.#devices.get(key) ?? (await this.#begin(key, address))).lookSoon();
  }

  async #announced(): Promise<DeviceAddress[]> {
    const found: DeviceAddress[] = [];
    for (const kind of VIRTIO_KINDS) {
      for (const name of await childrenOf(this.#store, `/local/domain/${this.#guest}/device/${kind}`)) {
        const address = { kind, guest: this.#guest, devid: Number(name) };
        const backend = await valueAt(this.#store, `${frontendPath(address)}/backend-id`);
        if (isDomain(backend)) found.push({ ...address, backend: domainId(Number(backend)) });
      }
    }
    return found;
  }

  async #begin(key: string, address: DeviceAddress): Promise<GuestDevice> {
    const device = new GuestDevice(this.#store, address, this.#use);
    this.#devices.set(key, device);
    await device.start();
    return device;
  }

  async #end(key: string, reason: string): Promise<void> {
    const device = this.#devices.get(key);
    this.#devices.delete(key);
    await device?.end(reason);
  }
}

/** Whether a node names a domain; what else is in it cannot be a device's backend. */
function isDomain(text: string | undefined): boolean {
  if (text === undefined || !/^\d{1,5}$/.test(text)) return false;
  return Number(text) < DOMID_FIRST_RESERVED;
}
