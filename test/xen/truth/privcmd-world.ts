// The world of script.ts on the real Xen (4.17, x86), from user space of a PV domain 0 through /dev/xen/privcmd.
// The two granting domains are made with nothing but hypercalls: they have some pages and a grant table, no
// processor, no kernel and no toolstack. What is done here needs the rights that domain 0 has.
//
// Domain 0's own Linux is not to notice. Its table is made longer than it knows of, and of the references that Linux
// could use only those that belong to a toolstack are touched; a switch of versions empties the table, so nothing
// that grants may run beside this. Pages are mapped at addresses at which Linux has a page table, but no page: Xen
// fills the entry in and empties it again, and Linux never looks at it.

import {
  gnttabCopy,
  gnttabGetStatusFrames,
  gnttabSetupTable,
  gnttabSetVersion,
  GNTTABOP_COPY,
  GNTTABOP_GET_STATUS_FRAMES,
  GNTTABOP_SET_VERSION,
  GNTTABOP_SETUP_TABLE,
} from '../../../src/abi/grant-table-op.ts';
import { DOMID_SELF, XEN_PAGE_SIZE } from '../../../src/abi/xen.ts';
import { grantEntryV2Full, grantStatusName, GRANT_RESERVED_ENTRIES } from '../../../src/abi/grant.ts';
import { checked, type Libc, loadLibc } from '../../../src/hosts/linux/libc.ts';
import { GranterDomain } from './granter-domain.ts';
import { type Answer, Hypercalls, type Memory } from './hypercalls.ts';
import { DOMAIN_IDS, MAX_TABLE_FRAMES, PAGES, type Role, SLOTS, TABLE_FRAMES } from './script.ts';
import type { World } from './world.ts';

const MIB2 = 2 * 1024 * 1024;
const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS_NORESERVE = 0x4022;
const SYS_MADVISE = 28;
const MADV_NOHUGEPAGE = 15;
/** Below vm.mmap_min_addr there is no memory, and no page table if nothing is mapped in the first 2 MiB. */
const NOWHERE = 0x1000;
/** First page of a block of 2 MiB at which something may be mapped; the first of all is Linux's. */
const FIRST_PLACE = 16;
/** The page behind those of the caller that sequences are about: what Xen copies for us goes there. */
const SCRATCH = PAGES;

/** Domain 0, for as long as the process lives. */
export class PrivcmdXen {
  readonly #libc: Libc;
  readonly #xen: Hypercalls;
  readonly #frames: readonly number[];
  readonly #pages: Memory;
  readonly #table: Memory;
  readonly #places: { readonly address: number; readonly buffer: ArrayBuffer };

  /** @throws SystemError where there is no Xen, or this is not its domain 0 */
  constructor() {
    this.#libc = loadLibc();
    this.#xen = new Hypercalls(this.#libc);
    this.#frames = this.#xen.addPages(PAGES + 1);
    this.#pages = this.#xen.mapFrames(DOMID_SELF, this.#frames);
    this.#table = this.#xen.mapFrames(DOMID_SELF, this.#growTable());
    this.#places = this.#reservePlaces();
  }

  /** A world in which nothing was done before. It has to be closed before the next. */
  world(): World {
    this.#emptyTable();
    for (const page of this.#pages.pages) page.fill(0);
    return new PrivcmdWorld(this.#xen, this.#frames, this.#pages, this.#table, this.#places);
  }

  /** Gives the pages back. */
  close(): void {
    this.#pages.close();
    this.#table.close();
    this.#xen.removePages(this.#frames);
    this.#xen.close();
  }

  #growTable(): number[] {
    const { list } = this.#xen;
    const argument = { dom: DOMID_SELF, nr_frames: TABLE_FRAMES.self, frame_list: list.address };
    const answer = this.#xen.grantTableOp(GNTTABOP_SETUP_TABLE, gnttabSetupTable.make(argument).bytes, 1);
    const { status } = gnttabSetupTable.over(answer.bytes);
    if (answer.result !== 0 || status !== 0)
      throw new Error(`the grant table of domain 0: setup_table gave ${answer.result}, status ${status}`);
    return this.#xen.frameNumbers(TABLE_FRAMES.self);
  }

  /** Through version 2 and back, which clears all but the toolstack's entries. */
  #emptyTable(): void {
    for (const version of [2, 1]) {
      // First: what the last world left there may be what version 1 has no words for.
      this.#table.pages[0].fill(0, 0, GRANT_RESERVED_ENTRIES * grantEntryV2Full.size);
      const { bytes } = gnttabSetVersion.make({ version });
      const { result } = this.#xen.grantTableOp(GNTTABOP_SET_VERSION, bytes, 1);
      if (result !== 0)
        throw new Error(
          `domain 0 cannot switch its grant table to version ${version}: ${result}; are grants in use?`,
        );
    }
  }

