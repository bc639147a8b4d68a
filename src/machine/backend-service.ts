// A backend domain at work: it watches xenstore for devices that the toolstack gives it, and keeps one end for each.
// Before backend-device.ts; its counterpart is guest-devices.ts. The nodes are those of toolstack/virtio-nodes.ts.

import { backendPath, childrenOf, type DeviceAddress, VIRTIO_KINDS } from '../toolstack/virtio-nodes.ts';
import type { Xenstore } from '../xen/xenstore.ts';
import { oneTransaction } from '../xenstore/one-transaction.ts';
import { BackendDevice, type MakeDevice } from './backend-device.ts';
import type { BackendDomain } from './backend-domain.ts';
import { Looks } from './looks.ts';

/** Serves what xenstore announces. */
export class BackendService {
  readonly #backend: BackendDomain;
  readonly #store: Xenstore;
  readonly #make: MakeDevice;
  readonly #looks = new Looks(() => this.#look());
  readonly #devices = new Map<string, BackendDevice>();

  constructor(backend: BackendDomain, store: Xenstore, make: MakeDevice) {
    this.#backend = backend;
    this.#store = oneTransaction(store);
    this.#make = make;
  }

  /** Starts watching. */
  start(): Promise<void> {
    return this.#looks.watch(this.#store, this.#root);
  }

  /** Ends all devices and gives back what they hold. */
  async stop(): Promise<void> {
    await this.#looks.end();
    for (const path of [...this.#devices.keys()]) await this.#end(path);
  }

  get #root(): string {
    return `/local/domain/${this.#backend.ports.id}/backend`;
  }

  async #look(): Promise<void> {
    const announced = new Map<string, DeviceAddress>();
    for (const address of await this.#announced()) announced.set(backendPath(address), address);
    // First those that have gone: another device may be where they were.
    for (const path of [...this.#devices.keys()]) if (!announced.has(path)) await this.#end(path);
    for (const [path, address] of announced)
      (this.#devices.get(path) ?? (await this.#begin(path, address))).lookSoon();
  }

  async #announced(): Promise<DeviceAddress[]> {
    const found: DeviceAddress[] = [];
    for (const kind of VIRTIO_KINDS) {
      for (const guest of await childrenOf(this.#store, `${this.#root}/${kind}`)) {
        for (const devid of await childrenOf(this.#store, `${this.#root}/${kind}/${guest}`))
          found.push({ kind, backend: this.#backend.ports.id, guest: Number(guest), devid: Number(devid) });
      }
    }
    return found;
  }

  async #begin(path: string, address: DeviceAddress): Promise<BackendDevice> {
    const device = new BackendDevice(this.#backend, this.#store, this.#make, address);
    this.#devices.set(path, device);
    await device.start();
    return device;
  }

  async #end(path: string): Promise<void> {
    const device = this.#devices.get(path);
    this.#devices.delete(path);
    await device?.end();
  }
}
