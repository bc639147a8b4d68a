// A virtio device behind a vhost-user socket, as its driver reaches it (QEMU, docs/interop/vhost-user.rst). After
// drivers/, before frontend-link.ts; the other end is session.ts, or somebody else's backend.
//
// An object lives as long as its connection. When that is over, whatever the reason, `failure` says why, the device
// is gone for its driver (all status bits read as one), and nothing that is asked of it has any effect.

import { MMIO_INTERRUPT_CONFIG, MMIO_INTERRUPT_VRING } from '../../abi/virtio-mmio.ts';
import type { FieldLayout } from '../../abi/struct.ts';
import {
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_GET_CONFIG,
  VHOST_USER_GET_STATUS,
  VHOST_USER_GET_VRING_BASE,
  VHOST_USER_MAX_CONFIG_SIZE,
  VHOST_USER_PROTOCOL_F_BACKEND_REQ,
  VHOST_USER_PROTOCOL_F_CONFIG,
  VHOST_USER_PROTOCOL_F_RESET_DEVICE,
  VHOST_USER_PROTOCOL_F_STATUS,
  VHOST_USER_RESET_DEVICE,
  VHOST_USER_SET_BACKEND_REQ_FD,
  VHOST_USER_SET_FEATURES,
  VHOST_USER_SET_MEM_TABLE,
  VHOST_USER_SET_OWNER,
  VHOST_USER_SET_STATUS,
  VHOST_USER_SET_VRING_ADDR,
  VHOST_USER_SET_VRING_BASE,
  VHOST_USER_SET_VRING_CALL,
  VHOST_USER_SET_VRING_ENABLE,
  VHOST_USER_SET_VRING_ERR,
  VHOST_USER_SET_VRING_KICK,
  VHOST_USER_SET_VRING_NUM,
  vhostUserConfigHeader,
  vhostUserMemoryHeader,
  vhostUserMemoryRegion,
  vhostUserU64,
  vhostUserVringAddr,
  vhostUserVringState,
} from '../../abi/vhost-user.ts';
import {
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FEATURES_OK,
} from '../../abi/virtio.ts';
import { ProtocolViolation } from '../../errors.ts';
import { DeviceRefused } from '../../virtio/negotiate.ts';
import type { DriverTransport } from '../../virtio/transport.ts';
import type { RingAddresses } from '../../virtqueue/driver-queue.ts';
import { BackendRequests } from './backend-requests.ts';
import { type Agreement, agree } from './frontend-features.ts';
import { ConnectionLost, FrontendLink } from './frontend-link.ts';
import type { FrontendPlatform } from './frontend-port.ts';
import { requestName } from './request-shapes.ts';

/** Where no device is, all bits read as one. */
const NO_DEVICE = 0xffff_ffff;
/** The protocol does not say how long a queue may be; this is the most that libvhost-user takes. */
const QUEUE_SIZE_MAX = 1024;
const HIGH = 2 ** 32;

/** The memory that is shared with a backend: all that it can ever reach. */
export interface SharedMemory {
  /** A file that cannot shrink. It stays the caller's. */
  readonly fd: number;
  /** Bytes of it, from its first. */
  readonly size: number;
  /** Guest-physical address of the first. */
  readonly address: number;
}

/** What a connection is made of. */
export interface FrontendParts {
  readonly platform: FrontendPlatform;
  /** The connected socket, which becomes the frontend's. */
  readonly socket: number;
  /** What kind of device the backend serves: the protocol has no question for that. */
  readonly deviceId: number;
  readonly memory: SharedMemory;
}

/** A ring that the backend knows. */
interface Ring {
  readonly index: number;
  readonly kick: number;
}

