// The guest's end of one device that the toolstack announced: attaches a driver when the backend is ready, detaches it
// when either of the two wants that, and moves through the states of xenbus meanwhile, as frontends do.
// After guest-devices.ts; before device-finder.ts and guest-domain.ts. The other end is backend-device.ts.
//
// Every look starts from what the store says now, not from what has happened: whatever was missed, and however fast
// states change, driver and device end up as the nodes want them.

import type { Driver } from '../drivers/driver.ts';
import {
  backendPath,
  type DeviceAddress,
  frontendPath,
  XENBUS_CLOSED,
  XENBUS_CLOSING,
  XENBUS_CONNECTED,
  XENBUS_INIT_WAIT,
  XENBUS_INITIALISED,
  XENBUS_INITIALISING,
} from '../toolstack/virtio-nodes.ts';
import { changeState, stateAt } from '../toolstack/xenbus.ts';
import { DeviceRefused } from '../virtio/negotiate.ts';
import type { Xenstore } from '../xen/xenstore.ts';
import { Looks } from './looks.ts';

/** What a guest does with its devices. */
export interface DeviceUse {
  /**
   * Finds the device and starts its driver.
   *
   * @throws DeviceRefused when it may not be used
   */
  attach(device: DeviceAddress): Promise<Driver>;
  /** The toolstack wants the device back: resolves when the guest can do without. The driver still works. */
  leaving(driver: Driver, device: DeviceAddress): Promise<void>;
  /** Stops the driver, or keeps it for the same device elsewhere; called once for each `attach`. */
  detach(driver: Driver, device: DeviceAddress, reason: string): void;
}

/** One device, from its announcement until its nodes have gone. */
export class GuestDevice {
  readonly #store: Xenstore;
  readonly #address: DeviceAddress;
  readonly #use: DeviceUse;
  readonly #own: string;
  readonly #other: string;
  readonly #looks = new Looks(() => this.#look());
  #driver: Driver | undefined;

  constructor(store: Xenstore, address: DeviceAddress, use: DeviceUse) {
    this.#store = store;
    this.#address = address;
    this.#use = use;
    this.#own = frontendPath(address);
    this.#other = backendPath(address);
  }

  /** Begins to watch the backend. */
  start(): Promise<void> {
    return this.#looks.watch(this.#store, `${this.#other}/state`);
  }

  /** To be called when the guest's own nodes have changed. */
  lookSoon(): void {
    this.#looks.soon();
  }

  /** Ends it at once: its nodes have gone, or the guest stops using its devices. */
  async end(reason: string): Promise<void> {
    this.#drop(reason);
    await this.#looks.end();
    // A look that was under way may have attached it again.
    this.#drop(reason);
  }

  async #look(): Promise<void> {
    const own = await stateAt(this.#store, this.#own);
    const other = await stateAt(this.#store, this.#other);
    if (own === undefined) return this.#drop('the toolstack has taken the device away');
    if (this.#driver === undefined) return this.#await(own, other);
    if (own === XENBUS_INITIALISING || this.#wasReplaced()) return this.#begin(own);
    if (other === XENBUS_CLOSING) return this.#leave(own);
    if (other === XENBUS_CLOSED || other === undefined) return this.#close(own, 'the backend has gone');
    if (other === XENBUS_CONNECTED && own === XENBUS_INITIALISED) await this.#move(own, XENBUS_CONNECTED);
  }

  /** Without a driver: attaches one when the backend is ready, and follows it when it closes. */
  async #await(own: number, other: number | undefined): Promise<void> {
    if (own === XENBUS_INITIALISING && other === XENBUS_INIT_WAIT) await this.#connect();
    else if ((other === XENBUS_CLOSING || other === XENBUS_CLOSED) && own !== XENBUS_CLOSED)
      await this.#move(own, XENBUS_CLOSED);
  }

  async #connect(): Promise<void> {
    try {
      this.#driver = await this.#use.attach(this.#address);
    } catch (error) {
      if (!(error instanceof DeviceRefused)) throw error;
      await this.#refuse(error.message);
      return;
    }
    await this.#move(XENBUS_INITIALISING, XENBUS_INITIALISED);
    // Had the device been replaced before that, the new one would now wait for ever.
    if (this.#wasReplaced()) this.#looks.soon();
  }

  /** What was refused may have been a device that has gone meanwhile: the next look knows. */
  #refuse(error: string): Promise<boolean> {
    return changeState(
      this.#store,
      this.#own,
      XENBUS_INITIALISING,
      XENBUS_CLOSED,
      { error },
      async (nodes) => (await stateAt(nodes, this.#other)) !== undefined && !this.#looks.due,
    );
  }

  /** The nodes are those of another announcement, or the backend serves another device behind them. */
  async #begin(own: number): Promise<void> {
    this.#drop('the device was replaced by another one');
    if (own !== XENBUS_INITIALISING) await this.#move(own, XENBUS_INITIALISING);
    this.#looks.soon();
  }

  async #leave(own: number): Promise<void> {
    await this.#move(own, XENBUS_CLOSING);
    const driver = this.#driver;
    if (driver !== undefined) await this.#use.leaving(driver, this.#address);
    await this.#close(XENBUS_CLOSING, 'the toolstack has unplugged the device');
  }

  async #close(own: number, reason: string): Promise<void> {
    this.#drop(reason);
    await this.#move(own, XENBUS_CLOSED);
  }

  #move(from: number, to: number): Promise<boolean> {
    return changeState(this.#store, this.#own, from, to);
  }

  /** A driver that has given its device up, or waits for it, keeps it: the toolstack decides what comes next. */
  #wasReplaced(): boolean {
    const driver = this.#driver;
    if (driver === undefined || driver.failure !== undefined || driver.outage !== undefined) return false;
    return !driver.holdsDevice;
  }

  #drop(reason: string): void {
    const driver = this.#driver;
    if (driver === undefined) return;
    this.#driver = undefined;
    this.#use.detach(driver, this.#address, reason);
  }
}
