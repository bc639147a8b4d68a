// Runs in dom0 of a real Xen, by hand or by the rig: a curious backend. It serves a disk in its memory to a guest by
// grants, and looks at what lies beside the header, the status and the indirect table of each request, in the pages that
// it maps for them. Meanwhile, and when the guest has fallen silent, it looks into the guest's grant table: what is
// granted, and for how long after the backend has let go of it.
//   node dist/test/xen/peeping.js DOMAIN
// The guest is there already, paused, and is set going here. What was seen is printed as JSON (Peeped). The counterpart
// on the embedded Xen is src/parallel/peeping-mapper.ts.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  GRANT_ENTRIES_PER_FRAME_V1,
  GTF_PERMIT_ACCESS,
  GTF_READING,
  GTF_READONLY,
  GTF_TYPE_MASK,
  GTF_WRITING,
  GNTST_OKAY,
  grantEntryV1,
} from '../../src/abi/grant.ts';
import { pagesTouched } from '../../src/abi/grant-address.ts';
import { XENMEM_resource_grant_table } from '../../src/abi/memory-op.ts';
import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import { BlkDevice } from '../../src/devices/blk.ts';
import { Arena } from '../../src/hosts/linux/arena.ts';
import { Epoll } from '../../src/hosts/linux/epoll.ts';
import { loadLibc } from '../../src/hosts/linux/libc.ts';
import { openXenHost } from '../../src/hosts/linux/xen/host.ts';
import { Privcmd } from '../../src/hosts/linux/xen/privcmd.ts';
import { BackendDomain } from '../../src/machine/backend-domain.ts';
import type { NeedTracer } from '../../src/memory/traced-memory.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { DMA_TO_DEVICE } from '../../src/trace.ts';
import type { GrantMapper, GrantPages } from '../../src/xen/grant-mapper.ts';
import { type DomainId, domainId } from '../../src/xen/ids.ts';

/** What was seen of one kind of buffer, and of the pages in which they lay. */
export interface Beside {
  buffers: number;
  /** Bytes beside them that were not zero, in all pages together. */
  bytes: number;
  /** Words beside them that are addresses of the kernel's memory. */
  addresses: number;
  /** Where in its page one of them lay, and the bytes around it: the one with the most addresses. */
  sample: { offset: number; size: number; from: number; hex: string; addresses: number } | undefined;
}

/** The guest's grants to this domain at one moment. */
export interface Granted {
  readonly entries: number;
  readonly writable: number;
  /** Those that this backend maps. */
  readonly mapped: number;
}

/** Lengths of times, in milliseconds; none is longer than said, for the table is looked at every millisecond. */
export interface Windows {
  readonly count: number;
  readonly median: number;
  /** 99 of 100 are shorter. */
  readonly most: number;
  readonly longest: number;
}

/** What a backend saw. */
export interface Peeped {
  readonly headers: Beside;
  readonly statuses: Beside;
  /** Indirect tables. */
  readonly tables: Beside;
  /** While requests were in hand, at most; and when the guest had nothing to ask for. */
  readonly busiest: Granted;
  readonly idle: Granted;
  /** How long pages stayed granted when the backend had let go of them. */
  readonly stale: Windows;
}

const BASE = 0xd000_0000;
const IRQ = 5;
const DISK = 2 ** 23;
const HEADER = 16;
const STATUS = 1;
const SECTOR = 512;
/** Requests before which the guest has not begun, and the silence after which it has ended. */
const FEWEST = 50;
const SILENCE_MILLISECONDS = 5000;
/** Frames of the grant table that are looked at; Xen would make those that are not there. */
const TABLE_FRAMES = 4;
/** An entry in words of 16 bits. */
const ENTRY_WORDS = grantEntryV1.size / 2;
const [FLAGS, DOMAIN] = [grantEntryV1.offsetOf('flags') / 2, grantEntryV1.offsetOf('domid') / 2];
/** Bytes of a sample on each side. */
const AROUND = 48;
/** References that the toolstack uses, for the console and the store (xen/grant_table.h of Linux). */
const RESERVED = 8;
/** The kernel's half of the addresses of Linux on x86-64 (its mm.rst), without small negative numbers. */
const KERNEL = 0xffff_8000_0000_0000n;
const KERNEL_END = 0xffff_ffff_c000_0000n;

