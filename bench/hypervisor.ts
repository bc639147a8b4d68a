// What the embedded Xen costs: its hypercalls, with few guests and with many, and the memory that a million live
// grants take.

import { GNTMAP_HOST_MAP } from '../src/abi/grant.ts';
import { GNTCOPY_SOURCE_GREF } from '../src/abi/grant-table-op.ts';
import { DOMID_SELF } from '../src/abi/xen.ts';
import type { DomainRecord } from '../src/hosts/model/domain-record.ts';
import { type DomainPorts, Xen } from '../src/hosts/model/xen.ts';
import { domainId, type FrameNumber, type GrantRef } from '../src/xen/ids.ts';
import { type Candidate, type Figure, measure } from './figures.ts';

const MIB = 2 ** 20;
const PAGE = 4096;
const BACKEND = domainId(0);
const FIRST_REF = 8;
/** References that each guest grants: 32 frames of a version 1 table, but for the reserved ones. */
const GRANTS = 32 * 512 - FIRST_REF;
const GUEST_MEMORY = 16 * MIB;
const CALLS = 50_000;
/** Pages that are touched, of all guests together. */
const PAGES = 1024;
const ROUNDS = 7;

/** A backend and `count` guests, each of which has granted GRANTS pages to it. */
class Host {
  readonly xen: Xen;
  readonly backend: DomainRecord;
  readonly backendPorts: DomainPorts;
  readonly guests: DomainPorts[] = [];
  /** Event channels of the backend, one to each guest. */
  readonly channels: number[] = [];

  constructor(count: number, shared: boolean) {
    this.xen = Xen.boot((count * 18 + 16) * MIB, (count * 4 + 64) * MIB, shared);
    this.backend = this.xen.createDomain(BACKEND, { memory: MIB, maxMaptrackFrames: 4096 });
    this.backendPorts = this.xen.ports(BACKEND, () => false);
    for (let index = 0; index < count; index++) this.#addGuest(domainId(index + 1));
  }

  #addGuest(id: ReturnType<typeof domainId>): void {
    this.xen.createDomain(id, { memory: GUEST_MEMORY, maxMaptrackFrames: 1 });
    const ports = this.xen.ports(id, () => false);
    ports.grantTable.grow(FIRST_REF + GRANTS);
    const pages = GUEST_MEMORY / PAGE;
    for (let index = 0; index < GRANTS; index++) {
      const frame = (index % pages) as FrameNumber;
      ports.grantTable.grant((FIRST_REF + index) as GrantRef, 1, BACKEND, frame, false);
    }
    const far = ports.events.allocateUnbound(BACKEND);
    ports.events.onEvent(far, () => undefined);
    this.channels.push(this.backendPorts.events.bindInterdomain(id, far));
    this.guests.push(ports);
  }

  /** Maps every grant of every guest. Returns how many. */
  mapAll(): number {
    let place = this.backend.window;
    for (const { id } of this.guests) {
      for (let ref = FIRST_REF; ref < FIRST_REF + GRANTS; ref++) {
        const handle = this.xen.grants.map(this.backend, place++, GNTMAP_HOST_MAP, ref, id);
        if (handle < 0) throw new Error(`map of reference ${ref} of domain ${id}: status ${handle}`);
      }
    }
    return place - this.backend.window;
  }
}

/** Nanoseconds of one call, over CALLS of them. */
function perCall(call: (index: number) => void): number {
  const start = process.hrtime.bigint();
  for (let index = 0; index < CALLS; index++) call(index);
  return Number(process.hrtime.bigint() - start) / CALLS;
}

/**
 * Each call goes to the next guest. As many pages are touched with many guests as with one, so that what is
 * compared is the number of guests and not what fits the processor's caches.
 */
