// The backend's end of one device that the toolstack announced: makes it, serves it, and lets go of it when the guest
// or the toolstack wants that, moving through the states of xenbus meanwhile, as backends do.
// After backend-service.ts; before backend-domain.ts. The other end is guest-device.ts.
//
// Every look starts from what the store says now, not from what has happened, as in guest-device.ts.

import {
  backendPath,
  type DeviceAddress,
  frontendPath,
  readDevice,
  type VirtioNodes,
  XENBUS_CLOSED,
  XENBUS_CLOSING,
  XENBUS_CONNECTED,
  XENBUS_INIT_WAIT,
  XENBUS_INITIALISED,
  XENBUS_INITIALISING,
} from '../toolstack/virtio-nodes.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { domainId } from '../xen/ids.ts';
import type { Xenstore, XenstoreNodes } from '../xen/xenstore.ts';
import { changeState, stateAt, valueAt } from '../toolstack/xenbus.ts';
import type { BackendDomain, MemoryAccess, ServedDevice } from './backend-domain.ts';
import { Looks } from './looks.ts';

/** A device made for one announcement; `close` gives back what it was made of. */
export interface MadeDevice {
  readonly device: VirtioDevice;
  /** How it reaches buffers; 'map' unless given. */
  readonly access?: MemoryAccess;
  close(): void;
}

/** Makes the device that the nodes describe, or throws an error whose message says why not. */
export type MakeDevice = (nodes: VirtioNodes) => MadeDevice;

interface Running {
  readonly served: ServedDevice;
  readonly made: MadeDevice;
}

/** One device, from its announcement until its nodes have gone. */
export class BackendDevice {
  readonly #backend: BackendDomain;
  readonly #store: Xenstore;
  readonly #make: MakeDevice;
  readonly #address: DeviceAddress;
  readonly #own: string;
  readonly #other: string;
  readonly #looks = new Looks(() => this.#look());
  #running: Running | undefined;

  constructor(backend: BackendDomain, store: Xenstore, make: MakeDevice, address: DeviceAddress) {
    this.#backend = backend;
    this.#store = store;
    this.#make = make;
    this.#address = address;
    this.#own = backendPath(address);
    this.#other = frontendPath(address);
  }

  /** Begins to watch the guest's end. */
  start(): Promise<void> {
    return this.#looks.watch(this.#store, `${this.#other}/state`);
  }

  /** To be called when the backend's own nodes have changed. */
  lookSoon(): void {
    this.#looks.soon();
  }

  /** Ends it at once: its nodes have gone, or the backend stops. */
  async end(): Promise<void> {
    this.#close();
    await this.#looks.end();
    // A look that was under way may have begun again.
    this.#close();
  }

  async #look(): Promise<void> {
    const own = await stateAt(this.#store, this.#own);
    const other = await stateAt(this.#store, this.#other);
    // Announced anew, with nodes that may say something else.
    if (own === undefined || own === XENBUS_INITIALISING) this.#close();
    if (own === undefined) return;
    if (this.#running !== undefined) await this.#follow(own, other);
    else if (own === XENBUS_CLOSING) await this.#move(own, XENBUS_CLOSED);
    else if (own === XENBUS_INITIALISING || (await this.#isWantedAgain(own, other))) await this.#begin(own);
  }

  /** While the device is served: goes along with the guest's end. One that cannot be read has gone. */
  async #follow(own: number, other: number | undefined): Promise<void> {
    if (other === XENBUS_CLOSED || other === undefined) {
      this.#close();
      await this.#move(own, XENBUS_CLOSED);
    } else if (own === XENBUS_INIT_WAIT && (other === XENBUS_INITIALISED || other === XENBUS_CONNECTED))
      await this.#move(own, XENBUS_CONNECTED);
    else if (own === XENBUS_CONNECTED && other === XENBUS_INITIALISING) {
      // The guest begins anew, as one that found the device replaced does.
      this.#close();
      await this.#move(own, XENBUS_INITIALISING);
      this.#looks.soon();
    }
  }

  /** A guest's end that has closed may begin again, as long as the toolstack has not unplugged the device. */
  async #isWantedAgain(own: number, other: number | undefined): Promise<boolean> {
    if (own !== XENBUS_CLOSED || other !== XENBUS_INITIALISING) return false;
    const refused = (await valueAt(this.#store, `${this.#own}/error`)) !== undefined;
    return !refused && (await valueAt(this.#store, `${this.#own}/online`)) === '1';
  }

  async #begin(own: number): Promise<void> {
    const nodes = await this.#store.transaction((view) => this.#read(view));
    if (nodes === undefined) return;
    try {
      const made = this.#make(nodes);
      this.#running = { made, served: this.#serve(made, nodes) };
    } catch (error) {
      await this.#move(own, XENBUS_CLOSED, { error: error instanceof Error ? error.message : `${error}` });
      return;
    }
    // What is served must be what is announced when the guest is told: an image of the last announcement is not.
    const same = async (view: XenstoreNodes) =>
      JSON.stringify(await this.#read(view)) === JSON.stringify(nodes);
    if (await changeState(this.#store, this.#own, own, XENBUS_INIT_WAIT, {}, same)) return;
    this.#close();
    this.#looks.soon();
  }

  #serve(made: MadeDevice, nodes: VirtioNodes): ServedDevice {
    try {
      const access = nodes.grantUsage ? made.access : 'plain';
      return this.#backend.serve(made.device, nodes.guest, nodes.base, access, nodes.irq);
    } catch (error) {
      made.close();
      throw error;
    }
  }

  #read(view: XenstoreNodes): Promise<VirtioNodes | undefined> {
    const { kind, backend, guest, devid } = this.#address;
    return readDevice(view, kind, domainId(backend), guest, devid);
  }

  #move(from: number, to: number, values?: Readonly<Record<string, string>>): Promise<boolean> {
    return changeState(this.#store, this.#own, from, to, values);
  }

  #close(): void {
    const running = this.#running;
    if (running === undefined) return;
    this.#running = undefined;
    this.#backend.remove(running.served);
    running.made.close();
  }
}
