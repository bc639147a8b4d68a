// A console on a deterministic machine: our driver in a guest, our device in a backend, and the host's ends of its
// ports in the hands of the test.

import assert from 'node:assert/strict';
import { CONSOLE_CONTROL_QUEUE, virtioConsoleControl } from '../../src/abi/virtio-console.ts';
import { ConsoleDevice, type ConsolePortOptions } from '../../src/devices/console.ts';
import type { ConsoleEndpoint, ConsoleLine } from '../../src/devices/console-endpoint.ts';
import type { ExposureMode } from '../../src/dma/exposure-modes.ts';
import type { ConsoleDriver } from '../../src/drivers/console.ts';
import type { GuestConsolePort } from '../../src/drivers/console-port.ts';
import type { DomainPorts } from '../../src/hosts/model/xen.ts';
import type { BackendDomain, MemoryAccess } from '../../src/machine/backend-domain.ts';
import type { GuestDomain } from '../../src/machine/guest-domain.ts';
import { Machine } from '../../src/machine/machine.ts';
import { hideFeatures } from './hide-features.test.helper.ts';
import type { RawBuffer, RawQueue, SharedPages } from './raw-driver.test.helper.ts';
import { Scene } from './scene.test.helper.ts';

const MIB = 2 ** 20;
/** Of the queues of a driver by hand. */
const QUEUE_SIZE = 16;

/** A host's end that takes as much as the test allows, and remembers all of it. */
export class TestEndpoint implements ConsoleEndpoint {
  line!: ConsoleLine;
  /** Bytes that it will still take. */
  allowance = Number.POSITIVE_INFINITY;
  /** What it was sent. */
  readonly bytes: number[] = [];
  /** How often it was told of room, and what of the guest's end. */
  rooms = 0;
  readonly openings: boolean[] = [];
  /** Longest piece that it was offered. */
  longest = 0;

  connect(line: ConsoleLine): void {
    this.line = line;
    line.resize({ columns: 80, rows: 24 });
  }

  take(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.allowance);
    this.longest = Math.max(this.longest, bytes.length);
    this.allowance -= taken;
    for (const byte of bytes.subarray(0, taken)) this.bytes.push(byte);
    return taken;
  }

  hasRoom(): void {
    this.rooms++;
  }

  opened(open: boolean): void {
    this.openings.push(open);
  }

  /** Lets it take `count` bytes more. */
  allow(count: number): void {
    this.allowance = count;
    this.line.resume();
  }
}

/** One console for a person, called "tty". */
export function terminal(endpoint: ConsoleEndpoint): ConsolePortOptions {
  return { name: 'tty', isConsole: true, endpoint };
}

export interface ConsoleSceneOptions {
  readonly seed?: number;
  readonly mode?: ExposureMode;
  readonly access?: MemoryAccess;
  /** Features that the guest does not get to see. */
  readonly hidden?: bigint;
}

export class ConsoleScene {
  readonly machine: Machine;
  readonly backend: BackendDomain<DomainPorts>;
  readonly guest: GuestDomain;
  readonly device: ConsoleDevice;
  readonly console: ConsoleDriver;
  readonly place;
  readonly #free: number;

  constructor(ports: readonly ConsolePortOptions[], options: ConsoleSceneOptions = {}) {
    const { seed = 1, mode = 'bounce', access = 'map', hidden = 0n } = options;
    this.machine = new Machine({ seed, architecture: 'x86', memory: 16 * MIB, heap: 4 * MIB });
    this.backend = this.machine.createBackend(1, { memory: MIB });
    this.guest = this.machine.createGuest(2, { memory: 4 * MIB });
    this.device = new ConsoleDevice(ports);
    const base = this.machine.xen.domain(2).map.virtioMmio;
    this.place = { base, backend: this.backend.ports.id, device: 0 };
    this.backend.serve(this.device, this.guest.ports.id, base, access);
    if (hidden !== 0n) hideFeatures(this.guest, base, hidden);
    this.#free = this.guest.ports.memory.pagesFree;
    this.console = this.guest.attachConsole(this.place, mode);
  }

  /** A port of the guest's, opened. */
  async open(id = 0): Promise<GuestConsolePort> {
    const port = await this.machine.settle(this.console.port(id));
    port.open();
    await this.rest();
    return port;
  }

