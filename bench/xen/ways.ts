// The ways in which a backend reaches a page that was granted to it, each for requests of so many bytes. A domain that is
// granter and backend at once (gntalloc.ts) is all it takes; what a request does besides is left out. Before reach.ts.

import {
  IOCTL_GNTDEV_MAP_GRANT_REF,
  IOCTL_GNTDEV_UNMAP_GRANT_REF,
  ioctlGntdevMapGrantRef,
  ioctlGntdevUnmapGrantRef,
} from '../../src/abi/gntdev.ts';
import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import { Arena } from '../../src/hosts/linux/arena.ts';
import { checked, type Libc } from '../../src/hosts/linux/libc.ts';
import { Gntdev } from '../../src/hosts/linux/xen/gntdev.ts';
import { GntdevCopier } from '../../src/hosts/linux/xen/gntdev-copier.ts';
import { GntdevMapper } from '../../src/hosts/linux/xen/gntdev-mapper.ts';
import { noTrace } from '../../src/trace.ts';
import { GrantCopies } from '../../src/xen/grant-copier.ts';
import type { DomainId, GrantRef } from '../../src/xen/ids.ts';

/** One of the pages of an ioctl_gntdev_map_grant_ref: domid and ref, of which the record's last eight bytes are the first. */
const PAGE_RECORD = 8;
const FIRST_PAGE = ioctlGntdevMapGrantRef.size - PAGE_RECORD;

const PROT_NONE = 0;
const PROT_READ = 1;
const MAP_SHARED_FIXED = 0x11;
const MAP_NOTHING = 0x4022; // MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
const MAP_NOTHING_FIXED = 0x4032;

/** A way to reach the bytes of a request, which lie in whole pages from the start of the first. */
export interface Way {
  readonly name: string;
  /** Reaches so many bytes and lets go of them again. */
  request(bytes: number): void;
}

/** What is granted, and by whom. */
export interface Granted {
  readonly owner: DomainId;
  readonly refs: readonly GrantRef[];
}

/** All ways over these grants, the first being the one to compare with; `close` ends them. */
export function waysToReach(libc: Libc, granted: Granted): { ways: Way[]; close(): void } {
  const arena = new Arena(libc, 2 ** 17);
  const gntdev = new Gntdev(libc, arena);
  const parts = { libc, gntdev, id: granted.owner, tracer: noTrace };
  const mapper = new GntdevMapper({ ...parts, arena });
  const copier = new GntdevCopier(parts);
  const batch = new BatchOfPages(libc, arena, gntdev, granted);
  const ways = [
    mapEach(mapper, granted),
    { name: 'map at once', request: (bytes: number) => batch.request(pagesOf(bytes)) },
    copyAll(copier, granted, 'in'),
    copyAll(copier, granted, 'out'),
    keepMapped(mapper, granted),
  ];
  const close = () => {
    mapper.close();
    copier.close();
    batch.close();
    gntdev.close();
    arena.close();
  };
  return { ways, close };
}

const pagesOf = (bytes: number): number => Math.ceil(bytes / XEN_PAGE_SIZE);

/** What `--access map` does. */
function mapEach(mapper: GntdevMapper, { owner, refs }: Granted): Way {
  const handles: number[] = [];
  const request = (bytes: number): void => {
    const pages = pagesOf(bytes);
    for (let page = 0; page < pages; page++) handles[page] = okay(mapper.map(owner, refs[page], true));
    for (let page = 0; page < pages; page++) okay(mapper.unmap(handles[page]));
  };
  return { name: 'map each page', request };
}