function candidates(host: Host, suffix: string): Candidate[] {
  const { xen, backend, guests, channels } = host;
  const { window } = backend;
  const guestOf = (index: number) => guests[index % guests.length];
  const refOf = (index: number) => FIRST_REF + (Math.floor(index / guests.length) % (PAGES / guests.length));
  const source = { domain: 0, page: 0, offset: 0 };
  const dest = { domain: DOMID_SELF, page: backend.map.ram, offset: 0 };
  const copy = (index: number, length: number) => {
    source.domain = guestOf(index).id;
    source.page = refOf(index);
    if (xen.copies.copy(backend, source, dest, length, GNTCOPY_SOURCE_GREF) !== 0) throw new Error('copy');
  };
  const handles: number[] = [];
  const map = (index: number) => {
    handles[index] = xen.grants.map(
      backend,
      window + index,
      GNTMAP_HOST_MAP,
      refOf(index),
      guestOf(index).id,
    );
    if (handles[index] < 0) throw new Error(`map: status ${handles[index]}`);
  };
  const unmap = (index: number) => {
    const status = xen.grants.unmap(backend, window + index, handles[index]);
    if (status !== 0) throw new Error(`unmap: status ${status}`);
  };
  /** Maps all pages and unmaps them again, and again, and tells what `timed` of the two took. */
  const mapping = (timed: 'map' | 'unmap') => {
    let nanoseconds = 0n;
    for (let turn = 0; turn < CALLS / PAGES; turn++) {
      for (const step of [map, unmap]) {
        const start = process.hrtime.bigint();
        for (let index = 0; index < PAGES; index++) step(index);
        if (step.name === timed) nanoseconds += process.hrtime.bigint() - start;
      }
    }
    return Number(nanoseconds) / (Math.ceil(CALLS / PAGES) * PAGES);
  };
  return [
    { name: `map, ${suffix}`, round: () => mapping('map') },
    { name: `unmap, ${suffix}`, round: () => mapping('unmap') },
    { name: `copy 64 B, ${suffix}`, round: () => perCall((index) => copy(index, 64)) },
    { name: `copy 4 KiB, ${suffix}`, round: () => perCall((index) => copy(index, PAGE)) },
    {
      name: `send + take an event, ${suffix}`,
      round: () =>
        perCall((index) => {
          xen.events.send(backend, channels[index % guests.length]);
          guestOf(index).events.poll();
        }),
    },
  ];
}

/** Hypercalls with 1, 16 and 64 guests: the cost should not grow with them. Memory is shared between threads. */
export function benchHypercalls(): Promise<Figure[]> {
  const all = [1, 16, 64].map((count) =>
    candidates(new Host(count, true), count === 1 ? '1 guest' : `${count} guests`),
  );
  // Sorted by hypercall, so that what is compared stands together and is measured in turn.
  return measure(
    'hypercalls over 1024 pages, shared memory',
    'ns',
    all[0].flatMap((_, index) => all.map((some) => some[index])),
    ROUNDS,
  );
}

/** Takes a domain apart. Returns the longest step and all of them together, in milliseconds. */
function takeApart(xen: Xen, id: number): { longest: number; total: number } {
  let longest = 0;
  const begin = process.hrtime.bigint();
  let before = begin;
  for (const _ of xen.destroyDomain(id)) {
    const now = process.hrtime.bigint();
    longest = Math.max(longest, Number(now - before) / 1e6);
    before = now;
  }
  return { longest, total: Number(before - begin) / 1e6 };
}

/** A host of 64 guests with a million grants, all of them mapped at once, and the end of the domain that maps them. */
export async function benchScale(): Promise<Figure[]> {
  const before = process.memoryUsage.rss();
  const host = new Host(64, true);
  const start = process.hrtime.bigint();
  const live = host.mapAll();
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  const grown = (process.memoryUsage.rss() - before) / MIB;
  const { longest, total } = takeApart(host.xen, BACKEND);
  const figure = (name: string, median: number, unit: string, aim?: string): Figure => ({
    group: '64 guests',
    name,
    median,
    least: median,
    most: median,
    unit,
    ...(aim !== undefined && { aim }),
  });
  return [
    figure('live grants, all mapped', live, ''),
    figure('memory that the process grew by', grown, 'MiB', 'aim: under 1024'),
    figure('mapping all of them, each', (seconds * 1e9) / live, 'ns'),
    figure('end of the domain that maps them', total, 'ms'),
    figure('… longest step of it', longest, 'ms', 'aim: under 10'),
  ];
}
