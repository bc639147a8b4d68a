// Console driver (virtio 1.3 §5.3): what driver and device say about ports. After driver.ts, before console-port.ts.
//
// The device is a stranger: ports that it names and does not have, messages out of order and storms of them are
// counted and change nothing (case B16). What is still to be said to it is kept as state, not as messages.

import {
  CONSOLE_CONTROL_QUEUE,
  type ConsoleSize,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_DEVICE_REMOVE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  VIRTIO_CONSOLE_RESIZE,
  virtioConsoleConfig,
  virtioConsoleControl,
  virtioConsoleResize,
} from '../abi/virtio-console.ts';
import { VIRTIO_ID_CONSOLE } from '../abi/virtio.ts';
import { DeviceRefused } from '../virtio/negotiate.ts';
import { GuestConsolePort } from './console-port.ts';
import { Driver } from './driver.ts';
import type { GuestDevice } from './guest.ts';
import { Inbox, Outbox } from './page-queues.ts';
import { DeviceFailed, VirtioDriver } from './virtio-driver.ts';

const QUEUE_SIZE = 16;
/** Ports that are used, however many the device says it has: each has two queues. */
const MAX_PORTS = 16;
const CONTROL_BUFFERS = 4;
/** Characters of a port's name that are kept. */
const MAX_NAME = 64;
const HEADER_SIZE = virtioConsoleControl.size;

/** A port, and what driver and device have told each other of it since the last reset. */
interface KnownPort {
  readonly port: GuestConsolePort;
  announced: boolean;
  toldReady: boolean;
  toldOpen: boolean;
}

/** A console. Whoever runs the guest calls `poll` and `interrupt`. */
export class ConsoleDriver extends Driver {
  /** Requests whose end could give references back: none, for what a host has not read may stay unread. */
  override readonly inFlight = 0;
  /** Control messages of the device that made no sense. */
  ignored = 0;
  /** Called when the device has a port, anew or again; `port` waits for one. */
  onPort: (port: GuestConsolePort) => void = () => undefined;

