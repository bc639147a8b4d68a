// What the embedded Xen knows of grants, gathered word by word, and the recount from scratch: everything that
// is counted anywhere must follow from the mappings that exist (invariants 3, 4 and 6).

import assert from 'node:assert/strict';
import {
  GNTMAP_READONLY,
  GRANT_ENTRIES_PER_FRAME_V1,
  grantEntryV1,
  GTF_READING,
  GTF_WRITING,
} from '../../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import { P2M_GRANT_READONLY, P2M_GRANT_WRITABLE } from '../physmap.ts';
import type { TestDomain } from '../domains.test.helper.ts';
import { ACTIVE_FRAME } from './active-entry.ts';
import { mappingFlags, mappingOwner, mappingRef } from './maptrack.ts';

/** An entry of a grant table that holds something. */
export interface SharedEntry {
  readonly ref: number;
  readonly flags: number;
  readonly domid: number;
  /** Frame number of the granter. */
  readonly frame: number;
}

/** A mapping, as the mapper's maptrack has it. */
export interface Mapping {
  readonly handle: number;
  readonly owner: number;
  readonly ref: number;
  readonly readonly: boolean;
  /** The machine frame, as the owner's active entry has it. */
  readonly frame: number;
}

const heapOf = ({ xen }: TestDomain) => new Int32Array(xen.state.heap);

/** An entry in the granter's own frames, to be read and scribbled on by whoever only knows the ABI. */
export function sharedEntry({ record, xen }: TestDomain, ref: number) {
  const frame = record.grantFrame(Math.floor(ref / GRANT_ENTRIES_PER_FRAME_V1));
  const at = frame * XEN_PAGE_SIZE + (ref % GRANT_ENTRIES_PER_FRAME_V1) * grantEntryV1.size;
  return grantEntryV1.over(new Uint8Array(xen.state.memory)).at(at);
}

/** The entries of a domain's grant table whose flags or domid are not 0. */
export function sharedEntries(domain: TestDomain): SharedEntry[] {
  const { record, xen } = domain;
  const words = new Uint32Array(xen.state.memory);
  const found: SharedEntry[] = [];
  for (let ref = 0; ref < record.grantFrames * GRANT_ENTRIES_PER_FRAME_V1; ref++) {
    const frame = record.grantFrame(Math.floor(ref / GRANT_ENTRIES_PER_FRAME_V1));
    if (words[(frame * XEN_PAGE_SIZE) / 4 + (ref % GRANT_ENTRIES_PER_FRAME_V1) * 2] === 0) continue;
    const { flags, domid, frame: granted } = sharedEntry(domain, ref);
    found.push({ ref, flags, domid, frame: granted });
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
    found.push({ handle, owner, ref, readonly: (flags & GNTMAP_READONLY) !== 0, frame });
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
    const pins = xen.grants.pins(record, ref);
    if (pins !== 0) found.push({ ref, pins });
  }
  return found;
}

/** Everything about grants that an operation may change, as values to compare. */
export function grantState(domains: readonly TestDomain[]) {
  return domains.map((domain) => ({
    id: domain.id,
    frames: domain.record.grantFrames,
    entries: sharedEntries(domain),
    pinned: pinnedEntries(domain),
    mappings: mappings(domain),
    foreign: foreignFrames(domain),
  }));
}

/** How often one entry is mapped. */
interface Count {
  readonly: number;
  writable: number;
}

function countMappings(domains: readonly TestDomain[], owner: number): Map<number, Count> {
  const counts = new Map<number, Count>();
  for (const mapping of domains.flatMap(mappings).filter((each) => each.owner === owner)) {
    const count = counts.get(mapping.ref) ?? { readonly: 0, writable: 0 };
    count[mapping.readonly ? 'readonly' : 'writable']++;
    counts.set(mapping.ref, count);
  }
  return counts;
}

function recountOwner(domain: TestDomain, counts: Map<number, Count>): void {
  const pins = [...counts].map(([ref, count]) => ({ ref, pins: count.writable + (count.readonly << 8) }));
  assert.deepEqual(
    pinnedEntries(domain),
    pins.sort((a, b) => a.ref - b.ref),
    `pins of domain ${domain.id}`,
  );
  const marked = sharedEntries(domain).filter(({ flags }) => flags & (GTF_READING | GTF_WRITING));
  const marks = pins.map(({ ref }) => ({
    ref,
    bits: GTF_READING | (counts.get(ref)!.writable > 0 ? GTF_WRITING : 0),
  }));
  assert.deepEqual(
    marked.map(({ ref, flags }) => ({ ref, bits: flags & (GTF_READING | GTF_WRITING) })),
    marks,
    `3: status bits of domain ${domain.id}`,
  );
}

function recountMapper(domain: TestDomain): void {
  const held = mappings(domain);
  const asText = (frame: number, readonly: boolean) => `${frame} ${readonly ? 'read-only' : 'writable'}`;
  assert.deepEqual(
    foreignFrames(domain)
      .map(({ frame, type }) => asText(frame, type === P2M_GRANT_READONLY))
      .sort(),
    held.map(({ frame, readonly }) => asText(frame, readonly)).sort(),
    `address space of domain ${domain.id}`,
  );
  const handles = [...held.map(({ handle }) => handle), ...freeHandles(domain).flat()].sort((a, b) => a - b);
  assert.deepEqual(
    handles,
    Array.from({ length: domain.record.maptrackLimit }, (_, handle) => handle),
    `handles of domain ${domain.id}`,
  );
}

/** Pins, status bits, handles and address spaces all equal what a recount of the mappings gives. */
export function recount(domains: readonly TestDomain[]): void {
  for (const domain of domains) {
    recountOwner(domain, countMappings(domains, domain.id));
    recountMapper(domain);
  }
}