const guest = domainId(Number(process.argv[2]));
const libc = loadLibc();
const arena = new Arena(libc, 2 ** 18);
const host = openXenHost({ libc, arena, id: domainId(0) });
const epoll = new Epoll(libc, arena);
for (const fd of host.descriptors) epoll.add(fd, 0);

/** Remembers by which handle a reference is mapped. */
class RememberingMapper implements GrantMapper {
  readonly #inner = host.grantMapper;
  readonly #handles = new Map<number, number>();

  mapPages(owner: DomainId, pages: GrantPages, readonly: boolean): number {
    const status = this.#inner.mapPages(owner, pages, readonly);
    for (let i = 0; i < pages.count && status === GNTST_OKAY; i++)
      this.#handles.set(pages.refs[i], pages.handles[i]);
    return status;
  }

  unmapPages = (pages: GrantPages) => this.#inner.unmapPages(pages);
  region = (handle: number) => this.#inner.region(handle);
  offset = (handle: number) => this.#inner.offset(handle);

  /** A copy of the page that was mapped last by this reference. */
  page(ref: number): Uint8Array {
    const handle = this.#handles.get(ref)!;
    const start = this.offset(handle);
    return this.region(handle).u8.slice(start, start + XEN_PAGE_SIZE);
  }
}

/** Looks into the pages of requests' ends, and for how long pages stay granted after them. */
class Peeper implements NeedTracer {
  readonly headers = nothingSeen();
  readonly statuses = nothingSeen();
  readonly tables = nothingSeen();
  readonly windows: number[] = [];
  /** References that no request uses any more, and since when. */
  readonly #stale = new Map<number, number>();
  readonly #mapper: RememberingMapper;

  constructor(mapper: RememberingMapper) {
    this.#mapper = mapper;
  }

  get waits(): boolean {
    return this.#stale.size > 0;
  }

  need(ref: number, offset: number, size: number, direction: number): boolean {
    const seen = this.#kindOf(size, direction);
    if (seen !== undefined) look(seen, this.#mapper.page(ref), offset, size);
    for (const page of pages(ref, offset, size)) this.#end(page);
    return true;
  }

  needEnd(ref: number, offset: number, size: number): void {
    for (const page of pages(ref, offset, size)) this.#stale.set(page, performance.now());
  }

  /** Looks which of the pages are granted still. */
  follow(table: GuestTable): void {
    for (const ref of this.#stale.keys()) if (!table.isGranted(ref)) this.#end(ref);
  }

  /** Where a buffer is counted, by what it must be: the guest only reads, in whole sectors. */
  #kindOf(size: number, direction: number): Beside | undefined {
    if (size === STATUS) return this.statuses;
    if (direction !== DMA_TO_DEVICE || size >= SECTOR) return undefined;
    return size === HEADER ? this.headers : this.tables;
  }

  #end(ref: number): void {
    const since = this.#stale.get(ref);
    if (since === undefined) return;
    this.#stale.delete(ref);
    this.windows.push(performance.now() - since);
  }
}

/** References of the pages in which a buffer lies. */
function pages(ref: number, offset: number, size: number): number[] {
  return Array.from({ length: pagesTouched(offset, size) }, (_, page) => ref + page);
}

function nothingSeen(): Beside {
  return { buffers: 0, bytes: 0, addresses: 0, sample: undefined };
}

function look(seen: Beside, page: Uint8Array, offset: number, size: number): void {
  seen.buffers++;
  const from = Math.max(0, (offset & ~15) - AROUND);
  const around = page.slice(from, from + 2 * AROUND + HEADER);
  const hex = Buffer.from(around).toString('hex');
  page.fill(0, offset, offset + size);
  seen.bytes += page.reduce((sum, byte) => sum + (byte === 0 ? 0 : 1), 0);
  seen.addresses += addressesIn(page);
  const addresses = addressesIn(around);
  if (addresses > (seen.sample?.addresses ?? -1)) seen.sample = { offset, size, from, hex, addresses };
}