/** The driver's side of one connection. */
export class VhostUserFrontend implements DriverTransport {
  readonly deviceId: number;
  /** Why the connection is over; undefined while it is not. */
  failure: string | undefined;
  readonly #platform: FrontendPlatform;
  readonly #socket: number;
  readonly #memory: SharedMemory;
  readonly #link: FrontendLink;
  /** Eventfds by which the backend says that buffers were used, and that it found a ring in error: of all rings. */
  readonly #call: number;
  readonly #error: number;
  #requests: BackendRequests | undefined;
  readonly #agreement: Agreement;
  readonly #rings: Ring[] = [];
  #status = 0;
  #driverFeatures = 0n;
  #refusedFeatures = false;
  #memoryKnown = false;
  #interrupts = 0;
  #open = true;

  /**
   * Begins a conversation. Throws, with the socket closed: DeviceRefused when the backend is none that can be used, and
   * what the machine says when it has no descriptor left.
   */
  constructor({ platform, socket, deviceId, memory }: FrontendParts) {
    this.deviceId = deviceId;
    this.#platform = platform;
    this.#socket = socket;
    this.#memory = memory;
    [this.#call, this.#error] = openEvents(platform, socket);
    this.#link = new FrontendLink(platform, socket, () => this.#requests?.look());
    const agreement = this.#attempt(() => this.#introduce());
    if (agreement === undefined) throw new DeviceRefused(this.failure ?? 'the backend refuses to be used');
    this.#agreement = agreement;
  }

  /** Descriptors that can be read when `look` has something to do. */
  get watched(): number[] {
    if (!this.#open) return [];
    const own = [this.#socket, this.#call, this.#error];
    return this.#requests === undefined || this.#requests.ended ? own : [...own, this.#requests.socket];
  }

  readStatus(): number {
    if (!this.#has(VHOST_USER_PROTOCOL_F_STATUS))
      return this.failure === undefined ? this.#status : NO_DEVICE;
    const status = this.#attempt(() => this.#link.askNumber(VHOST_USER_GET_STATUS));
    if (status === undefined) return NO_DEVICE;
    // The backend takes bits away that it does not accept, and adds one when it is broken; no others are its to set.
    const known = Number(status & 0xffn);
    return (this.#status & known) | ((this.#status | known) & VIRTIO_STATUS_DEVICE_NEEDS_RESET);
  }

  writeStatus(status: number): void {
    if (status === 0) this.#attempt(() => this.#reset());
    else this.#attempt(() => this.#advance(status));
  }

  readFeatures(): bigint {
    return this.#agreement.features;
  }

  writeFeatures(features: bigint): void {
    this.#driverFeatures = features;
  }

  queueSizeMax(index: number): number {
    return index < this.#agreement.queues ? QUEUE_SIZE_MAX : 0;
  }

  enableQueue(index: number, size: number, addresses: RingAddresses): void {
    this.#attempt(() => this.#setUpRing(index, size, addresses));
  }

  /** Never done: the driver does not see VIRTIO_F_RING_RESET. */
  resetQueue(): boolean {
    return false;
  }

  notify(index: number): void {
    const ring = this.#rings.find((known) => known.index === index);
    if (ring !== undefined) this.#platform.signal(ring.kick);
  }

  readConfig(fields: readonly FieldLayout[]): Uint8Array {
    const size = fields.reduce((end, field) => Math.max(end, field.offset + field.size), 0);
    const config = this.#attempt(() => this.#getConfig(size));
    if (config === undefined) throw new DeviceRefused(this.failure ?? 'the backend is gone');
    return config;
  }

  takeInterrupt(): number {
    this.look();
    const bits = this.#interrupts;
    this.#interrupts = 0;
    return bits;
  }

  /** Takes what the backend has said by itself: signals, changes of the configuration, its end. */
  look(): void {
    if (!this.#open) return;
    if (this.#platform.takeSignal(this.#call)) this.#interrupts |= MMIO_INTERRUPT_VRING;
    if (this.#platform.takeSignal(this.#error)) {
      this.#status |= VIRTIO_STATUS_DEVICE_NEEDS_RESET;
      this.#interrupts |= MMIO_INTERRUPT_CONFIG;
    }
    this.#attempt(() => {
      this.#link.look();
      this.#requests?.look();
    });
    if (this.#requests?.takeConfigChange()) this.#interrupts |= MMIO_INTERRUPT_CONFIG;
  }

  /** Ends the conversation. The driver has reset the device before, or does not care any more. */
  close(reason = 'the connection was closed'): void {
    if (!this.#open) return;
    this.#open = false;
    this.failure ??= reason;
    this.#forgetRings();
    const own = [this.#socket, this.#call, this.#error];
    for (const fd of this.#requests === undefined ? own : [...own, this.#requests.socket])
      this.#platform.close(fd);
  }

  #has(feature: bigint): boolean {
    return (this.#agreement.protocol & feature) !== 0n;
  }

  /** The one place where a backend's fault is caught: the connection is closed. Returns undefined then, and ever after. */
  #attempt<T>(step: () => T): T | undefined {
    if (!this.#open) return undefined;
    try {
      return step();
    } catch (error) {
      if (error instanceof ProtocolViolation)
        this.close(`the backend broke the vhost-user protocol: ${error.message}`);
      else if (error instanceof ConnectionLost) this.close(error.message);
      else {
        // What the machine refuses, such as one more descriptor, is nobody's fault and told as it is.
        this.close(`${error}`);
        throw error;
      }
      return undefined;
    }
  }

  #tell(request: number, payload?: Uint8Array, fds?: readonly number[]): void {
    if (!this.#link.tell(request, payload, fds))
      throw new ConnectionLost(`the backend refuses ${requestName(request)}`);
  }

  #introduce(): Agreement {
    const agreement = agree(this.#link);
    if (agreement.protocol & VHOST_USER_PROTOCOL_F_BACKEND_REQ) this.#openRequests();
    this.#tell(VHOST_USER_SET_OWNER);
    return agreement;
  }

  #openRequests(): void {
    const [own, other] = this.#platform.socketPair();
    this.#requests = new BackendRequests(this.#platform, own);
    try {
      this.#tell(VHOST_USER_SET_BACKEND_REQ_FD, undefined, [other]);
    } finally {
      this.#platform.close(other);
    }
  }

  #advance(status: number): void {
    const added = status & ~this.#status;
    if (added & VIRTIO_STATUS_FEATURES_OK) this.#refusedFeatures = !this.#setFeatures();
    const accepted = this.#refusedFeatures ? status & ~VIRTIO_STATUS_FEATURES_OK : status;
    // §3.1.1: the device takes nothing from a ring before the driver is ready.
    if (added & VIRTIO_STATUS_DRIVER_OK)
      for (const { index } of this.#rings) this.#tell(VHOST_USER_SET_VRING_ENABLE, state(index, 1));
    if (this.#has(VHOST_USER_PROTOCOL_F_STATUS)) this.#tell(VHOST_USER_SET_STATUS, number(BigInt(accepted)));
    this.#status = accepted;
  }

  #setFeatures(): boolean {
    const features = this.#driverFeatures | VHOST_USER_F_PROTOCOL_FEATURES;
    return this.#link.tell(VHOST_USER_SET_FEATURES, number(features));
  }

  /** §2.4: stops the rings, so that nothing is used any more, and has the device forget the rest where it can. */
  #reset(): void {
    for (const { index } of this.#rings) this.#stopRing(index);
    this.#forgetRings();
    if (this.#has(VHOST_USER_PROTOCOL_F_RESET_DEVICE)) this.#tell(VHOST_USER_RESET_DEVICE);
    if (this.#has(VHOST_USER_PROTOCOL_F_STATUS)) this.#tell(VHOST_USER_SET_STATUS, number(0n));
    this.#status = 0;
    this.#interrupts = 0;
  }

  #stopRing(index: number): void {
    const answer = this.#link.ask(VHOST_USER_GET_VRING_BASE, state(index, 0));
    const { size } = vhostUserVringState;
    if (answer.length !== size || vhostUserVringState.over(answer).index !== index)
      throw new ProtocolViolation('vhost-user GET_VRING_BASE', `an answer that is not about ring ${index}`);
  }

  #forgetRings(): void {
    for (const { kick } of this.#rings.splice(0)) this.#platform.close(kick);
  }

  #setUpRing(index: number, size: number, addresses: RingAddresses): void {
    if (!this.#memoryKnown) this.#shareMemory();
    const ring = { index, kick: this.#platform.newEvent() };
    this.#rings.push(ring);
    if (!this.#link.tell(VHOST_USER_SET_VRING_NUM, state(index, size)))
      throw new ConnectionLost(`the backend refuses a queue of ${size} descriptors: try fewer`);
    this.#tell(VHOST_USER_SET_VRING_BASE, state(index, 0));
    this.#tell(VHOST_USER_SET_VRING_ADDR, ringAddresses(index, addresses));
    this.#tell(VHOST_USER_SET_VRING_ERR, number(BigInt(index)), [this.#error]);
    this.#tell(VHOST_USER_SET_VRING_CALL, number(BigInt(index)), [this.#call]);
    this.#tell(VHOST_USER_SET_VRING_KICK, number(BigInt(index)), [ring.kick]);
  }

  #shareMemory(): void {
    const { fd, size, address } = this.#memory;
    const halves = { low: address % HIGH, high: Math.floor(address / HIGH) };
    // The frontend's own address of it is only a name for the backend: there is no reason to tell where it really is.
    const region = vhostUserMemoryRegion.make({
      guest_addressLow: halves.low,
      guest_addressHigh: halves.high,
      size,
      user_addressLow: halves.low,
      user_addressHigh: halves.high,
      mmap_offset: 0,
    });
    const header = vhostUserMemoryHeader.make({ regions: 1 });
    this.#tell(VHOST_USER_SET_MEM_TABLE, Buffer.concat([header.bytes, region.bytes]), [fd]);
    this.#memoryKnown = true;
  }

  #getConfig(size: number): Uint8Array {
    const clause = 'vhost-user GET_CONFIG';
    if (!this.#has(VHOST_USER_PROTOCOL_F_CONFIG))
      throw new ProtocolViolation(clause, 'the backend does not offer its configuration space (CONFIG)');
    if (size > VHOST_USER_MAX_CONFIG_SIZE)
      throw new RangeError(
        `${size} bytes of configuration; at most ${VHOST_USER_MAX_CONFIG_SIZE} are to be had`,
      );
    const header = vhostUserConfigHeader.make({ offset: 0, size });
    const question = new Uint8Array(vhostUserConfigHeader.size + size);
    question.set(header.bytes);
    const answer = this.#link.ask(VHOST_USER_GET_CONFIG, question);
    // All of it in one message: what the device changes meanwhile does not tear it (§2.5.3).
    if (answer.length !== question.length || vhostUserConfigHeader.over(answer).size !== size)
      throw new ProtocolViolation(clause, `${answer.length} bytes, expected ${question.length}`);
    return answer.slice(vhostUserConfigHeader.size);
  }
}

function number(value: bigint): Uint8Array {
  return vhostUserU64.make({ value }).bytes;
}

function state(index: number, num: number): Uint8Array {
  return vhostUserVringState.make({ index, num }).bytes;
}

/** DMA addresses of the driver's are those of the shared memory, which the backend knows by the same numbers. */
function ringAddresses(index: number, addresses: RingAddresses): Uint8Array {
  return vhostUserVringAddr.make({
    index,
    flags: 0,
    descriptorLow: addresses.descriptorLow,
    descriptorHigh: addresses.descriptorHigh,
    usedLow: addresses.deviceLow,
    usedHigh: addresses.deviceHigh,
    availableLow: addresses.driverLow,
    availableHigh: addresses.driverHigh,
    logLow: 0,
    logHigh: 0,
  }).bytes;
}

/** Two eventfds. Where there are no two any more, closes all that is open, `socket` included, and throws. */
function openEvents(platform: FrontendPlatform, socket: number): readonly [number, number] {
  const open = [socket];
  try {
    open.push(platform.newEvent());
    return [open[1], platform.newEvent()];
  } catch (error) {
    for (const fd of open) platform.close(fd);
    throw error;
  }
}
