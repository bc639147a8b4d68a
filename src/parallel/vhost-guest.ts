// A guest in this process whose disk is served by another program, over vhost-user: its memory, its block driver, and
// what it does when the backend dies. After vhost-thread.ts; before vhost-connection.ts and drivers/blk.ts.
//
// The backend reaches a window of the memory and nothing else. Each connection has a window of its own: a backend
// that is gone, or was replaced, keeps a file that nobody uses any more.

import { setTimeout as sleep } from 'node:timers/promises';
import { VIRTIO_ID_BLOCK } from '../abi/virtio.ts';
import { GuestHeap } from '../dma/guest-heap.ts';
import { GuestMemory } from '../dma/guest-memory.ts';
import { SharedWindow } from '../dma/shared-window.ts';
import { WindowDma } from '../dma/window-dma.ts';
import { BlkDriver, type BlkDriverOptions } from '../drivers/blk.ts';
import type { GuestDevice } from '../drivers/guest.ts';
import { RECOVERY } from '../drivers/recovery.ts';
import { type Libc, SystemError } from '../hosts/linux/libc.ts';
import { WindowMemory } from '../hosts/linux/window-memory.ts';
import type { Tracer } from '../trace.ts';
import { DeviceRefused } from '../virtio/negotiate.ts';
import type { DriverTransport } from '../virtio/transport.ts';

import { milliseconds } from './clock.ts';
import { BACKEND, GUEST } from './host-options.ts';
import type { RunnableGuest } from './runnable-guest.ts';
import { VhostConnection } from './vhost-connection.ts';

/** Where the guest's memory begins: not at 0, which is no address of a buffer. */
const MEMORY_BASE = 0x4000_0000;
/** The disk's number in the trace. */
const DEVICE = 0;
/** Milliseconds between two tries to reach a backend that has gone. */
const RETRY = 250;
/** Milliseconds between two looks while requests are under way, and while none are. */
const GLANCE = 1;
const IDLE_GLANCE = 50;

/** How the guest is made. */
export interface VhostGuestOptions extends BlkDriverOptions {
  /** Path of the backend's socket. */
  readonly socket: string;
  /** Bytes of memory, whole pages, the window included. */
  readonly memory: number;
  /** Bytes of the window; whole pages. */
  readonly window: number;
  /** Milliseconds for which a backend that has gone is waited for; 0 is not at all. */
  readonly patience: number;
}

/** A backend that has gone and is waited for. */
interface Outage {
  readonly reason: string;
  readonly until: number;
  next: number;
}

/** One guest with one disk. */
export class VhostGuest implements RunnableGuest {
  readonly ports: RunnableGuest['ports'];
  readonly disk: BlkDriver;
  onWaiting: () => void = () => undefined;
  /** How often the backend went away and another one took its place. */
  reconnections = 0;
  readonly #libc: Libc;
  readonly #options: VhostGuestOptions;
  /** Milliseconds for which a backend that goes now is waited for. */
  #patience: number;
  readonly #memory: WindowMemory;
  readonly #window: SharedWindow;
  readonly #device: Omit<GuestDevice, 'transport'>;
  #connection: VhostConnection | undefined;
  #outage: Outage | undefined;
  #requests = 0;

