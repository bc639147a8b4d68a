// A backend domain at work: it watches xenstore for devices that the toolstack gives it, serves each, and
// lets go of it when its nodes are taken away.
// Before backend-domain.ts; the nodes are those of toolstack/virtio-nodes.ts.

import {
  backendPath,
  childrenOf,
  readDevice,
  VIRTIO_KINDS,
  type VirtioNodes,
  XENBUS_CLOSED,
  XENBUS_INIT_WAIT,
} from '../toolstack/virtio-nodes.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import type { Unwatch, Xenstore } from '../xen/xenstore.ts';
import type { BackendDomain, MemoryAccess, ServedDevice } from './backend-domain.ts';

/** A device made for one announcement; `close` gives back what it was made of. */
export interface MadeDevice {
  readonly device: VirtioDevice;
  /** How it reaches buffers; 'map' unless given. */
  readonly access?: MemoryAccess;
  close(): void;
}

/** Whose device it is, and which. */
type DevicePlace = Pick<VirtioNodes, 'kind' | 'backend' | 'devid'> & { readonly guest: number };

interface Running {
  readonly served: ServedDevice;
  readonly made: MadeDevice;
}

/** Serves what xenstore announces. */
export class BackendService {
  readonly #backend: BackendDomain;
  readonly #store: Xenstore;
  readonly #make: (nodes: VirtioNodes) => MadeDevice;
  readonly #running = new Map<string, Running>();
  /** Devices that could not be made; not tried again until their nodes have gone. */
  readonly #refused = new Set<string>();
  #unwatch: Unwatch | undefined;
  /** One look at the store after the other. */
  #looking: Promise<void> = Promise.resolve();
  /** Whether one of them has not begun. */
  #due = false;

  /** @param make makes the device that the nodes describe, or throws an error whose message says why not */
  constructor(backend: BackendDomain, store: Xenstore, make: (nodes: VirtioNodes) => MadeDevice) {
    this.#backend = backend;
    this.#store = store;
    this.#make = make;
  }

  /** Starts watching. */
  async start(): Promise<void> {
    this.#unwatch = await this.#store.watch(this.#root, () => this.#lookSoon());
  }

  /** Ends all devices and gives back what they hold. */
  async stop(): Promise<void> {
    await this.#unwatch?.();
    await this.#looking;
    for (const path of [...this.#running.keys()]) this.#end(path);
  }

  get #root(): string {
    return `/local/domain/${this.#backend.ports.id}/backend`;
  }

  /** Events while a look is still to come are all answered by that one (case X7). */
  #lookSoon(): void {
    if (this.#due) return;
    this.#due = true;
    this.#looking = this.#looking.then(() => {
      this.#due = false;
      return this.#look();
    });
  }

  async #look(): Promise<void> {
    const announced = new Set<string>();
    for (const kind of VIRTIO_KINDS) {
      for (const guest of await childrenOf(this.#store, `${this.#root}/${kind}`)) {
        for (const devid of await childrenOf(this.#store, `${this.#root}/${kind}/${guest}`)) {
          const place = { kind, backend: this.#backend.ports.id, guest: Number(guest), devid: Number(devid) };
          announced.add(backendPath(place));
          await this.#begin(backendPath(place), place);
        }
      }
    }
    for (const path of [...this.#running.keys()]) if (!announced.has(path)) this.#end(path);
    for (const path of this.#refused) if (!announced.has(path)) this.#refused.delete(path);
  }

  async #begin(path: string, place: DevicePlace): Promise<void> {
    if (this.#running.has(path) || this.#refused.has(path)) return;
    const nodes = await readDevice(this.#store, place.kind, place.backend, place.guest, place.devid);
    if (nodes === undefined) return;
    try {
      const made = this.#make(nodes);
      const access = nodes.grantUsage ? made.access : 'plain';
      const served = this.#backend.serve(made.device, nodes.guest, nodes.base, access);
      this.#running.set(path, { served, made });
      await this.#store.write(`${path}/state`, `${XENBUS_INIT_WAIT}`);
    } catch (error) {
      this.#refused.add(path);
      await this.#store.write(`${path}/error`, error instanceof Error ? error.message : `${error}`);
      await this.#store.write(`${path}/state`, `${XENBUS_CLOSED}`);
    }
  }

  #end(path: string): void {
    const running = this.#running.get(path);
    if (running === undefined) return;
    this.#running.delete(path);
    this.#backend.remove(running.served);
    running.made.close();
  }
}
