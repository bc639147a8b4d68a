// What the control thread tells a queue worker about the rings of a session, as messages: the calls of RingRunner
// (transports/vhost-user/platform.ts), with memory as addresses, of which each thread makes its own views.
// After spread-rings.ts, before queue-worker.ts.

import { type Region, regionOver } from '../abi/region.ts';
import type { Libc } from '../hosts/linux/libc.ts';
import type { Translation } from '../memory/iotlb.ts';
import type { GrantedRegion, RingMemory, RingSetup } from '../transports/vhost-user/platform.ts';
import type { DeviceOffer } from '../virtio/device.ts';
import type { DeviceSpec } from './devices.ts';

/** Memory of this process, as another thread can be told of it. */
export interface SentRegion {
  readonly address: number;
  readonly byteLength: number;
}

/** `RingMemory` as it is sent. */
export interface SentMemory {
  readonly regions: readonly {
    readonly guest: number;
    readonly user: number;
    readonly size: number;
    readonly memory: SentRegion;
  }[];
  readonly granted: readonly GrantedRegion[];
  readonly translated: boolean;
  readonly missesAnswered?: boolean | undefined;
  readonly log: SentRegion | undefined;
}

/** `RingSetup` as it is sent. */
export type SentSetup = Omit<RingSetup, 'inflight'> & {
  readonly inflight: { readonly region: SentRegion; readonly offset: number } | undefined;
};

/** One call. `session` is a number that the control thread gives. */
export type RingCommand = { readonly session: number } & (
  | { readonly kind: 'open'; readonly endpoint: number }
  | { readonly kind: 'close' }
  | { readonly kind: 'features'; readonly features: bigint }
  | { readonly kind: 'memory'; readonly memory: SentMemory }
  | { readonly kind: 'translate'; readonly entry: Translation }
  | { readonly kind: 'refuse'; readonly iova: number }
  | { readonly kind: 'invalidate'; readonly iova: number; readonly size: number }
  | { readonly kind: 'start'; readonly setup: SentSetup }
  | { readonly kind: 'stop'; readonly index: number }
  | { readonly kind: 'call'; readonly index: number; readonly fd: number }
  | { readonly kind: 'kick'; readonly index: number }
  | { readonly kind: 'reset' }
);

/** A call about a worker's devices. `endpoint` is a number that the control thread gives. */
export type DeviceCommand =
  /** Makes an instance, and is answered with what it offers; `first` of those that serve one endpoint. */
  | {
      readonly kind: 'install';
      readonly endpoint: number;
      readonly device: DeviceSpec;
      readonly first: boolean;
      /** What its worker counts of it (counter-blocks.ts). */
      readonly block: Float64Array;
    }
  /** Flushes and closes it, after its sessions; the answer is whether what was written lasts. */
  | { readonly kind: 'remove'; readonly endpoint: number }
  /** Ends the worker, after all of them. */
  | { readonly kind: 'end' };

/** What a worker can be asked. */
export type WorkerCommand = RingCommand | DeviceCommand;

/** What a worker tells of a session without being asked. */
export type RingEvent = { readonly session: number } & (
  | { readonly kind: 'interrupt'; readonly index: number }
  | { readonly kind: 'failed'; readonly index: number; readonly clause: string; readonly detail: string }
  | { readonly kind: 'miss'; readonly iova: number; readonly right: number }
  /** The device's configuration space has changed to this. */
  | { readonly kind: 'config'; readonly config: Uint8Array }
  /** A fault of ours: the session cannot go on. */
  | { readonly kind: 'broken'; readonly reason: string }
);

function sentRegion({ address, byteLength }: Region): SentRegion {
  return { address, byteLength };
}

/** What an instance offers, apart from the instance. */
export function offerOf({ features, queueSizes, config }: DeviceOffer): DeviceOffer {
  return { features, queueSizes: [...queueSizes], config: Uint8Array.from(config) };
}

export function sentMemory({
  regions,
  granted = [],
  translated,
  missesAnswered,
  log,
}: RingMemory): SentMemory {
  return {
    regions: regions.map(({ guest, user, size, memory }) => ({
      guest,
      user,
      size,
      memory: sentRegion(memory),
    })),
    granted,
    ...{ translated, missesAnswered },
    log: log && sentRegion(log),
  };
}

export function sentSetup(setup: RingSetup): SentSetup {
  const { inflight } = setup;
  return { ...setup, inflight: inflight && { ...inflight, region: sentRegion(inflight.region) } };
}

function receivedRegion(libc: Libc, { address, byteLength }: SentRegion): Region {
  return regionOver(libc.view(address, byteLength), 0, byteLength, address);
}

export function receivedMemory(libc: Libc, { regions, log, ...rest }: SentMemory): RingMemory {
  return {
    regions: regions.map((region) => ({ ...region, memory: receivedRegion(libc, region.memory) })),
    ...rest,
    log: log && receivedRegion(libc, log),
  };
}

export function receivedSetup(libc: Libc, setup: SentSetup): RingSetup {
  const { inflight } = setup;
  return { ...setup, inflight: inflight && { ...inflight, region: receivedRegion(libc, inflight.region) } };
}