  /** Connects and starts the disk. Throws SystemError when nobody listens, DeviceRefused when the disk is of no use. */
  constructor(libc: Libc, options: VhostGuestOptions, tracer: Tracer) {
    this.#libc = libc;
    this.#options = options;
    this.#patience = options.patience;
    this.#memory = new WindowMemory(libc, options.memory, options.window);
    const memory = new GuestMemory(this.#memory.region, MEMORY_BASE);
    this.#window = new SharedWindow(memory, options.window, {
      domain: GUEST,
      device: DEVICE,
      backend: BACKEND,
      tracer,
    });
    this.#device = {
      dma: new WindowDma(this.#window),
      // It is the window that restricts the backend, not addresses that need translation.
      restricted: false,
      recovery: RECOVERY,
      memory,
      heap: new GuestHeap(memory),
      tracer,
      nextRequestId: () => this.#requests++,
      waiting: () => this.onWaiting(),
      anyInFlight: () => this.disk.inFlight > 0,
      domain: GUEST,
      device: DEVICE,
    };
    this.ports = {
      memory,
      events: { sleep: (limit) => this.#sleep(limit), nextEvent: (limit) => this.#nextEvent(limit) },
    };
    try {
      this.disk = new BlkDriver(this.#deviceAt(this.#connect()), options);
    } catch (error) {
      const { failure } = this.#connection?.frontend ?? {};
      this.#disconnect('the disk cannot be used');
      this.#memory.close();
      // The driver knows that the device is gone, the transport knows why.
      throw failure === undefined ? error : new DeviceRefused(failure);
    }
  }

  get busy(): boolean {
    return this.disk.busy;
  }

  poll(): boolean {
    const worked = this.disk.poll() > 0;
    this.#notice();
    return worked;
  }

  arm(): boolean {
    return this.disk.arm();
  }

  tick(now: number): number {
    const due = this.disk.tick(now);
    const outage = this.#outage;
    if (outage === undefined) return due;
    if (now >= outage.next) this.#tryAgain(outage, now);
    return Math.min(due, this.#outage?.next ?? due);
  }

  revive(reason: string): void {
    // One that is waited for has until then.
    if (this.#outage === undefined) this.disk.recover(reason);
  }

  /** Gives up a backend that is waited for, and waits for none from now on. */
  stopWaiting(): void {
    this.#patience = 0;
    const outage = this.#outage;
    this.#outage = undefined;
    if (outage !== undefined) this.disk.fail(outage.reason);
  }

  /** Stops the disk and gives everything back. Nothing of the guest may be used any more. */
  close(): void {
    this.disk.close();
    this.#disconnect('the guest has stopped');
    this.#memory.close();
  }

  /** Opens the window for a new connection, which the driver has not used yet. */
  #connect(): DriverTransport {
    this.#window.open();
    const { fd } = this.#memory;
    const { size, address } = this.#window;
    try {
      const { socket } = this.#options;
      this.#connection = new VhostConnection(this.#libc, socket, VIRTIO_ID_BLOCK, { fd, size, address });
      return this.#connection.frontend;
    } catch (error) {
      this.#window.close();
      throw error;
    }
  }

  #deviceAt(transport: DriverTransport): GuestDevice {
    return { ...this.#device, transport };
  }

  /** Closes the connection, and with it the window; nothing is in it any more. */
  #disconnect(reason: string): void {
    if (this.#connection === undefined) return;
    this.#connection.close(reason);
    this.#connection = undefined;
    this.#window.close();
  }

  /** Notices a connection that is over: the backend is waited for, or given up. */
  #notice(): void {
    const reason = this.#connection?.frontend.failure;
    if (reason === undefined) return;
    const now = milliseconds();
    this.disk.suspend(reason);
    this.#disconnect(reason);
    this.#memory.renew();
    if (this.#patience === 0) this.disk.fail(reason);
    else this.#outage = { reason, until: now + this.#patience, next: now };
  }

  #tryAgain(outage: Outage, now: number): void {
    try {
      this.disk.resume(this.#deviceAt(this.#connect()));
      this.#outage = undefined;
      this.reconnections++;
    } catch (error) {
      if (!(error instanceof SystemError || error instanceof DeviceRefused)) throw error;
      this.#disconnect(error.message);
      outage.next = now + RETRY;
      if (now < outage.until) return;
      this.#outage = undefined;
      this.disk.fail(`${outage.reason}; nobody took its place: ${error.message}`);
    }
  }

  #sleep(limit: number): void {
    if (this.#connection === undefined) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, limit);
    else if (this.#connection.wait(limit)) this.disk.interrupt();
    this.#notice();
  }

  /** Looks now and then: the event loop cannot wait for eventfds itself. */
  async #nextEvent(limit: number): Promise<void> {
    const end = milliseconds() + limit;
    while (milliseconds() < end) {
      await sleep(this.busy ? GLANCE : IDLE_GLANCE);
      if (this.#connection?.wait(0) !== true) continue;
      this.disk.interrupt();
      this.#notice();
      return;
    }
  }
}
