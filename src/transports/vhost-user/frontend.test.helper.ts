// A frontend for tests: a machine whose descriptors and mappings are counted, and messages as bytes over a "socket"
// that can be cut anywhere.

import assert from 'node:assert/strict';
import { type Region, regionOver } from '../../abi/region.ts';
import {
  VHOST_USER_VERSION,
  vhostUserHeader,
  vhostUserMemoryHeader,
  vhostUserMemoryRegion,
  vhostUserU64,
  vhostUserVringAddr,
  vhostUserVringState,
} from '../../abi/vhost-user.ts';
import type { VirtioDevice } from '../../virtio/device.ts';
import { type GrantsOf, LocalRings } from './local-rings.ts';
import { MessageReader } from './message-reader.ts';
import type { OfferOptions } from './negotiation.ts';
import type { MappedFile, VhostPlatform, XenMemory } from './platform.ts';
import { VhostUserSession } from './session.ts';

/** A machine whose files are in memory. Closing what is not open fails the test. */
export class CountingPlatform implements VhostPlatform {
  /** What each open descriptor is a descriptor of. */
  readonly open = new Map<number, ArrayBuffer>();
  readonly signals: number[] = [];
  readonly sent: Uint8Array[] = [];
  readonly xenMaps: (XenMemory | undefined)[] = [];
  mappings = 0;
  /** Whether the frontend takes messages that we send by ourselves. */
  takes = true;
  #next = 100;

  /** A new descriptor of a file; the same file may have several. */
  descriptor(file: ArrayBuffer = new ArrayBuffer(8)): number {
    this.open.set(++this.#next, file);
    return this.#next;
  }

  map(fd: number, offset: number, length: number, xen?: XenMemory): MappedFile {
    const file = this.open.get(fd);
    assert.ok(file !== undefined, `descriptor ${fd} is open when it is mapped`);
    if (offset + length > file.byteLength) throw new Error(`the file has ${file.byteLength} bytes`);
    this.mappings++;
    this.xenMaps.push(xen);
    let live = true;
    const region: Region = regionOver(file, offset, length);
    const close = (): void => {
      assert.ok(live, 'a mapping is ended once');
      live = false;
      this.mappings--;
    };
    return { region, close };
  }

  createFile(length: number): number {
    return this.descriptor(new ArrayBuffer(length));
  }

  close(fd: number): void {
    assert.ok(this.open.delete(fd), `descriptor ${fd} is closed once`);
  }

  signal(fd: number): void {
    assert.ok(this.open.has(fd), `descriptor ${fd} is open when it is signalled`);
    this.signals.push(fd);
  }

  send(fd: number, bytes: Uint8Array): boolean {
    assert.ok(this.open.has(fd), `socket ${fd} is open when it is written`);
    if (!this.takes) return false;
    this.sent.push(bytes);
    return true;
  }
}

/** An answer as it came. */
export interface Reply {
  readonly request: number;
  readonly flags: number;
  readonly payload: Uint8Array;
  /** What its descriptor was of, when it was sent. */
  readonly file: ArrayBuffer | undefined;
}

/** One session and the frontend of it. */
export class TestFrontend {
  readonly platform: CountingPlatform;
  readonly session: VhostUserSession;
  rings!: LocalRings;
  readonly replies: Reply[] = [];
  /** Requests that were answered with a failure, and why. */
  readonly refusals: string[] = [];
  readonly #reader = new MessageReader();

  constructor(
    device: VirtioDevice,
    options: Partial<OfferOptions> = {},
    platform: CountingPlatform = new CountingPlatform(),
    grantsOf?: GrantsOf,
  ) {
    this.platform = platform;
    this.session = new VhostUserSession({
      device,
      platform,
      restricted: options.restricted ?? false,
      xen: options.xen ?? false,
      runner: (events) => {
        this.rings = new LocalRings(device, events, (fd) => platform.signal(fd), undefined, grantsOf);
        return this.rings;
      },
      send: (bytes, fds) => {
        const { request, flags, size } = vhostUserHeader.over(bytes);
        assert.equal(bytes.length, vhostUserHeader.size + size);
        const payload = bytes.slice(vhostUserHeader.size);
        this.replies.push({ request, flags, payload, file: platform.open.get(fds[0] ?? -1) });
      },
      onRefused: (request, { detail }) => this.refusals.push(`${request}: ${detail}`),
    });
  }