  readonly #isMultiport: boolean;
  readonly #maxPorts: number;
  readonly #inbox: Inbox;
  readonly #outbox: Outbox;
  #toldReady = false;
  /** By id. One that has gone stays: the device still has its buffers. */
  readonly #ports = new Map<number, KnownPort>();
  readonly #waiting: {
    readonly id: number;
    resolve(port: GuestConsolePort): void;
    reject(e: Error): void;
  }[] = [];

  /** Starts the device. Throws DeviceRefused when it is unusable. */
  constructor(guest: GuestDevice) {
    const driver = new VirtioDriver(
      guest,
      VIRTIO_ID_CONSOLE,
      VIRTIO_CONSOLE_F_SIZE | VIRTIO_CONSOLE_F_MULTIPORT,
    );
    super(driver);
    this.#isMultiport = driver.has(VIRTIO_CONSOLE_F_MULTIPORT);
    this.#inbox = new Inbox(driver, CONSOLE_CONTROL_QUEUE, CONTROL_BUFFERS);
    this.#outbox = new Outbox(driver, CONSOLE_CONTROL_QUEUE + 1);
    this.#maxPorts = this.#isMultiport ? Math.min(readConfig(driver).max_nr_ports, MAX_PORTS) : 1;
    if (this.#maxPorts === 0) throw driver.refuse('the console claims to have no ports (max_nr_ports 0)');
    driver.onFailure = () => this.#fail();
    driver.onStop = () => this.#withdraw();
    driver.onRestart = () => this.#begin();
    driver.onConfigChange = () => this.#readSize();
    driver.start(this.#isMultiport ? 2 * this.#maxPorts + 2 : 2, QUEUE_SIZE);
    this.#begin();
  }

  /** Whether something was written that the device has not taken. */
  override get busy(): boolean {
    for (const { port } of this.#ports.values()) if (port.busy) return true;
    return false;
  }

  /** The ports that the device has, by id. */
  get ports(): GuestConsolePort[] {
    return [...this.#ports.values()].map(({ port }) => port).filter(({ present }) => present);
  }

  /** A port, as soon as the device has it. Rejects with DeviceFailed when the device is given up before. */
  port(id: number): Promise<GuestConsolePort> {
    const known = this.#ports.get(id)?.port;
    if (known?.present) return Promise.resolve(known);
    if (this.failure !== undefined) return Promise.reject(new DeviceFailed(this.failure));
    return new Promise((resolve, reject) => this.#waiting.push({ id, resolve, reject }));
  }

  /** Takes what the device has completed. Returns how much that was. */
  override poll(): number {
    const taken = this.driver.guard(() => this.#move(), 0);
    if (taken > 0) this.driver.relieve();
    return taken;
  }

  /** Stops the device. Returns whether all pages could be taken back from the backend. */
  override close(): boolean {
    const clean = this.detach('the console');
    // While the backend still maps them, the quarantine holds them too.
    this.#inbox.close();
    this.#outbox.close();
    for (const { port } of this.#ports.values()) port.release();
    return clean;
  }

  /** The device has been started. Without MULTIPORT it has one port, of which nothing is said. */
  #begin(): void {
    if (!this.#isMultiport) {
      const { port } = this.#appear(0);
      port.isConsole = port.hostOpen = true;
      this.#readSize();
    }
    this.#moveSoon();
  }

  /** After a reset: the device has to be told, and to tell, everything anew. */
  #withdraw(): void {
    this.#toldReady = false;
    this.#inbox.withdraw();
    this.#outbox.withdraw();
    for (const known of this.#ports.values()) {
      forget(known);
      known.port.withdraw();
    }
  }

  #fail(): void {
    this.#withdraw();
    const reason = this.failure ?? 'the console was given up';
    for (const { port } of this.#ports.values()) this.#disappear(port, reason);
    for (const { reject } of this.#waiting.splice(0)) reject(new DeviceFailed(reason));
  }

  #moveSoon(): void {
    this.driver.guard(() => this.#move(), 0);
  }

  #move(): number {
    let taken = this.#isMultiport ? this.#listen() + this.#talk() : 0;
    for (const { port } of this.#ports.values()) taken += port.move();
    return taken;
  }

  /** As many messages as there are buffers: a device that never stops does not keep others waiting. */
  #listen(): number {
    let heard = 0;
    for (; heard < CONTROL_BUFFERS; heard++) {
      const message = this.#inbox.take();
      if (message === undefined) break;
      if (!this.#hear(message)) this.ignored++;
    }
    this.#inbox.post(CONTROL_BUFFERS);
    return heard;
  }

  /** Tells the device one thing that it has not been told. */
  #talk(): number {
    const taken = this.#outbox.poll() ? 1 : 0;
    if (this.#outbox.busy) return taken;
    if (!this.#toldReady) this.#toldReady = this.#send(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    else this.#talkOfPorts();
    return taken;
  }

  #talkOfPorts(): void {
    for (const known of this.#ports.values()) {
      const { id, isOpen } = known.port;
      if (!known.announced) continue;
      if (!known.toldReady) {
        known.toldReady = this.#send(id, VIRTIO_CONSOLE_PORT_READY, 1);
        return;
      }
      if (known.toldOpen !== isOpen) {
        if (this.#send(id, VIRTIO_CONSOLE_PORT_OPEN, isOpen ? 1 : 0)) known.toldOpen = isOpen;
        return;
      }
    }
  }

  #send(id: number, event: number, value: number): boolean {
    return this.#outbox.send(virtioConsoleControl.make({ id, event, value }).bytes);
  }

  /** §5.3.6.2: a message of the device's. Returns whether it made sense. */
  #hear(message: Uint8Array): boolean {
    if (!this.#toldReady || message.length < HEADER_SIZE) return false;
    const { id, event, value } = virtioConsoleControl.over(message);
    const known = this.#ports.get(id);
    if (event === VIRTIO_CONSOLE_DEVICE_ADD) return this.#add(id, known);
    if (known === undefined || !known.announced) return false;
    const { port } = known;
    const more = message.subarray(HEADER_SIZE);
    if (event === VIRTIO_CONSOLE_DEVICE_REMOVE) this.#remove(known);
    else if (event === VIRTIO_CONSOLE_CONSOLE_PORT) beConsole(known);
    else if (event === VIRTIO_CONSOLE_PORT_OPEN) port.hostOpen = value === 1;
    else if (event === VIRTIO_CONSOLE_PORT_NAME) port.name = printable(more);
    else return event === VIRTIO_CONSOLE_RESIZE && resize(port, more);
    return true;
  }

  #add(id: number, known: KnownPort | undefined): boolean {
    if (id >= this.#maxPorts || known?.announced) return false;
    this.#appear(id);
    return true;
  }

  #appear(id: number): KnownPort {
    const known = this.#ports.get(id) ?? {
      port: new GuestConsolePort(id, this.driver, () => this.#moveSoon()),
      announced: true,
      toldReady: false,
      toldOpen: false,
    };
    this.#ports.set(id, known);
    const { port } = known;
    known.announced = true;
    port.present = true;
    this.onPort(port);
    for (let at = this.#waiting.length - 1; at >= 0; at--)
      if (this.#waiting[at].id === id) this.#waiting.splice(at, 1)[0].resolve(port);
    return known;
  }

  #remove(known: KnownPort): void {
    forget(known);
    this.#disappear(known.port, `the device has taken port ${known.port.id} of the console away`);
  }

  #disappear(port: GuestConsolePort, reason: string): void {
    port.present = false;
    port.end(reason);
  }

  /** §5.3.5: without MULTIPORT, the size is in the configuration space. One that never rests is not taken up. */
  #readSize(): void {
    const port = this.#ports.get(0)?.port;
    if (this.#isMultiport || port === undefined || !this.driver.has(VIRTIO_CONSOLE_F_SIZE)) return;
    try {
      const { cols, rows } = readConfig(this.driver);
      setSize(port, { columns: cols, rows });
    } catch (error) {
      if (!(error instanceof DeviceRefused)) throw error;
      this.ignored++;
    }
  }
}

/** §5.3.6.2.2: a console is open, and the device is told so each time that it asks for one. */
function beConsole(known: KnownPort): void {
  known.port.isConsole = true;
  known.toldOpen = false;
  known.port.open();
}

function forget(known: KnownPort): void {
  known.announced = known.toldReady = known.toldOpen = known.port.hostOpen = false;
}

/** The fields that are there with the features that were negotiated. */
function readConfig(driver: VirtioDriver) {
  const names = driver.has(VIRTIO_CONSOLE_F_MULTIPORT) ? ['max_nr_ports'] : ['cols', 'rows'];
  const fields = virtioConsoleConfig.fields.filter(({ name }) => names.includes(name));
  const config = virtioConsoleConfig.make();
  config.bytes.set(driver.guest.transport.readConfig(fields));
  return config;
}

function resize(port: GuestConsolePort, bytes: Uint8Array): boolean {
  if (!port.isConsole || bytes.length < virtioConsoleResize.size) return false;
  const { cols, rows } = virtioConsoleResize.over(bytes);
  setSize(port, { columns: cols, rows });
  return true;
}

function setSize(port: GuestConsolePort, size: ConsoleSize): void {
  if (port.size?.columns === size.columns && port.size.rows === size.rows) return;
  port.size = size;
  port.onResize(size);
}

/** A name for people: whatever the device sends, no terminal obeys it (case D9). */
function printable(bytes: Uint8Array): string {
  const text = new TextDecoder().decode(bytes);
  return [...text].slice(0, MAX_NAME).join('').replace(/\p{C}/gu, '\ufffd');
}