  #reservePlaces(): { address: number; buffer: ArrayBuffer } {
    const libc = this.#libc;
    const reserved = checked(
      libc,
      'mmap',
      libc.mmap(0, 2 * MIB2, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS_NORESERVE, -1, 0),
      'addresses for mappings',
    );
    const address = Math.ceil(reserved / MIB2) * MIB2;
    checked(
      libc,
      'madvise',
      libc.syscall(SYS_MADVISE, address, MIB2, MADV_NOHUGEPAGE, 0, 0, 0),
      'addresses for mappings',
    );
    const buffer = libc.view(address, MIB2);
    // Linux makes the page table that Xen will look for.
    new Uint8Array(buffer)[0] = 1;
    return { address, buffer };
  }
}

class PrivcmdWorld implements World {
  readonly listAddress: number;
  readonly nowhere = NOWHERE;
  readonly #xen: Hypercalls;
  readonly #frames: readonly number[];
  readonly #pages: Memory;
  readonly #table: Memory;
  readonly #places: { readonly address: number; readonly buffer: ArrayBuffer };
  readonly #granters: Readonly<Record<'pv' | 'hvm', GranterDomain>>;

  constructor(
    xen: Hypercalls,
    frames: readonly number[],
    pages: Memory,
    table: Memory,
    places: { address: number; buffer: ArrayBuffer },
  ) {
    this.#xen = xen;
    this.#frames = frames;
    this.#pages = pages;
    this.#table = table;
    this.#places = places;
    this.listAddress = xen.list.address;
    const granter = (role: 'pv' | 'hvm') =>
      new GranterDomain(xen, DOMAIN_IDS[role], {
        isHvm: role === 'hvm',
        pages: PAGES,
        tableFrames: TABLE_FRAMES[role],
        maxTableFrames: MAX_TABLE_FRAMES[role],
      });
    this.#granters = { pv: granter('pv'), hvm: granter('hvm') };
  }

  call(command: number, bytes: Uint8Array, count: number): Answer {
    return this.#xen.grantTableOp(command, bytes, count);
  }

  callAt(command: number, address: number, count: number): number {
    return this.#xen.grantTableOpAt(command, address, count);
  }

  frame(of: Role, index: number): number {
    return of === 'self' ? this.#frames[index] : this.#granters[of].frames[index];
  }

  page(of: Role, index: number): Uint8Array {
    return (of === 'self' ? this.#pages : this.#granters[of].pages).pages[index];
  }

  tableFrame(of: Role, index: number): Uint8Array {
    return (of === 'self' ? this.#table : this.#granters[of].table).pages[index];
  }

  statusFrame(): number {
    const { list } = this.#xen;
    const argument = { dom: DOMID_SELF, nr_frames: 1, frame_list: list.address };
    const wanted = gnttabGetStatusFrames.make(argument);
    const answer = this.call(GNTTABOP_GET_STATUS_FRAMES, wanted.bytes, 1);
    const { status } = gnttabGetStatusFrames.over(answer.bytes);
    if (status !== 0) throw new Error(`domain 0 has no frame of statuses: ${grantStatusName(status)}`);
    return this.#xen.frameNumbers(1)[0];
  }

  /** By a copy: a frame of statuses that is mapped keeps the table from being switched back. */
  statuses(): Uint16Array {
    const copy = gnttabCopy.make({
      source_u: this.statusFrame(),
      source_domid: DOMID_SELF,
      dest_u: this.#frames[SCRATCH],
      dest_domid: DOMID_SELF,
      len: XEN_PAGE_SIZE,
    });
    const { status } = gnttabCopy.over(this.call(GNTTABOP_COPY, copy.bytes, 1).bytes);
    if (status !== 0)
      throw new Error(`the statuses of domain 0 cannot be copied: ${grantStatusName(status)}`);
    return new Uint16Array(this.#pages.pages[SCRATCH].slice().buffer);
  }

  placeAddress(place: number): number {
    if (!(place >= 0 && place < SLOTS)) throw new RangeError(`there is no place ${place}`);
    return this.#places.address + (FIRST_PLACE + place) * XEN_PAGE_SIZE;
  }

  readPlace(place: number): Uint8Array {
    return this.#place(place).slice();
  }

  writePlace(place: number, offset: number, bytes: Uint8Array): void {
    this.#place(place).set(bytes, offset);
  }

  close(): void {
    this.#granters.pv.destroy();
    this.#granters.hvm.destroy();
  }

  #place(place: number): Uint8Array {
    return new Uint8Array(this.#places.buffer, (FIRST_PLACE + place) * XEN_PAGE_SIZE, XEN_PAGE_SIZE);
  }
}