  /** Sends a message as bytes, at most `cut` at a time; the descriptors come with the first of them. */
  send(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    fds: readonly number[] = [],
    flags = 0,
    cut = 4096,
  ): void {
    const bytes = new Uint8Array(vhostUserHeader.size + payload.length);
    Object.assign(vhostUserHeader.over(bytes), {
      request,
      flags: VHOST_USER_VERSION | flags,
      size: payload.length,
    });
    bytes.set(payload, vhostUserHeader.size);
    for (let done = 0; done < bytes.length; ) {
      const { room } = this.#reader;
      const length = Math.min(room.length, cut, bytes.length - done);
      room.set(bytes.subarray(done, done + length));
      const message = this.#reader.advance(length, done === 0 ? fds : []);
      done += length;
      if (message !== undefined) this.session.handle(message);
    }
  }

  /** Sends a message and returns its answer, which must have come. */
  ask(request: number, payload?: Uint8Array, fds?: readonly number[], flags?: number): Reply {
    const before = this.replies.length;
    this.send(request, payload, fds, flags);
    assert.equal(this.replies.length, before + 1, `request ${request} has one answer`);
    assert.equal(this.replies[before].request, request);
    return this.replies[before];
  }

  /** The number that a request is answered with. */
  askNumber(request: number, payload?: Uint8Array, fds?: readonly number[], flags?: number): bigint {
    return vhostUserU64.over(this.ask(request, payload, fds, flags).payload).value;
  }
}

export function number(value: bigint): Uint8Array {
  return vhostUserU64.make({ value }).bytes;
}

export function state(index: number, num: number): Uint8Array {
  return vhostUserVringState.make({ index, num }).bytes;
}

/** A region as a message describes it. */
export interface TestRegion {
  readonly guest: number;
  readonly size: number;
  readonly user: number;
  readonly offset?: number;
}

const HIGH = 2 ** 32;

export function regionBytes({ guest, size, user, offset = 0 }: TestRegion): Uint8Array {
  return vhostUserMemoryRegion.make({
    guest_addressLow: guest % HIGH,
    guest_addressHigh: Math.floor(guest / HIGH),
    size,
    user_addressLow: user % HIGH,
    user_addressHigh: Math.floor(user / HIGH),
    mmap_offset: offset,
  }).bytes;
}

/** The payload of SET_MEM_TABLE. `room` for that many regions, as User-Mode Linux has for two. */
export function tableBytes(regions: readonly TestRegion[], room = regions.length): Uint8Array {
  const { size } = vhostUserMemoryHeader;
  const bytes = new Uint8Array(size + room * vhostUserMemoryRegion.size);
  vhostUserMemoryHeader.over(bytes).regions = regions.length;
  for (const [i, region] of regions.entries())
    bytes.set(regionBytes(region), size + i * vhostUserMemoryRegion.size);
  return bytes;
}

/** The payload of ADD_MEM_REG and REM_MEM_REG. */
export function singleBytes(region: TestRegion): Uint8Array {
  const bytes = new Uint8Array(8 + vhostUserMemoryRegion.size);
  bytes.set(regionBytes(region), 8);
  return bytes;
}

/** The payload of SET_VRING_ADDR; all addresses below 2^53. */
export function addressBytes(
  index: number,
  descriptor: number,
  available: number,
  used: number,
  log?: number,
): Uint8Array {
  const halves = (name: string, value: number): Record<string, number> => ({
    [`${name}Low`]: value % HIGH,
    [`${name}High`]: Math.floor(value / HIGH),
  });
  return vhostUserVringAddr.make({
    index,
    flags: log === undefined ? 0 : 1,
    ...halves('descriptor', descriptor),
    ...halves('available', available),
    ...halves('used', used),
    ...halves('log', log ?? 0),
  }).bytes;
}
