// What the embedded Xen knows of grants, gathered word by word, and the recount from scratch: everything that
// is counted anywhere must follow from the mappings that exist (invariants 3, 4 and 6).

import assert from 'node:assert/strict';
import {
  GNTMAP_DEVICE_MAP,
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GRANT_ENTRIES_PER_FRAME_V1,
  grantEntryV1,
  GTF_READING,
  GTF_WRITING,
} from '../../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import { P2M_GRANT_READONLY, P2M_GRANT_WRITABLE } from '../physmap.ts';
import type { TestDomain } from '../domains.test.helper.ts';
import {
  ACTIVE_FRAME,
  ACTIVE_LOCK,
  PIN_DEVICE_READONLY,
  PIN_DEVICE_WRITABLE,
  PIN_HOST_READONLY,
  PIN_HOST_WRITABLE,
  PINS_WRITABLE,
} from './active-entry.ts';
import { mappingFlags, mappingOwner, mappingRef } from './maptrack.ts';
import { headerWord, statusWord } from './shared-entry.ts';

/** An entry of a grant table that holds something. */
export interface SharedEntry {
  readonly ref: number;
  readonly flags: number;
  readonly domid: number;
  /** Frame number of the granter; of what is passed on, the reference. */
  readonly frame: number;
  /** Version 2: the word between header and frame, and the upper half of the frame number. */
  readonly part: number;
  readonly high: number;
  /** Status bits, wherever the version has them. */
  readonly inUse: number;
}

/** A mapping, as the mapper's maptrack has it. */
export interface Mapping {
  readonly handle: number;
  readonly owner: number;
  readonly ref: number;
  readonly readonly: boolean;
  /** Which parts of it exist. */
  readonly host: boolean;
  readonly device: boolean;
  /** The machine frame, as the owner's active entry has it. */
  readonly frame: number;
}

const IN_USE = GTF_READING | GTF_WRITING;

const heapOf = ({ xen }: TestDomain) => new Int32Array(xen.state.heap);

/** An entry in the granter's own frames, to be read and scribbled on by whoever only knows the ABI; version 1. */
export function sharedEntry({ record, xen }: TestDomain, ref: number) {
  const frame = record.grantFrame(Math.floor(ref / GRANT_ENTRIES_PER_FRAME_V1));
  const at = frame * XEN_PAGE_SIZE + (ref % GRANT_ENTRIES_PER_FRAME_V1) * grantEntryV1.size;
  return grantEntryV1.over(new Uint8Array(xen.state.memory)).at(at);
}

/** The entries of a domain's grant table that are not all zeros. */
export function sharedEntries({ record, xen }: TestDomain): SharedEntry[] {
  const words = new Uint32Array(xen.state.memory);
  const halves = new Uint16Array(xen.state.memory);
  const version = record.grantVersion;
  const found: SharedEntry[] = [];
  for (let ref = 0; ref < record.grantEntries; ref++) {
    const at = headerWord(record, ref, version);
    const header = words[at];
    const [part, frame, high] = version === 1 ? [0, words[at + 1], 0] : words.subarray(at + 1, at + 4);
    const inUse = (version === 1 ? header : halves[statusWord(record, ref)]) & IN_USE;
    if ((header | inUse) === 0) continue;
    found.push({ ref, flags: header & 0xffff, domid: header >>> 16, frame, part, high, inUse });
  }
  return found;
}

/** All mappings that a domain holds. */
export function mappings(domain: TestDomain): Mapping[] {
  const heap = heapOf(domain);
  const { record, xen } = domain;
  const found: Mapping[] = [];
  for (let handle = 0; handle < record.maptrackLimit; handle++) {
    const flags = mappingFlags(heap, record, handle);
    if (flags === 0) continue;
    const owner = mappingOwner(heap, record, handle);
    const ref = mappingRef(heap, record, handle);
    const frame = heap[xen.domain(owner).activeEntry(ref) + ACTIVE_FRAME];
    found.push({
      handle,
      owner,
      ref,
      readonly: (flags & GNTMAP_READONLY) !== 0,
      host: (flags & GNTMAP_HOST_MAP) !== 0,
      device: (flags & GNTMAP_DEVICE_MAP) !== 0,
      frame,
    });
  }
  return found;
}

/** The lists of free handles, processor by processor, from first to last. */
export function freeHandles(domain: TestDomain): number[][] {
  const heap = heapOf(domain);
  const { record } = domain;
  return Array.from({ length: record.vcpus }, (_, vcpu) => {
    const list = record.maptrackList(vcpu);
    const handles: number[] = [];
    for (let next = heap[list + 1] - 1; next >= 0; next = mappingRef(heap, record, next)) {
      assert.ok(handles.length <= record.maptrackLimit, 'a list of free handles ends');
      handles.push(next);
    }
    assert.equal(handles.at(-1) ?? -1, heap[list + 2] - 1, 'the last handle of a list');
    return handles;
  });
}