/** What `--access copy` does. */
function copyAll(copier: GntdevCopier, { owner, refs }: Granted, direction: 'in' | 'out'): Way {
  const copies = new GrantCopies();
  const start = okay(copier.takePages(refs.length));
  const request = (bytes: number): void => {
    copies.clear();
    for (let at = 0; at < bytes; at += XEN_PAGE_SIZE)
      copies.add(refs[at / XEN_PAGE_SIZE], 0, Math.min(bytes - at, XEN_PAGE_SIZE), start + at);
    okay(direction === 'in' ? copier.copyIn(owner, copies) : copier.copyOut(owner, copies));
  };
  return { name: `copy ${direction}`, request };
}

/** Mappings that outlive their request, found again by reference and by what may be done with them. Never let go. */
function keepMapped(mapper: GntdevMapper, { owner, refs }: Granted): Way {
  const handles = new Map<number, number>();
  const reach = (ref: number, readonly: boolean): number => {
    const key = ref * 2 + Number(readonly);
    const kept = handles.get(key);
    if (kept !== undefined) return kept;
    const handle = okay(mapper.map(owner, ref, readonly));
    handles.set(key, handle);
    return handle;
  };
  const request = (bytes: number): void => {
    const pages = pagesOf(bytes);
    for (let page = 0; page < pages; page++) reach(refs[page], true);
  };
  return { name: 'kept mapped', request };
}

/** Pages that are announced by one call, mapped by one, and let go by two: what no port of ours asks for yet. */
class BatchOfPages {
  readonly #libc: Libc;
  readonly #gntdev: Gntdev;
  readonly #granted: Granted;
  readonly #argument: ReturnType<Arena['take']>;
  readonly #address: number;
  readonly #length: number;

  constructor(libc: Libc, arena: Arena, gntdev: Gntdev, granted: Granted) {
    this.#libc = libc;
    this.#gntdev = gntdev;
    this.#granted = granted;
    this.#argument = arena.take(FIRST_PAGE + PAGE_RECORD * granted.refs.length);
    this.#length = granted.refs.length * XEN_PAGE_SIZE;
    const address = libc.mmap(0, this.#length, PROT_NONE, MAP_NOTHING, -1, 0);
    this.#address = checked(libc, 'mmap', address, 'addresses for granted pages');
  }

  request(pages: number): void {
    const index = this.#announce(pages);
    const length = pages * XEN_PAGE_SIZE;
    this.#put(length, PROT_READ, MAP_SHARED_FIXED, this.#gntdev.fd, index);
    this.#put(length, PROT_NONE, MAP_NOTHING_FIXED, -1, 0);
    const argument = ioctlGntdevUnmapGrantRef.over(this.#argument.u8);
    argument.index = index;
    argument.count = pages;
    argument.pad = 0;
    this.#call(IOCTL_GNTDEV_UNMAP_GRANT_REF);
  }

  close(): void {
    this.#libc.munmap(this.#address, this.#length);
  }

  #announce(pages: number): number {
    const { owner, refs } = this.#granted;
    const { u8, view } = this.#argument;
    const argument = ioctlGntdevMapGrantRef.over(u8);
    argument.count = pages;
    argument.pad = 0;
    argument.index = 0;
    for (let page = 0; page < pages; page++) {
      view.setUint32(FIRST_PAGE + PAGE_RECORD * page, owner, true);
      view.setUint32(FIRST_PAGE + PAGE_RECORD * page + 4, refs[page], true);
    }
    this.#call(IOCTL_GNTDEV_MAP_GRANT_REF);
    return argument.index;
  }

  #put(length: number, protection: number, flags: number, fd: number, offset: number): void {
    const result = this.#libc.mmap(this.#address, length, protection, flags, fd, offset);
    checked(this.#libc, 'mmap', result, 'granted pages');
  }

  #call(request: number): void {
    const result = this.#libc.ioctl(this.#gntdev.fd, request, this.#argument.address);
    checked(this.#libc, 'ioctl', result, 'granted pages');
  }
}

/** Hands on what is not a status of a refusal. */
function okay(result: number): number {
  if (result < 0) throw new Error(`a granted page was refused with GNTST ${result}`);
  return result;
}