  /** Lets everything run until nothing happens any more. */
  async rest(): Promise<void> {
    for (let idle = 0; idle < 20; ) {
      idle = this.machine.step() ? 0 : idle + 1;
      await Promise.resolve();
    }
  }

  /** Reads until there are `length` bytes. */
  async read(port: GuestConsolePort, length: number): Promise<number[]> {
    const bytes: number[] = [];
    while (bytes.length < length) {
      const piece = await this.machine.settle(port.read());
      if (piece === undefined) break;
      bytes.push(...piece);
    }
    return bytes;
  }

  /** Detaches the console: nothing stays granted, mapped, or taken from the guest's memory. */
  finish(): void {
    assert.deepEqual(this.guest.detach(this.console), { live: 0, quarantined: 0 });
    assert.equal(this.backend.ports.grantMapper.live, 0);
    assert.equal(this.guest.ports.memory.pagesFree, this.#free);
  }
}

/** A console of one terminal, and the host's end of that. */
export function terminalScene(options?: ConsoleSceneOptions): {
  readonly endpoint: TestEndpoint;
  readonly scene: ConsoleScene;
} {
  const endpoint = new TestEndpoint();
  return { endpoint, scene: new ConsoleScene([terminal(endpoint)], options) };
}

/** Bytes that differ from place to place. */
export function someBytes(length: number, salt = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7) ^ (i >>> 8) ^ salt);
}

/** A console's driver by hand, on a stage with a neighbour: it posts and says what the test wants. */
export class RawConsole {
  readonly scene: Scene;
  readonly device: ConsoleDevice;
  /** Queues by their index in the device. */
  readonly queues: readonly RawQueue[];
  readonly #page: SharedPages;
  readonly #answers: SharedPages;
  #posted = 0;
  #heard = 0;

  constructor(ports: readonly ConsolePortOptions[]) {
    this.device = new ConsoleDevice(ports);
    this.scene = new Scene({ device: this.device });
    const { driver } = this.scene;
    driver.negotiate();
    this.queues = this.device.queueSizes.map((_, index) => driver.layOut(index, QUEUE_SIZE));
    for (const queue of this.queues) driver.enable(queue);
    driver.driverOk();
    this.#page = driver.share(1);
    this.#answers = driver.share(1);
  }

  /** Sends a control message. */
  tell(id: number, event: number, value = 1): void {
    const { bytes } = virtioConsoleControl.make({ id, event, value });
    this.#page.bytes.set(bytes);
    this.write(CONSOLE_CONTROL_QUEUE + 1, { at: this.#page, length: bytes.length });
  }

  /** Puts a chain of its own on a queue: at head 0, which is free again when the device has returned it. */
  write(index: number, ...buffers: readonly RawBuffer[]): void {
    this.scene.driver.chain(this.queues[index], 0, buffers);
    this.scene.driver.submit(this.queues[index], 0);
  }

  /** What the device says in the next buffer for control messages; undefined when it has nothing to say. */
  hear(): { id: number; event: number; value: number; more: number[] } | undefined {
    const queue = this.queues[CONSOLE_CONTROL_QUEUE];
    if (this.#posted === this.#heard) this.#post(queue);
    if (queue.used.index === this.#heard) return undefined;
    const length = queue.used.len(this.#heard++);
    const { id, event, value } = virtioConsoleControl.over(this.#answers.bytes);
    return { id, event, value, more: [...this.#answers.bytes.slice(virtioConsoleControl.size, length)] };
  }

  /** All that the device has to say. */
  hearAll(): NonNullable<ReturnType<RawConsole['hear']>>[] {
    const messages = [];
    for (let message = this.hear(); message !== undefined; message = this.hear()) messages.push(message);
    return messages;
  }

  #post(queue: RawQueue): void {
    const head = this.#posted++ % QUEUE_SIZE;
    this.scene.driver.chain(queue, head, [{ at: this.#answers, length: 128, writable: true }]);
    this.scene.driver.submit(queue, head);
  }
}

/** A console of one terminal and a driver by hand, and the host's end. */
export function rawTerminal(): { readonly endpoint: TestEndpoint; readonly raw: RawConsole } {
  const endpoint = new TestEndpoint();
  return { endpoint, raw: new RawConsole([terminal(endpoint)]) };
}