/** What of other domains' memory stands in a domain's address space. */
function foreignFrames({ record }: TestDomain) {
  return [...record.physmap.entries()].filter(
    ({ type }) => type === P2M_GRANT_READONLY || type === P2M_GRANT_WRITABLE,
  );
}

function pinnedEntries({ xen, record }: TestDomain) {
  const found: { ref: number; pins: number }[] = [];
  for (let ref = 0; ref < record.grantFrames * GRANT_ENTRIES_PER_FRAME_V1; ref++) {
    const pins = xen.grants.pins(record, ref) >>> 0;
    if (pins !== 0) found.push({ ref, pins });
  }
  return found;
}

/** Everything about grants that an operation may change, as values to compare. */
export function grantState(domains: readonly TestDomain[]) {
  return domains.map((domain) => ({
    id: domain.id,
    version: domain.record.grantVersion,
    frames: domain.record.grantFrames,
    statusFrames: domain.record.statusFrames,
    entries: sharedEntries(domain),
    pinned: pinnedEntries(domain),
    mappings: mappings(domain),
    foreign: foreignFrames(domain),
  }));
}

/** The pins that a mapping takes. */
function pinsOf({ readonly, host, device }: Mapping): number {
  const [onHost, onDevice] = readonly
    ? [PIN_HOST_READONLY, PIN_DEVICE_READONLY]
    : [PIN_HOST_WRITABLE, PIN_DEVICE_WRITABLE];
  return (host ? onHost : 0) + (device ? onDevice : 0);
}

function recountOwner(domain: TestDomain, held: readonly Mapping[]): void {
  const counts = new Map<number, number>();
  for (const mapping of held) counts.set(mapping.ref, (counts.get(mapping.ref) ?? 0) + pinsOf(mapping));
  const pins = [...counts].map(([ref, count]) => ({ ref, pins: count })).sort((a, b) => a.ref - b.ref);
  assert.deepEqual(pinnedEntries(domain), pins, `pins of domain ${domain.id}`);
  assert.deepEqual(
    sharedEntries(domain)
      .filter(({ inUse }) => inUse !== 0)
      .map(({ ref, inUse }) => ({ ref, inUse })),
    pins.map(({ ref, pins: count }) => ({
      ref,
      inUse: GTF_READING | ((count & PINS_WRITABLE) !== 0 ? GTF_WRITING : 0),
    })),
    `3: status bits of domain ${domain.id}`,
  );
  assert.equal(heapOf(domain)[domain.record.v2OperationsWord], 0, 'no copy of version 2 is under way');
}

function recountMapper(domain: TestDomain): void {
  const held = mappings(domain);
  const asText = (frame: number, readonly: boolean) => `${frame} ${readonly ? 'read-only' : 'writable'}`;
  assert.deepEqual(
    foreignFrames(domain)
      .map(({ frame, type }) => asText(frame, type === P2M_GRANT_READONLY))
      .sort(),
    held
      .filter(({ host }) => host)
      .map(({ frame, readonly }) => asText(frame, readonly))
      .sort(),
    `address space of domain ${domain.id}`,
  );
  const handles = [...held.map(({ handle }) => handle), ...freeHandles(domain).flat()].sort((a, b) => a - b);
  assert.deepEqual(
    handles,
    Array.from({ length: domain.record.maptrackLimit }, (_, handle) => handle),
    `handles of domain ${domain.id}`,
  );
}

/** A lock that is left held stops whoever comes next. */
function recountLocks(domain: TestDomain): void {
  const heap = heapOf(domain);
  const { record } = domain;
  const lists = Array.from({ length: record.vcpus }, (_, vcpu) => record.maptrackList(vcpu));
  for (const word of [record.grantLockWord, record.maptrackLockWord, ...lists])
    assert.equal(heap[word], 0, `a lock of domain ${domain.id} is free`);
  for (let ref = 0; ref < record.grantFrames * GRANT_ENTRIES_PER_FRAME_V1; ref++)
    assert.equal(heap[record.activeEntry(ref) + ACTIVE_LOCK], 0, `the lock of entry ${ref} is free`);
}

/**
 * Pins, status bits, handles and address spaces all equal what a recount of the mappings gives, and no lock is held.
 *
 * @param domains all domains that live
 * @param gone domains that have ended, save for pages that the others map
 */
export function recount(domains: readonly TestDomain[], gone: readonly TestDomain[] = []): void {
  const held = domains.flatMap(mappings);
  for (const domain of [...domains, ...gone]) {
    recountOwner(
      domain,
      held.filter(({ owner }) => owner === domain.id),
    );
    recountLocks(domain);
  }
  for (const domain of domains) recountMapper(domain);
}