function addressesIn(bytes: Uint8Array): number {
  const words = new BigUint64Array(bytes.buffer, 0, bytes.length >> 3);
  return words.reduce((sum, word) => sum + (word >= KERNEL && word < KERNEL_END ? 1 : 0), 0);
}

function summary(lengths: number[]): Windows {
  lengths.sort((a, b) => a - b);
  const at = (part: number): number => Number(lengths[Math.floor((lengths.length - 1) * part)].toFixed(1));
  return { count: lengths.length, median: at(0.5), most: at(0.99), longest: at(1) };
}

/** The guest's grant table, of version 1, as Xen has it. */
class GuestTable {
  readonly #frames: readonly Uint16Array[];

  constructor() {
    const privcmd = new Privcmd(libc, arena);
    this.#frames = Array.from({ length: TABLE_FRAMES }, (_, frame) => {
      const address = privcmd.mapResource(guest, XENMEM_resource_grant_table, 0, frame);
      assert.ok(address > 0, `frame ${frame} of the guest's grant table: ${address}`);
      return new Uint16Array(libc.view(address, XEN_PAGE_SIZE));
    });
  }

  isGranted(ref: number): boolean {
    return (this.#flags(ref) & GTF_TYPE_MASK) === GTF_PERMIT_ACCESS && this.#word(ref, DOMAIN) === host.id;
  }

  /** What is granted to this domain now. */
  look(): Granted {
    const granted = { entries: 0, writable: 0, mapped: 0 };
    for (let ref = RESERVED; ref < TABLE_FRAMES * GRANT_ENTRIES_PER_FRAME_V1; ref++) {
      if (!this.isGranted(ref)) continue;
      const flags = this.#flags(ref);
      granted.entries++;
      if ((flags & GTF_READONLY) === 0) granted.writable++;
      if ((flags & (GTF_READING | GTF_WRITING)) !== 0) granted.mapped++;
    }
    return granted;
  }

  #flags(ref: number): number {
    return this.#word(ref, FLAGS);
  }

  #word(ref: number, word: number): number {
    const frame = this.#frames[Math.floor(ref / GRANT_ENTRIES_PER_FRAME_V1)];
    return frame[(ref % GRANT_ENTRIES_PER_FRAME_V1) * ENTRY_WORDS + word];
  }
}

const mapper = new RememberingMapper();
const peeper = new Peeper(mapper);
const backend = new BackendDomain(host, { mapper, copier: host.grantCopier });
const bytes = new Uint8Array(DISK).map((_, index) => (index >> 12) ^ index);
const disk = new BlkDevice(new MemoryStore(bytes), { queues: 1, queueSize: 256, id: 'peeping' });
const served = backend.serve(disk, guest, BASE, 'map', { irq: IRQ, needs: peeper });
execFileSync('xl', ['unpause', `${guest}`]);

let busiest: Granted = { entries: 0, writable: 0, mapped: 0 };
let table: GuestTable | undefined;
for (let heard = performance.now(); ; ) {
  if (epoll.wait(peeper.waits ? 1 : SILENCE_MILLISECONDS, () => undefined) > 0) heard = performance.now();
  const isSilent = performance.now() - heard >= SILENCE_MILLISECONDS;
  if (isSilent && peeper.headers.buffers >= FEWEST) break;
  // Before its first request the guest may have no table yet.
  if (peeper.headers.buffers > 0) {
    table ??= new GuestTable();
    peeper.follow(table);
    const granted = table.look();
    if (granted.entries > busiest.entries) busiest = granted;
  }
  for (let worked = true; worked; ) worked = backend.poll();
}
const idle = table!.look();
const { headers, statuses, tables, windows } = peeper;
const peeped: Peeped = { headers, statuses, tables, busiest, idle, stale: summary(windows) };
process.stdout.write(`${JSON.stringify(peeped)}\n`);
backend.remove(served);
host.close();
