// A console device (virtio 1.3 §5.3) with as many ports as it is made with: data goes through console-port.ts, and
// here is what driver and device say about ports on the control queues.
//
// What is still to be said is kept as state, not as messages: a driver that never listens, or that asks for
// everything again and again, costs no memory, and of a storm of sizes it gets the last (cases F33, B16).

import {
  CONSOLE_CONTROL_QUEUE,
  type ConsoleSize,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_READY,
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
import { assert } from '../errors.ts';
import type { DeviceHost, VirtioDevice } from '../virtio/device.ts';
import type { Chain, DeviceQueue } from '../virtqueue/device-queue.ts';
import type { ConsoleEndpoint } from './console-endpoint.ts';
import { MAX_CONSOLE_NAME, MAX_CONSOLE_PORTS } from './console-limits.ts';
import { ConsolePort } from './console-port.ts';
import { HeldChains } from './held-chains.ts';

/** Descriptors of each queue: no fewer than drivers use that cannot ask, for vhost-user does not tell them. */
const QUEUE_SIZE = 256;
const NOTHING = new Uint8Array(0);

/** What is said of a port, in the order in which it is said. */
const MESSAGES = [
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_RESIZE,
  VIRTIO_CONSOLE_PORT_OPEN,
] as const;

/** A port as it is made. */
export interface ConsolePortOptions {
  /** Under which the guest finds it, up to 64 bytes of UTF-8; none if empty. */
  readonly name: string;
  /** Whether it is for a person at a terminal; others are for programs. */
  readonly isConsole: boolean;
  readonly endpoint: ConsoleEndpoint;
}

/** A port, and what its guest is still to be told of it. */
interface Port {
  readonly name: Uint8Array;
  readonly isConsole: boolean;
  size: ConsoleSize | undefined;
  open: boolean;
  /** Whether the driver knows of it: §5.3.6.2.1 wants a port to be announced once. */
  announced: boolean;
  /** Whether the driver uses it. */
  ready: boolean;
  /** VIRTIO_CONSOLE_ events to send. */
  readonly unsaid: Set<number>;
  readonly data: ConsolePort;
}

export class ConsoleDevice implements VirtioDevice {
  readonly deviceId = VIRTIO_ID_CONSOLE;
  readonly features = VIRTIO_CONSOLE_F_SIZE | VIRTIO_CONSOLE_F_MULTIPORT;
  readonly queueSizes: readonly number[];
  /** Control messages that made no sense, and ones for which the driver's buffer was too short. */
  ignored = 0;

  readonly #config = virtioConsoleConfig.make();
  #generation = 0;
  readonly #ports: readonly Port[];
  /** The driver's buffers for control messages. */
  readonly #buffers = new HeldChains();
  readonly #message = virtioConsoleControl.make();
  #host: DeviceHost | undefined;
  #features = 0n;

  /**
   * @param ports 1 to MAX_CONSOLE_PORTS; a driver that knows one port only gets the first
   * @throws RangeError when they are too many, or a name is too long
   */
  constructor(ports: readonly ConsolePortOptions[]) {
    if (ports.length < 1 || ports.length > MAX_CONSOLE_PORTS)
      throw new RangeError(`a console with ${ports.length} ports; expected 1 to ${MAX_CONSOLE_PORTS}`);
    this.#ports = ports.map((options, id) => this.#portOf(options, id));
    this.queueSizes = Array.from({ length: 2 * ports.length + 2 }, () => QUEUE_SIZE);
    this.#config.max_nr_ports = ports.length;
    for (const { data } of this.#ports) data.connect();
  }

  get config(): Uint8Array {
    return this.#config.bytes;
  }

  get configGeneration(): number {
    return this.#generation;
  }

  start(features: bigint, host: DeviceHost): void {
    this.#features = features;
    this.#host = host;
    const isAlone = (features & VIRTIO_CONSOLE_F_MULTIPORT) === 0n;
    for (const { data } of this.#ports) data.start(host);
    // §5.3.5: with one port there is nothing to agree on.
    if (isAlone) this.#ports[0].data.setGuestOpen(true);
  }

  /**
   * The driver knows the ports, and which of them it has opened is not kept: all are taken for open. They are announced
   * once more, whereupon Linux says again that it uses them, and is told what they are like.
   */
  resume(features: bigint, host: DeviceHost): void {
    this.start(features, host);
    if ((features & VIRTIO_CONSOLE_F_MULTIPORT) === 0n) return;
    this.#announce(1);
    for (const { data } of this.#ports) data.setGuestOpen(true);
  }

  stop(): void {
    this.#host = undefined;
    this.#buffers.clear();
    for (const port of this.#ports) {
      port.announced = port.ready = false;
      port.unsaid.clear();
      port.data.stop();
    }
  }

  handle(queue: DeviceQueue, chain: Chain, index: number): void {
    const isFromDriver = index % 2 === 1;
    if (index === CONSOLE_CONTROL_QUEUE) this.#post(queue, chain);
    else if (index === CONSOLE_CONTROL_QUEUE + 1) this.#hear(queue, chain);
    else {
      const { data } = this.#ports[index < CONSOLE_CONTROL_QUEUE ? 0 : Math.floor(index / 2) - 1];
      if (isFromDriver) data.receive(queue, chain);
      else data.post(queue, chain);
    }
  }

  #portOf({ name, isConsole, endpoint }: ConsolePortOptions, id: number): Port {
    const data = new ConsolePort(endpoint, {
      setOpen: (open) => this.#setOpen(id, open),
      resize: (size) => this.#resize(id, size),
    });
    return {
      name: nameOf(name),
      isConsole,
      size: undefined,
      open: true,
      announced: false,
      ready: false,
      unsaid: new Set(),
      data,
    };
  }

  #setOpen(id: number, open: boolean): void {
    const port = this.#ports[id];
    if (port.open === open) return;
    port.open = open;
    this.#say(port, VIRTIO_CONSOLE_PORT_OPEN);
  }

  #resize(id: number, size: ConsoleSize): void {
    const port = this.#ports[id];
    if (!port.isConsole) return;
    port.size = size;
    if (id === 0) this.#configure(size);
    this.#say(port, VIRTIO_CONSOLE_RESIZE);
  }

  /** §5.3.6: the size in configuration space is port 0's. */
  #configure({ columns, rows }: ConsoleSize): void {
    this.#config.cols = columns;
    this.#config.rows = rows;
    this.#generation = (this.#generation + 1) >>> 0;
    if ((this.#features & VIRTIO_CONSOLE_F_SIZE) !== 0n) this.#host?.configChanged();
  }

  #say(port: Port, event: number): void {
    if (!port.ready) return;
    port.unsaid.add(event);
    this.#talk();
  }

  #post(queue: DeviceQueue, chain: Chain): void {
    if (chain.fault !== 0) queue.complete(chain, 0, 0);
    else {
      this.#buffers.add(queue, chain);
      this.#talk();
    }
  }

  /** §5.3.6.2: a message of the driver's. One that makes no sense changes nothing. */
  #hear(queue: DeviceQueue, chain: Chain): void {
    const { readable } = chain;
    const isWhole = readable.byteLength >= virtioConsoleControl.size;
    if (isWhole) readable.copyTo(this.#message.bytes, 0, virtioConsoleControl.size);
    queue.complete(chain, isWhole ? virtioConsoleControl.size : 0, 0);
    if (isWhole && this.#obey()) this.#talk();
    else this.ignored++;
  }

  #obey(): boolean {
    const { id, event, value } = this.#message;
    if ((this.#features & VIRTIO_CONSOLE_F_MULTIPORT) === 0n) return false;
    if (event === VIRTIO_CONSOLE_DEVICE_READY) return this.#announce(value);
    const port = this.#ports[id];
    if (port === undefined || !port.announced) return false;
    if (event === VIRTIO_CONSOLE_PORT_READY) return describe(port, value);
    if (event !== VIRTIO_CONSOLE_PORT_OPEN || !port.ready) return false;
    port.data.setGuestOpen(value === 1);
    return true;
  }

  #announce(value: number): boolean {
    if (value !== 1 || this.#ports[0].announced) return false;
    for (const port of this.#ports) {
      port.announced = true;
      port.unsaid.add(VIRTIO_CONSOLE_DEVICE_ADD);
    }
    return true;
  }

  /** Says what is unsaid, as far as the driver has posted buffers for it. */
  #talk(): void {
    for (const [id, port] of this.#ports.entries()) {
      for (const event of MESSAGES) {
        const chain = this.#buffers.first;
        if (chain === undefined) return;
        if (port.unsaid.has(event)) this.#write(chain, id, port, event);
      }
    }
  }

  #write(chain: Chain, id: number, port: Port, event: number): void {
    const { value, more } = contentOf(port, event);
    const header = virtioConsoleControl.make({ id, event, value }).bytes;
    const length = header.length + more.length;
    const fits = length <= chain.writable.byteLength;
    if (fits) {
      chain.writable.copyFrom(header, 0);
      chain.writable.copyFrom(more, header.length);
    }
    assert(this.#host !== undefined, 'a device that has buffers has been started');
    // What does not fit, or cannot be delivered, is not said again: it would only take the next buffer.
    if (!this.#buffers.complete(0, fits ? length : 0, this.#host) || !fits) this.ignored++;
    port.unsaid.delete(event);
  }
}

function nameOf(name: string): Uint8Array {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length <= MAX_CONSOLE_NAME) return bytes;
  throw new RangeError(
    `the console port "${name}" has a name of ${bytes.length} bytes; at most ${MAX_CONSOLE_NAME}`,
  );
}

/** The driver has taken a port up, and is told all about it; or it could not. */
function describe(port: Port, value: number): boolean {
  port.ready = value === 1;
  if (!port.ready) {
    port.data.setGuestOpen(false);
    return true;
  }
  if (port.isConsole) port.unsaid.add(VIRTIO_CONSOLE_CONSOLE_PORT);
  if (port.isConsole && port.size !== undefined) port.unsaid.add(VIRTIO_CONSOLE_RESIZE);
  if (port.name.length > 0) port.unsaid.add(VIRTIO_CONSOLE_PORT_NAME);
  port.unsaid.add(VIRTIO_CONSOLE_PORT_OPEN);
  return true;
}

/** A message's value, and what follows it. */
function contentOf({ size, name, open }: Port, event: number): { value: number; more: Uint8Array } {
  if (event === VIRTIO_CONSOLE_PORT_OPEN) return { value: open ? 1 : 0, more: NOTHING };
  if (event === VIRTIO_CONSOLE_PORT_NAME) return { value: 1, more: name };
  if (event === VIRTIO_CONSOLE_RESIZE && size !== undefined)
    return { value: 0, more: virtioConsoleResize.make({ cols: size.columns, rows: size.rows }).bytes };
  return { value: 1, more: NOTHING };
}
