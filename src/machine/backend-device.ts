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
import type { NeedTracer } from '../memory/traced-memory.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import type { DeviceKeeper } from '../virtio/device-keeper.ts';
import { domainId } from '../xen/ids.ts';
import type { Xenstore, XenstoreNodes } from '../xen/xenstore.ts';
import { changeState, stateAt, valueAt } from '../toolstack/xenbus.ts';
import type { BackendDomain, MemoryAccess, ServedDevice, ServedMeter } from './backend-domain.ts';
import { Looks } from './looks.ts';

/** A device made for one announcement; `close` gives back what it was made of. */
export interface MadeDevice {
  readonly device: VirtioDevice;
  /** How it reaches buffers; 'map' unless given. */
  readonly access?: MemoryAccess;
  /** Keeps it for a successor. */
  readonly keeper?: DeviceKeeper | undefined;
  /** Told which bytes of the guest's it has in hand. */
  readonly needs?: NeedTracer | undefined;
  /** Counts what it does. */
  readonly meter?: ServedMeter | undefined;
  close(): void;
}

/**
 * Makes the device that the nodes describe, or throws an error whose message says why not.
 *
 * @param again whether a predecessor may have served it, which was killed
 */
export type MakeDevice = (nodes: VirtioNodes, again: boolean) => MadeDevice;

/** What has become of a device. */
export type DeviceNews =
  | { readonly kind: 'served'; readonly nodes: VirtioNodes; readonly served: ServedDevice }
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'closed' };

/** Hears what becomes of the devices of a service. */
type TellNews = (address: DeviceAddress, news: DeviceNews) => void;

/** How devices are served, where that is not as in the embedded Xen. */
export interface DeviceOptions {
  readonly tell?: TellNews;
  /**
   * Whether to go on with what a predecessor in this domain served until it was killed. Otherwise that waits for the
   * toolstack, which announces it anew.
   */
  readonly succeeds?: boolean;
}

interface Running {
  readonly served: ServedDevice;
  readonly made: MadeDevice;
}

/** One device, from its announcement until its nodes have gone. */
export class BackendDevice {
  readonly #backend: BackendDomain;
  readonly #store: Xenstore;
  readonly #make: MakeDevice;
  readonly #options: DeviceOptions;
  readonly #address: DeviceAddress;
  readonly #own: string;
  readonly #other: string;
  readonly #looks = new Looks(() => this.#look());
  #running: Running | undefined;

  constructor(
    backend: BackendDomain,
    store: Xenstore,
    make: MakeDevice,
    address: DeviceAddress,
    options: DeviceOptions,
  ) {
    this.#backend = backend;
    this.#store = store;
    this.#make = make;
    this.#options = options;
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

  /** Resolves when nothing is to be done but in answer to a change to come. */
  settled(): Promise<void> {
    return this.#looks.settled();
  }

  /** Ends it at once: its nodes have gone, or the backend stops. */
  async end(): Promise<void> {
    this.#close();
    await this.#looks.end();
    // A look that was under way may have begun again.
    this.#close();
  }

  /** Lets go of it, and leaves it as it is to a successor in this domain. */
  async leave(): Promise<void> {
    await this.#looks.end();
    const running = this.#running;
    if (running === undefined) return;
    this.#running = undefined;
    this.#backend.leave(running.served);
    running.made.close();
  }

  async #look(): Promise<void> {
    const own = await stateAt(this.#store, this.#own);
    const other = await stateAt(this.#store, this.#other);
    // Announced anew, with nodes that may say something else.
    if (own === undefined || own === XENBUS_INITIALISING) this.#close();
    if (own === undefined) return;
    if (this.#running !== undefined) await this.#follow(own, other);
    else if (own === XENBUS_CLOSING) await this.#move(own, XENBUS_CLOSED);
    else if (this.#options.succeeds && isServed(own)) await this.#begin(own, true);
    else if (own === XENBUS_INITIALISING || (await this.#isWantedAgain(own, other))) await this.#begin(own);
  }

  /** While the device is served: goes along with the guest's end. One that cannot be read has gone. */
  async #follow(own: number, other: number | undefined): Promise<void> {
    // Linux's virtio drivers do not follow these states: their end stays as the toolstack made it.
    const follows = other !== XENBUS_INITIALISING;
    if (other === XENBUS_CLOSED || other === undefined || (own === XENBUS_CLOSING && !follows)) {
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

  /** @param again whether a predecessor has served it: nobody is told that it begins */
  async #begin(own: number, again = false): Promise<void> {
    const nodes = await this.#store.transaction((view) => this.#read(view));
    if (nodes === undefined) return;
    try {
      const made = this.#make(nodes, again);
      const served = this.#serve(made, nodes);
      this.#running = { made, served };
      this.#options.tell?.(this.#address, { kind: 'served', nodes, served });
    } catch (error) {
      const reason = error instanceof Error ? error.message : `${error}`;
      this.#options.tell?.(this.#address, { kind: 'refused', reason });
      await this.#move(own, XENBUS_CLOSED, { error: reason });
      return;
    }
    // What is served must be what is announced when the guest is told: an image of the last announcement is not.
    const same = async (view: XenstoreNodes) =>
      JSON.stringify(await this.#read(view)) === JSON.stringify(nodes);
    const next = again ? own : XENBUS_INIT_WAIT;
    if (await changeState(this.#store, this.#own, own, next, {}, same)) return;
    this.#close();
    this.#looks.soon();
  }

  #serve(made: MadeDevice, nodes: VirtioNodes): ServedDevice {
    try {
      const access = nodes.grantUsage ? made.access : 'plain';
      const { irq } = nodes;
      const { device, keeper, needs, meter } = made;
      return this.#backend.serve(device, nodes.guest, nodes.base, access, { irq, keeper, needs, meter });
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
    this.#options.tell?.(this.#address, { kind: 'closed' });
  }
}

/** Whether a backend that is in this state serves its device. */
function isServed(own: number): boolean {
  return own === XENBUS_INIT_WAIT || own === XENBUS_INITIALISED || own === XENBUS_CONNECTED;
}
