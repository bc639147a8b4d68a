// A frontend and a backend of ours in one thread: messages as bytes, descriptors and their files counted for both of
// them, time that passes when somebody waits. A test can rewrite what the backend says: that is a hostile backend.

import assert from 'node:assert/strict';
import { regionOver } from '../../abi/region.ts';
import {
  VHOST_USER_SET_VRING_ADDR,
  VHOST_USER_SET_VRING_KICK,
  vhostUserHeader,
  vhostUserU64,
  vhostUserVringAddr,
} from '../../abi/vhost-user.ts';
import { VIRTIO_ID_BLOCK } from '../../abi/virtio.ts';
import { BlkDevice } from '../../devices/blk.ts';
import type { GuestDevice } from '../../drivers/guest.ts';
import { RECOVERY } from '../../drivers/recovery.ts';
import { ProtocolViolation } from '../../errors.ts';
import { MemoryStore } from '../../storage/memory-store.ts';
import { noTrace } from '../../trace.ts';
import { newWindow, type WindowUnderTest } from '../../dma/window.test.helper.ts';
import type { DriverTransport } from '../../virtio/transport.ts';
import { AvailableRing, UsedRing } from '../../virtqueue/split-ring.ts';
import { VhostUserFrontend } from './frontend.ts';
import type { FrontendPlatform, Incoming } from './frontend-port.ts';
import { CountingPlatform } from './frontend.test.helper.ts';
import { LocalRings } from './local-rings.ts';
import { MessageReader } from './message-reader.ts';
import type { MappedFile } from './platform.ts';
import { VhostUserSession } from './session.ts';

export const WINDOW_PAGES = 32;
const OWN_PAGES = 64;
/** Tests look at requests of this ring size. */
export const QUEUE_SIZE = 16;
export const SECTORS = 64;

/** What the backend says: a message and its descriptors. */
export interface Said {
  readonly request: number;
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
}

/** The files of both sides; the window is a part of the guest's memory. */
class Machine extends CountingPlatform {
  readonly windowFile = new ArrayBuffer(8);
  readonly guest: WindowUnderTest;

  constructor(guest: WindowUnderTest) {
    super();
    this.guest = guest;
  }

  override map(fd: number, offset: number, length: number): MappedFile {
    if (this.open.get(fd) !== this.windowFile) return super.map(fd, offset, length);
    const { buffer, byteOffset, byteLength } = this.guest.shared;
    if (offset + length > byteLength) throw new Error(`the window has ${byteLength} bytes`);
    this.mappings++;
    return {
      region: regionOver(buffer, byteOffset + offset, length),
      close: () => {
        this.mappings--;
      },
    };
  }

  override signal(fd: number): void {
    super.signal(fd);
    this.counter(fd)[0]++;
  }

  counter(fd: number): Uint32Array {
    const file = this.open.get(fd);
    assert.ok(file !== undefined, `descriptor ${fd} is open when it is used`);
    return new Uint32Array(file);
  }
}

/** One connection; `frontend` is made by `connect`, and may be refused. */
export class Loopback implements FrontendPlatform {
  readonly machine: Machine;
  readonly memory: WindowUnderTest;
  /** Descriptor of the window's file; all that is open before a connection and after it. */
  readonly windowFd: number;
  readonly disk = Uint8Array.from({ length: SECTORS * 512 }, (_, i) => (i >> 9) + (i & 7));
  /** Numbers of the requests that the backend got. */
  readonly asked: number[] = [];
  /** Rewrites what the backend says. */
  tamper: (said: Said) => readonly Said[] = (said) => [said];
  /** Whether a kick has the backend serve its rings. */
  serves = true;
  /** Most bytes that one read returns. */
  cut = 4096;
  /** So often the frontend may still open something. */
  descriptorsLeft = Number.POSITIVE_INFINITY;
  /** Reads of the main socket, and of the other one. */
  reads = 0;
  time = 0;
  /** Answers that the backend got to its own questions. */
  acknowledgements = 0;
  /** Called when the frontend waits in vain. */
  onWait: () => void = () => undefined;
  frontend: VhostUserFrontend | undefined;
  /** The rings of the queue that was set up last. */
  available!: AvailableRing;
  used!: UsedRing;

  readonly #reader = new MessageReader();
  readonly #waiting: { bytes: Uint8Array; fds: readonly number[] }[] = [];
  readonly #gifts = new Set<number>();
  readonly #kicks = new Map<ArrayBuffer, number>();
  readonly #rings: LocalRings[] = [];
  readonly #device: BlkDevice;
  readonly #session: VhostUserSession;
  #socket = -1;
  #channel = -1;
  #requests = 0;
  #ended = false;

