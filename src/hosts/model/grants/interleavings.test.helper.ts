// Small scopes of the grant hypercalls, whose interleavings are searched whole: the processors of a backend (1), and
// the kernel of the guest that grants to it (2), on the stepped sources of the embedded Xen (test/support/stepped).

import assert from 'node:assert/strict';
import { access, now, type Steps } from '../../../../test/support/stepped/access.ts';
import { loadStepped, type Patch, steps } from '../../../../test/support/stepped/load.ts';
import { type Cast, Explorable } from '../../../../test/support/stepped/scope.ts';
import { GNTCOPY_SOURCE_GREF } from '../../../abi/grant-table-op.ts';
import {
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GNTST_OKAY,
  GTF_READING,
  GTF_SUB_PAGE,
  GTF_WRITING,
} from '../../../abi/grant.ts';
import { DOMID_SELF, XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { DomainId, FrameNumber, GrantRef } from '../../../xen/ids.ts';
import type { DomainRecord } from '../domain-record.ts';
import { P2M_GRANT_READONLY, P2M_GRANT_WRITABLE, p2mFrame, p2mType } from '../physmap.ts';
import type { DomainPorts, Xen } from '../xen.ts';
import { PINS_WRITABLE } from './active-entry.ts';
import { mappingRef } from './maptrack.ts';
import { mappings } from './recount.test.helper.ts';
import { headerWord, statusWord } from './shared-entry.ts';

export const READWRITE = GNTMAP_HOST_MAP;
export const READONLY = GNTMAP_HOST_MAP | GNTMAP_READONLY;
/**
 * The references of a scope grant frames 1, 2 and so on. B is good for copies only in a table of version 2, and FAR
 * is past the end of one.
 */
export const A = 8 as GrantRef;
export const B = 9 as GrantRef;
export const FAR = 20 as GrantRef;

/** The module of the embedded Xen. */
type Model = typeof import('../xen.ts');

const KIB = 1024;
/** Pages of each domain's memory, and processors of the backend. */
const PAGES = 4;
const PROCESSORS = 2;
const BACKEND = 1 as DomainId;
const GUEST = 2 as DomainId;
const REFS = [A, B, FAR];
const frameOf = (ref: GrantRef) => (1 + REFS.indexOf(ref)) as FrameNumber;
/** First word of the page behind a reference: what a copy brings. */
const CONTENT = 0x0a0a_0000;
const COPY_BYTES = 4;
/** Frame of the backend's memory into which processor n copies: this one plus n. */
const COPY_FRAME = 1;

/**
 * Tables of 32 entries a frame, 16 in version 2, instead of 512 and 256: a switch of versions locks all of them.
 * Nothing else about them differs.
 */
export const SMALL_TABLE: readonly Patch[] = [
  { file: 'src/abi/grant.ts', from: 'XEN_PAGE_SIZE / grantEntryV1.size', to: '32' },
  { file: 'src/abi/grant.ts', from: 'XEN_PAGE_SIZE / grantEntryV2Full.size', to: '16' },
  {
    file: 'src/hosts/model/domain-record.ts',
    from: '(GRANT_ENTRIES_PER_FRAME_V1 * ACTIVE_WORDS) / PAGE_WORDS',
    to: '1',
  },
];

/** The stepped embedded Xen, with mistakes planted in it if there are patches. */
export function loadXen(patches: readonly Patch[] = []): Promise<Model> {
  return loadStepped('src/hosts/model/xen.ts', [...SMALL_TABLE, ...patches]);
}

/** A processor of the backend, as its thread sees the machine. */
class Processor {
  readonly index: number;
  readonly xen: Xen;
  readonly record: DomainRecord;
  /** Where it maps, and the handle of what it has mapped last. */
  readonly gfn: number;
  handle: number;
  /** What every processor had mapped when the scope began. */
  readonly handles: readonly number[];

  constructor(xen: Xen, index: number, handles: readonly number[]) {
    this.index = index;
    this.handles = handles;
    this.xen = xen;
    this.record = xen.domain(BACKEND);
    this.gfn = this.record.window + index;
    this.handle = handles[index] ?? -1;
  }
}

/** One operation of a processor; the result is a status, or what was copied. */
export type Operation = (processor: Processor) => Steps<number>;

export const map = (ref: GrantRef, flags: number): Operation =>
  function* (processor) {
    const { xen, record, gfn, index } = processor;
    const handle = yield* steps(xen.grants).map(record, gfn, flags, ref, GUEST, index);
    if (handle >= 0) processor.handle = handle;
    return handle < 0 ? handle : GNTST_OKAY;
  };

/** Unmaps what it has mapped last; or what processor `whose` mapped before the scope began. */
export const unmap = (whose?: number): Operation =>
  function* ({ xen, record, gfn, handle, handles }) {
    if (whose === undefined) return yield* steps(xen.grants).unmap(record, gfn, handle);
    return yield* steps(xen.grants).unmap(record, record.window + whose, handles[whose]);
  };

/** Copies the first word of a granted page. */
export const copy = (ref: GrantRef): Operation =>
  function* ({ xen, record, index }) {
    const frame = COPY_FRAME + index;
    const source = { domain: GUEST, page: ref, offset: 0 };
    const dest = { domain: DOMID_SELF, page: frame, offset: 0 };
    const status = yield* steps(xen.copies).copy(record, source, dest, COPY_BYTES, GNTCOPY_SOURCE_GREF);
    if (status !== GNTST_OKAY) return status;
    const words = new Int32Array(xen.state.memory);
    const word = ((record.ramFrame + frame) * XEN_PAGE_SIZE) / 4;
    return (yield access('copied', 'get', words, word)) as number;
  };

/** An operation of the guest's kernel. */
export type KernelOperation = (kernel: Kernel) => Steps<number>;

interface Kernel {
  readonly ports: DomainPorts;
  /** A word for each reference: 1 once access to it has been ended. */
  readonly ended: Int32Array;
}

/** Ends access. The result is how many references are busy: 0 or 1. */
export const revoke = (ref: GrantRef): KernelOperation =>
  function* ({ ports, ended }) {
    const busy = yield* steps(ports.grantTable).revoke(ref, 1);
    if (busy === 0) yield access('revoked', 'put', ended, REFS.indexOf(ref), 1);
    return busy;
  };

/** Grants frame 0 through reference A instead, unless the attempt to end access to it found it busy. */
export const regrantA = (): KernelOperation =>
  function* ({ ports, ended }) {
    if ((yield access('ended?', 'get', ended, REFS.indexOf(A))) === 0) return GNTST_OKAY;
    yield access('granted', 'put', ended, REFS.indexOf(A), 0);
    yield* steps(ports.grantTable).grant(A, 1, BACKEND, 0 as FrameNumber, false);
    return GNTST_OKAY;
  };

/** Switches the table to the other version, which ends all access. The result is 0 or a negative errno. */
export const setVersion = (version: number): KernelOperation =>
  function* ({ ports, ended }) {
    const result = yield* steps(ports.grantTable).setVersion(version);
    if (result === 0) for (const index of REFS.keys()) yield access('emptied', 'put', ended, index, 1);
    return result;
  };

/** What a scope is made of. */
export interface GrantScope {
  /** What each processor of the backend does, in order. */
  readonly processors: readonly (readonly Operation[])[];
  /** What the guest's kernel does meanwhile. */
  readonly kernel?: readonly KernelOperation[];
  /** What processor n has mapped already. */
  readonly mapped?: readonly (readonly [ref: GrantRef, flags: number])[];
  /** Version of the guest's table at first; 1 unless given. */
  readonly version?: 1 | 2;
  /** Looks at what the processors and then the kernel returned, at the end of every run. */
  check?(results: readonly (readonly number[])[]): void;
}

/** A scope on a machine of its own, ready to be explored. */
export function explorable(model: Model, scope: GrantScope): Explorable {
  const stage = new Stage(model, scope);
  return new Explorable({ buffers: stage.buffers, start: () => stage.start() });
}

/** The machine of a scope, and what must hold on it. */
class Stage {
  readonly #model: Model;
  readonly #scope: GrantScope;
  readonly #xen: Xen;
  readonly #guest: DomainRecord;
  readonly #backend: DomainRecord;
  readonly #words: Int32Array;
  readonly #halves: Uint16Array;
  readonly #ended = new Int32Array(REFS.length);
  /** The handle that each processor holds when the scope begins. */
  readonly #handles: number[] = [];

  constructor(model: Model, scope: GrantScope) {
    this.#model = model;
    this.#scope = scope;
    this.#xen = model.Xen.boot(160 * KIB, 420 * KIB, false);
    const options = { memory: PAGES * XEN_PAGE_SIZE, maxGrantFrames: 1, maxMaptrackFrames: PROCESSORS };
    this.#guest = this.#xen.createDomain(GUEST, options);
    this.#backend = this.#xen.createDomain(BACKEND, { ...options, vcpus: PROCESSORS });
    this.#words = new Int32Array(this.#xen.state.memory);
    this.#halves = new Uint16Array(this.#xen.state.memory);
    this.#grantAll(scope.version ?? 1);
    for (let index = 0; index < PROCESSORS; index++) this.#warmUp(index);
    for (const [index, [ref, flags]] of (scope.mapped ?? []).entries())
      this.#handles.push(this.#map(index, ref, flags));
  }

  get buffers(): readonly ArrayBufferLike[] {
    return [this.#xen.state.memory, this.#xen.state.heap, this.#ended.buffer];
  }

  start(): Cast {
    const { processors, kernel } = this.#scope;
    const { state } = this.#xen;
    // Each has a view of its own, as each thread has.
    const actors: Steps<number[]>[] = processors.map((operations, index) =>
      inTurn(new Processor(new this.#model.Xen(state), index, this.#handles), operations),
    );
    const ports = () => new this.#model.Xen(state).ports(GUEST, () => false);
    if (kernel !== undefined) actors.push(inTurn({ ports: ports(), ended: this.#ended }, kernel));
    return {
      actors,
      always: () => this.#always(),
      end: (results) => this.#end(results as readonly (readonly number[])[]),
    };
  }

  #grantAll(version: number): void {
    const { grantTable } = this.#xen.ports(GUEST, () => false);
    assert.equal(grantTable.setVersion(version), 0);
    for (const ref of REFS.filter((each) => each < grantTable.entries))
      grantTable.grant(ref, 1, BACKEND, frameOf(ref), false);
    if (version === 2) this.#grantPart(B);
    for (let frame = 0; frame < PAGES; frame++)
      this.#words[((this.#guest.ramFrame + frame) * XEN_PAGE_SIZE) / 4] = content(frame);
  }

  /** Makes an entry of version 2 one that grants only the first bytes of its page, and only to copies. */
  #grantPart(ref: GrantRef): void {
    const word = headerWord(this.#guest, ref, 2);
    this.#words[word + 1] = COPY_BYTES << 16;
    this.#words[word] |= GTF_SUB_PAGE;
  }

  /** Makes the tables that a first map makes: they are another story. */
  #warmUp(index: number): void {
    const handle = this.#map(index, A, READWRITE);
    assert.equal(this.#xen.grants.unmap(this.#backend, this.#backend.window + index, handle), GNTST_OKAY);
  }

  #map(index: number, ref: GrantRef, flags: number): number {
    const gfn = this.#backend.window + index;
    const handle = this.#xen.grants.map(this.#backend, gfn, flags, ref, GUEST, index);
    assert.ok(handle >= 0, `map answers ${handle}`);
    return handle;
  }

  /** Invariants 3 and 10, H6: what is pinned or mapped is marked, and what was ended is neither. */
  #always(): void {
    for (const ref of REFS) this.#checkEntry(ref, this.#read(this.#ended, REFS.indexOf(ref)) === 1);
    for (let index = 0; index < PROCESSORS; index++) this.#checkPlace(this.#backend.window + index);
  }

  #checkEntry(ref: GrantRef, ended: boolean): void {
    const pins = this.#xen.grants.pins(this.#guest, ref);
    if (pins === 0) return;
    assert.ok(!ended, `10: reference ${ref} is pinned after access was ended`);
    const marks = this.#marks(ref);
    assert.ok(marks & GTF_READING, `3: reference ${ref} is pinned, but not marked as being read`);
    assert.ok(
      (pins & PINS_WRITABLE) === 0 || marks & GTF_WRITING,
      `3: reference ${ref} is pinned writable, but not marked as being written`,
    );
  }

  #checkPlace(gfn: number): void {
    const entry = this.#backend.physmap.get(gfn);
    const type = p2mType(entry);
    if (type !== P2M_GRANT_READONLY && type !== P2M_GRANT_WRITABLE) return;
    const ref = REFS[p2mFrame(entry) - this.#guest.ramFrame - 1] ?? A;
    assert.ok(this.#read(this.#ended, REFS.indexOf(ref)) === 0, `10: page of ${ref} mapped after its end`);
    const wanted = type === P2M_GRANT_WRITABLE ? GTF_WRITING : GTF_READING;
    assert.ok(
      this.#marks(ref) & wanted,
      `H6: the page of reference ${ref} is mapped, but its marks are clear`,
    );
  }

  /** Invariants 4 and 5: everything that is counted equals a recount of the mappings that are left. */
  #end(results: readonly (readonly number[])[]): void {
    const held = mappings({ ...this.#view(this.#backend), xen: this.#xen });
    for (const ref of REFS) {
      const own = held.filter((mapping) => mapping.ref === ref);
      const writable = own.filter((mapping) => !mapping.readonly).length;
      const pins = this.#xen.grants.pins(this.#guest, ref);
      assert.equal(pins, writable + ((own.length - writable) << 8), `4: pins of reference ${ref}`);
      const marks = (own.length > 0 ? GTF_READING : 0) | (writable > 0 ? GTF_WRITING : 0);
      assert.equal(this.#marks(ref) & (GTF_READING | GTF_WRITING), marks, `3: marks of reference ${ref}`);
    }
    const places = [...this.#backend.physmap.entries()].filter(({ type }) => FOREIGN.has(type));
    assert.equal(places.length, held.length, '4: pages in the address space');
    assert.equal(this.#freeHandles() + held.length, this.#backend.maptrackLimit, '5: handles');
    this.#scope.check?.(results);
  }

  #view(record: DomainRecord) {
    return { id: record.id, record, ports: this.#xen.ports(record.id, () => false) };
  }

  #freeHandles(): number {
    const heap = new Int32Array(this.#xen.state.heap);
    const seen = new Set<number>();
    for (let index = 0; index < PROCESSORS; index++) {
      for (let next = heap[this.#backend.maptrackList(index) + 1] - 1; next >= 0; ) {
        assert.ok(!seen.has(next), `5: handle ${next} is free twice`);
        seen.add(next);
        next = mappingRef(heap, this.#backend, next);
      }
    }
    return seen.size;
  }

  /** The marks of an entry, which are none where the table does not reach. */
  #marks(ref: GrantRef): number {
    if (ref >= this.#guest.grantEntries) return 0;
    return this.#guest.grantVersion === 1
      ? this.#read(this.#words, headerWord(this.#guest, ref, 1))
      : this.#read(this.#halves, statusWord(this.#guest, ref));
  }

  /** Reads as stepped code does, so that the search knows what is looked at. */
  #read(view: Int32Array | Uint16Array, index: number): number {
    return now('always', 'get', view, index) as number;
  }
}

/** What stands at the beginning of the guest's frame `frame`. */
export const content = (frame: number) => CONTENT | frame;

const FOREIGN: ReadonlySet<number> = new Set([P2M_GRANT_READONLY, P2M_GRANT_WRITABLE]);

function* inTurn<Part>(part: Part, operations: readonly ((part: Part) => Steps<number>)[]): Steps<number[]> {
  const results: number[] = [];
  for (const operation of operations) results.push(yield* operation(part));
  return results;
}
