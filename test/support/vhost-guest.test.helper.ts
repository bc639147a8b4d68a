// A guest behind a vhost-user frontend: memory in a file that both sides map, with rings and requests of a disk in
// it, written by the same code that drivers use. What it makes available may be anything.

import assert from 'node:assert/strict';
import { VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from '../../src/abi/split-ring.ts';
import * as user from '../../src/abi/vhost-user.ts';
import { VIRTIO_F_VERSION_1 } from '../../src/abi/virtio.ts';
import {
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  virtioBlkRequestHeader,
} from '../../src/abi/virtio-blk.ts';
import { MemoryMap } from '../../src/hosts/linux/memory-map.ts';
import {
  addressBytes,
  number,
  state,
  tableBytes,
} from '../../src/transports/vhost-user/frontend.test.helper.ts';
import type { VhostMessage } from '../../src/transports/vhost-user/message-reader.ts';
import { AvailableRing, DescriptorTable, UsedRing } from '../../src/virtqueue/split-ring.ts';
import type { VhostFrontend } from './vhost-frontend.test.helper.ts';

/** Where the frontend says that it has the guest's memory, and where the guest has it. */
export const USER = 0x7f00_0000_0000;
export const GUEST = 0x1_0000_0000;
export const MEMORY_BYTES = 1 << 20;
/** Bytes between the rings of two queues; buffers come after all rings. */
const QUEUE_BYTES = 0x10000;
export const BUFFERS = 0x80000;
const F_ADD_SEALS = 1033;
const F_SEAL_SHRINK = 2;
const MFD_CLOEXEC_SEALING = 3;

/** What is negotiated when nothing else is said. */
export const FEATURES = VIRTIO_F_VERSION_1 | VIRTIO_BLK_F_FLUSH | user.VHOST_USER_F_PROTOCOL_FEATURES;
export const PROTOCOL_FEATURES =
  user.VHOST_USER_PROTOCOL_F_MQ |
  user.VHOST_USER_PROTOCOL_F_REPLY_ACK |
  user.VHOST_USER_PROTOCOL_F_CONFIG |
  user.VHOST_USER_PROTOCOL_F_BACKEND_REQ |
  user.VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD |
  user.VHOST_USER_PROTOCOL_F_STATUS |
  user.VHOST_USER_PROTOCOL_F_RESET_DEVICE |
  user.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS;

/** A descriptor: where in the guest's memory, how many bytes, and whether the device may write there. */
export type Piece = readonly [at: number, length: number, writable: boolean];

/** A ring of the guest's. */
export class GuestRing {
  readonly size: number;
  readonly at: number;
  readonly table: DescriptorTable;
  readonly available: AvailableRing;
  readonly used: UsedRing;

  constructor(memory: GuestFile, queue: number, size: number) {
    this.size = size;
    this.at = queue * QUEUE_BYTES;
    const { region } = memory;
    this.table = new DescriptorTable({ region, offset: this.at });
    this.available = new AvailableRing({ region, offset: this.at + 0x4000 }, size);
    this.used = new UsedRing({ region, offset: this.at + 0x8000 }, size);
  }

  /** The payload of SET_VRING_ADDR. */
  addresses(queue: number): Uint8Array {
    const at = USER + this.at;
    return addressBytes(queue, at, at + 0x4000, at + 0x8000);
  }

  /** Writes a chain in the descriptors from `head` on. */
  chain(head: number, pieces: readonly Piece[]): void {
    for (const [i, [at, length, writable]] of pieces.entries()) {
      const address = GUEST + at;
      const flags = (i + 1 < pieces.length ? VIRTQ_DESC_F_NEXT : 0) | (writable ? VIRTQ_DESC_F_WRITE : 0);
      this.table.write(
        head + i,
        address % 2 ** 32,
        Math.floor(address / 2 ** 32),
        length,
        flags,
        head + i + 1,
      );
    }
  }

  publish(head: number): void {
    const { index } = this.available;
    this.available.setHead(index, head);
    this.available.index = (index + 1) & 0xffff;
  }
}

/** The guest's memory. */
export class GuestFile {
  readonly fd: number;
  readonly bytes: number;
  readonly #map: MemoryMap;

  constructor(frontend: VhostFrontend, { bytes = MEMORY_BYTES, sealed = true } = {}) {
    const { libc } = frontend;
    this.bytes = bytes;
    this.fd = frontend.own(libc.memfd_create('grantio-guest', MFD_CLOEXEC_SEALING));
    libc.ftruncate(this.fd, bytes);
    if (sealed) libc.fcntl(this.fd, F_ADD_SEALS, F_SEAL_SHRINK);
    this.#map = MemoryMap.of(libc, this.fd, 0, bytes, "the guest's memory");
  }

  get region(): MemoryMap['region'] {
    return this.#map.region;
  }

  get u8(): Uint8Array {
    return this.#map.region.u8;
  }

  /** The payload of SET_MEM_TABLE. */
  get table(): Uint8Array {
    return tableBytes([{ guest: GUEST, size: this.bytes, user: USER }]);
  }

  close(): void {
    this.#map.close();
  }
}

/** A guest with a disk: rings of one size, and room for the requests of each of their heads. */
export class DiskGuest {
  readonly frontend: VhostFrontend;
  readonly memory: GuestFile;
  readonly rings: readonly GuestRing[];
  readonly kicks: readonly number[];
  readonly calls: readonly number[];
  readonly #taken: number[];

  constructor(frontend: VhostFrontend, { queues = 1, size = 64, sealed = true } = {}) {
    this.frontend = frontend;
    this.memory = new GuestFile(frontend, { sealed });
    this.rings = Array.from({ length: queues }, (_, i) => new GuestRing(this.memory, i, size));
    this.kicks = this.rings.map(() => frontend.eventfd());
    this.calls = this.rings.map(() => frontend.eventfd());
    this.#taken = this.rings.map(() => 0);
  }

  /** All messages of a session's beginning: request, payload, descriptors. */
  beginning(): readonly (readonly [request: number, payload?: Uint8Array, fds?: readonly number[]])[] {
    return [
      [user.VHOST_USER_SET_OWNER],
      [user.VHOST_USER_SET_PROTOCOL_FEATURES, number(PROTOCOL_FEATURES)],
      [user.VHOST_USER_SET_FEATURES, number(FEATURES)],
      [user.VHOST_USER_SET_MEM_TABLE, this.memory.table, [this.memory.fd]],
      ...this.rings.flatMap((ring, i) => this.ringMessages(i, ring)),
    ];
  }

  /** What starts one ring. */
  ringMessages(
    queue: number,
    ring: GuestRing,
    base = 0,
  ): readonly (readonly [request: number, payload: Uint8Array, fds?: readonly number[]])[] {
    return [
      [user.VHOST_USER_SET_VRING_NUM, state(queue, ring.size)],
      [user.VHOST_USER_SET_VRING_BASE, state(queue, base)],
      [user.VHOST_USER_SET_VRING_ADDR, ring.addresses(queue)],
      [user.VHOST_USER_SET_VRING_KICK, number(BigInt(queue)), [this.kicks[queue]]],
      [user.VHOST_USER_SET_VRING_CALL, number(BigInt(queue)), [this.calls[queue]]],
      [user.VHOST_USER_SET_VRING_ENABLE, state(queue, 1)],
    ];
  }

  /** Begins the session as an honest frontend does. */
  begin(): this {
    for (const [request, payload, fds] of this.beginning()) this.frontend.send(request, payload, fds);
    return this;
  }

  /**
   * Begins a session of the first ring that goes on where the last one ended, however that was.
   *
   * @param inflight the buffer of requests under way, as the last call returned it; a new one when there was none
   */
  resume(inflight?: VhostMessage): VhostMessage {
    const { frontend } = this;
    for (const [request, payload, fds] of this.beginning().slice(0, 4)) frontend.send(request, payload, fds);
    const [ring] = this.rings;
    const shape = { num_queues: 1, queue_size: ring.size };
    const buffer =
      inflight ?? frontend.ask(user.VHOST_USER_GET_INFLIGHT_FD, user.vhostUserInflight.make(shape).bytes);
    frontend.send(user.VHOST_USER_SET_INFLIGHT_FD, buffer.payload, buffer.fds);
    for (const [request, payload, fds] of this.ringMessages(0, ring, ring.used.index))
      frontend.send(request, payload, fds);
    return buffer;
  }

  /** Where the data of head `head` lie: 4 KiB each. */
  dataAt(head: number): number {
    return BUFFERS + 0x2000 + (head >> 2) * 4096;
  }

  /** The status byte of head `head`'s request. */
  status(head: number): number {
    return this.memory.u8[BUFFERS + 0x1000 + head];
  }

  /** Makes a request of `length` bytes available in the three descriptors from `head`, a multiple of four. */
  request(head: number, type: number, sector: number, length: number, queue = 0): void {
    const header = BUFFERS + head * 16;
    this.memory.u8.set(virtioBlkRequestHeader.make({ type, sector }).bytes, header);
    this.memory.u8[BUFFERS + 0x1000 + head] = 0xff;
    const data: Piece[] = length === 0 ? [] : [[this.dataAt(head), length, type === VIRTIO_BLK_T_IN]];
    this.rings[queue].chain(head, [[header, 16, false], ...data, [BUFFERS + 0x1000 + head, 1, true]]);
    this.rings[queue].publish(head);
  }

  kick(queue = 0): void {
    this.frontend.ring(this.kicks[queue]);
  }

  /** The rings begin anew. */
  forgetReported(): void {
    this.#taken.fill(0);
  }

  /** The heads that have been reported since the last time. */
  newlyReported(queue = 0): number[] {
    const { used } = this.rings[queue];
    const heads: number[] = [];
    for (const { index } = used; this.#taken[queue] !== index; ) {
      heads.push(used.id(this.#taken[queue]));
      this.#taken[queue] = (this.#taken[queue] + 1) & 0xffff;
    }
    return heads;
  }

  /** The heads that are reported until `count` have been; the call descriptor is waited for. */
  reported(count: number, queue = 0): number[] {
    const heads: number[] = [];
    for (;;) {
      heads.push(...this.newlyReported(queue));
      if (heads.length >= count) return heads;
      this.frontend.take(this.calls[queue]);
    }
  }

  /** One request from its beginning to its end. Returns its status. */
  ask(type: number, sector: number, length: number, queue = 0): number {
    this.request(0, type, sector, length, queue);
    this.kick(queue);
    assert.deepEqual(this.reported(1, queue), [0]);
    return this.status(0);
  }

  /** Reads a sector. */
  read(sector: number, queue = 0): Uint8Array {
    assert.equal(this.ask(VIRTIO_BLK_T_IN, sector, 512, queue), 0);
    return this.memory.u8.slice(this.dataAt(0), this.dataAt(0) + 512);
  }

  /** Writes sectors. Returns the status. */
  write(sector: number, data: Uint8Array, queue = 0): number {
    this.memory.u8.set(data, this.dataAt(0));
    return this.ask(VIRTIO_BLK_T_OUT, sector, data.length, queue);
  }

  /** Ends without a word. */
  close(): void {
    this.memory.close();
    this.frontend.close();
  }
}