  /** @param queues of the disk */
  constructor(queues = 1, memory: WindowUnderTest = newWindow(OWN_PAGES, WINDOW_PAGES)) {
    this.memory = memory;
    this.machine = new Machine(memory);
    this.windowFd = this.machine.descriptor(this.machine.windowFile);
    this.#device = new BlkDevice(new MemoryStore(this.disk), { queues, queueSize: 1024, id: 'loopback' });
    this.#session = new VhostUserSession({
      device: this.#device,
      platform: this.machine,
      restricted: false,
      xen: false,
      runner: (events) => {
        this.#rings.push(new LocalRings(this.#device, events, (fd) => this.machine.signal(fd)));
        return this.#rings[0];
      },
      send: (bytes, fds) => this.say({ request: vhostUserHeader.over(bytes).request, bytes, fds }),
      onRefused: () => undefined,
    });
  }

  /** Begins the conversation. Throws DeviceRefused. */
  connect(): VhostUserFrontend {
    this.#socket = this.machine.descriptor();
    const { window } = this.memory;
    const memory = { fd: this.windowFd, size: window.size, address: window.address };
    this.frontend = new VhostUserFrontend({
      platform: this,
      socket: this.#socket,
      deviceId: VIRTIO_ID_BLOCK,
      memory,
    });
    return this.frontend;
  }

  /** What a driver of the disk is given. */
  deviceOf(transport: DriverTransport): GuestDevice {
    const { memory, heap, dma } = this.memory;
    return {
      transport,
      dma,
      restricted: false,
      recovery: RECOVERY,
      memory,
      heap,
      tracer: noTrace,
      nextRequestId: () => this.#requests++,
      waiting: () => undefined,
      anyInFlight: () => false,
      domain: 2,
      device: 0,
    };
  }

  /** The backend says something on the connection. */
  say(said: Said): void {
    for (const { bytes, fds } of this.tamper(said))
      this.#waiting.push({ bytes, fds: fds.map((fd) => (this.#gifts.has(fd) ? fd : this.#copyOf(fd))) });
  }

  /** A descriptor that the backend sends without having been asked, and without keeping a copy. */
  gift(): number {
    const fd = this.machine.descriptor();
    this.#gifts.add(fd);
    return fd;
  }

  /** The backend asks something on its own socket. */
  ask(bytes: Uint8Array): void {
    this.machine.sent.push(bytes);
  }

  configChanged(): void {
    this.#session.configChanged(this.#device.config);
  }

  /** The backend dies. */
  die(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#session.close();
  }

  /** Both ends are done: nothing may be open but the window's file. */
  finish(): void {
    this.frontend?.close();
    this.die();
    for (const { fds } of this.#waiting) for (const fd of fds) this.machine.close(fd);
    assert.deepEqual([...this.machine.open.keys()], [this.windowFd], 'descriptors');
    assert.equal(this.machine.mappings, 0, 'mappings');
  }

  now(): number {
    return this.time;
  }

  receive(socket: number, room: Uint8Array, milliseconds: number): Incoming {
    assert.ok(this.machine.open.has(socket), 'a socket is open when it is read');
    this.reads++;
    if (socket === this.#channel) return { length: this.#readChannel(room), fds: [] };
    const [next] = this.#waiting;
    if (next === undefined) {
      if (this.#ended) return { length: 0, fds: [] };
      if (milliseconds > 0) this.onWait();
      this.time += milliseconds;
      return { length: -1, fds: [] };
    }
    const { bytes, fds } = next;
    const length = Math.min(room.length, this.cut, bytes.length);
    room.set(bytes.subarray(0, length));
    if (length < bytes.length) this.#waiting[0] = { bytes: bytes.subarray(length), fds: [] };
    else this.#waiting.shift();
    return { length, fds };
  }

  send(socket: number, bytes: Uint8Array, fds: readonly number[]): boolean {
    assert.ok(this.machine.open.has(socket), 'a socket is open when it is written');
    if (this.#ended) return false;
    const { request, flags } = vhostUserHeader.over(bytes);
    const payload = bytes.slice(vhostUserHeader.size);
    if (socket === this.#channel) {
      this.acknowledgements++;
      this.#session.handleAnswer({ request, flags, payload, fds: [] });
      return true;
    }
    this.asked.push(request);
    if (request === VHOST_USER_SET_VRING_ADDR) this.#noteRing(payload);
    if (request === VHOST_USER_SET_VRING_KICK)
      this.#kicks.set(this.machine.open.get(fds[0])!, Number(vhostUserU64.over(payload).value & 0xffn));
    try {
      for (let done = 0; done < bytes.length; ) {
        const { room } = this.#reader;
        room.set(bytes.subarray(done, done + room.length));
        const copies = done === 0 ? fds.map((fd) => this.#copyOf(fd)) : [];
        done += room.length;
        const message = this.#reader.advance(room.length, copies);
        if (message !== undefined) this.#session.handle(message);
      }
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.die();
    }
    return true;
  }

  socketPair(): readonly [number, number] {
    this.#takeOne();
    this.#channel = this.machine.descriptor();
    return [this.#channel, this.machine.descriptor()];
  }

  newEvent(): number {
    this.#takeOne();
    return this.machine.descriptor();
  }

  signal(event: number): void {
    this.machine.counter(event)[0]++;
    const index = this.#kicks.get(this.machine.open.get(event)!);
    if (index !== undefined && this.serves && !this.#ended) this.#rings[0].kick(index);
  }

  takeSignal(event: number): boolean {
    const counter = this.machine.counter(event);
    const [count] = counter;
    counter[0] = 0;
    return count > 0;
  }

  close(fd: number): void {
    this.machine.close(fd);
    if (fd === this.#socket) this.die();
  }

  #takeOne(): void {
    if (this.descriptorsLeft-- <= 0) throw new Error('EMFILE');
  }

  #noteRing(payload: Uint8Array): void {
    const { availableLow, usedLow } = vhostUserVringAddr.over(payload);
    // Below 4 GiB from each other: halves are enough.
    const start = this.memory.memory.base % 2 ** 32;
    const { region } = this.memory.memory;
    this.available = new AvailableRing({ region, offset: availableLow - start }, QUEUE_SIZE);
    this.used = new UsedRing({ region, offset: usedLow - start }, QUEUE_SIZE);
  }

  /** A descriptor of the same file, as the other process gets it. */
  #copyOf(fd: number): number {
    return this.machine.descriptor(this.machine.open.get(fd));
  }

  #readChannel(room: Uint8Array): number {
    const [next] = this.machine.sent;
    if (next === undefined) return this.#ended ? 0 : -1;
    const length = Math.min(room.length, next.length, this.cut);
    room.set(next.subarray(0, length));
    if (length < next.length) this.machine.sent[0] = next.subarray(length);
    else this.machine.sent.shift();
    return length;
  }
}
