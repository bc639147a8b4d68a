// A backend domain at work: it watches xenstore for devices that the toolstack gives it, and keeps one end for each.
// Before backend-device.ts; its counterpart is guest-devices.ts. The nodes are those of toolstack/virtio-nodes.ts.

import { backendPath, childrenOf, type DeviceAddress, VIRTIO_KINDS } from '../toolstack/virtio-nodes.ts';
import { type Unwatch, type Xenstore, XenstoreError } from '../xen/xenstore.ts';
import { oneTransaction } from '../xenstore/one-transaction.ts';
import { BackendDevice, type DeviceOptions, type MakeDevice } from './backend-device.ts';
import type { BackendDomain } from './backend-domain.ts';
import { Looks } from './looks.ts';

/** What a service may be given besides. */
interface ServiceOptions extends DeviceOptions {
  /**
   * Whether a guest is still there, asked when the store says that some domain has gone: the toolstack may be slow to
   * take the nodes of its devices away, or dead itself. Without it, guests live as long as their nodes.
   */
  readonly lives?: (guest: number) => Promise<boolean>;
}

/** Of the store's own: some domain has gone (docs/misc/xenstore-paths). */
const DOMAIN_GONE = '@releaseDomain';

/** Serves what xenstore announces. */
export class BackendService {
  readonly #backend: BackendDomain;
  readonly #store: Xenstore;
  readonly #make: MakeDevice;
  readonly #options: ServiceOptions;
  readonly #looks = new Looks(() => this.#look());
  readonly #devices = new Map<string, BackendDevice>();
  #unwatchDeaths: Unwatch | undefined;

  constructor(backend: BackendDomain, store: Xenstore, make: MakeDevice, options: ServiceOptions = {}) {
    this.#backend = backend;
    this.#store = oneTransaction(store);
    this.#make = make;
    this.#options = options;
  }

  /** Starts watching. */
  async start(): Promise<void> {
    if (this.#options.lives !== undefined) await this.#watchDeaths();
    await this.#looks.watch(this.#store, this.#root);
  }

  /** Resolves when what was announced at the start is served, or refused. */
  async settled(): Promise<void> {
    await this.#looks.settled();
    for (const device of [...this.#devices.values()]) await device.settled();
  }

  /** Ends all devices and gives back what they hold. */
  async stop(): Promise<void> {
    await this.#endLooks();
    for (const path of [...this.#devices.keys()]) await this.#end(path);
  }

  /** Lets go of all devices, and leaves them as they are to a successor in this domain. */
  async leave(): Promise<void> {
    await this.#endLooks();
    for (const device of this.#devices.values()) await device.leave();
    this.#devices.clear();
  }

  async #endLooks(): Promise<void> {
    await this.#unwatchDeaths?.();
    await this.#looks.end();
  }

  get #root(): string {
    return `/local/domain/${this.#backend.ports.id}/backend`;
  }

  /** A domain that the toolstack does not trust with this is told by the nodes alone. */
  async #watchDeaths(): Promise<void> {
    try {
      this.#unwatchDeaths = await this.#store.watch(DOMAIN_GONE, () => this.#looks.soon());
    } catch (error) {
      if (!(error instanceof XenstoreError)) throw error;
    }
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
        if ((await this.#options.lives?.(Number(guest))) === false) continue;
        for (const devid of await childrenOf(this.#store, `${this.#root}/${kind}/${guest}`))
          found.push({ kind, backend: this.#backend.ports.id, guest: Number(guest), devid: Number(devid) });
      }
    }
    return found;
  }

  async #begin(path: string, address: DeviceAddress): Promise<BackendDevice> {
    const device = new BackendDevice(this.#backend, this.#store, this.#make, address, this.#options);
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
