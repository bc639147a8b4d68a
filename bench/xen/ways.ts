// The ways in which a backend reaches a page that was granted to it, each for requests of so many bytes. A domain that is
// granter and backend at once (gntalloc.ts) is all it takes; what a request does besides is left out. Before reach.ts.

import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import { Arena } from '../../src/hosts/linux/arena.ts';
import type { Libc } from '../../src/hosts/linux/libc.ts';
import { Gntdev } from '../../src/hosts/linux/xen/gntdev.ts';
import { GntdevCopier } from '../../src/hosts/linux/xen/gntdev-copier.ts';
import { GntdevMapper } from '../../src/hosts/linux/xen/gntdev-mapper.ts';
import { noTrace } from '../../src/trace.ts';
import { GrantCopies } from '../../src/xen/grant-copier.ts';
import { GrantPages } from '../../src/xen/grant-mapper.ts';
import type { DomainId, GrantRef } from '../../src/xen/ids.ts';

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
  const ways = [
    mapEach(mapper, granted),
    mapAtOnce(mapper, granted),
    copyAll(copier, granted, 'in'),
    copyAll(copier, granted, 'out'),
    keepMapped(mapper, granted),
  ];
  const close = () => {
    mapper.close();
    copier.close();
    gntdev.close();
    arena.close();
  };
  return { ways, close };
}

const pagesOf = (bytes: number): number => Math.ceil(bytes / XEN_PAGE_SIZE);

/** A list of `pages` references, from number `first` on. */
function listOf({ refs }: Granted, first: number, pages: number): GrantPages {
  const list = new GrantPages();
  for (let page = 0; page < pages; page++) list.add(refs[first + page]);
  return list;
}

/** Every page by calls of its own: what the others are compared with. */
function mapEach(mapper: GntdevMapper, granted: Granted): Way {
  const lists = granted.refs.map((_, page) => listOf(granted, page, 1));
  const request = (bytes: number): void => {
    const pages = pagesOf(bytes);
    for (let page = 0; page < pages; page++) okay(mapper.mapPages(granted.owner, lists[page], true));
    for (let page = 0; page < pages; page++) okay(mapper.unmapPages(lists[page]));
  };
  return { name: 'map each page', request };
}

/** What `--access map` does. */
function mapAtOnce(mapper: GntdevMapper, granted: Granted): Way {
  const list = new GrantPages();
  const request = (bytes: number): void => {
    const pages = pagesOf(bytes);
    list.clear();
    for (let page = 0; page < pages; page++) list.add(granted.refs[page]);
    okay(mapper.mapPages(granted.owner, list, true));
    okay(mapper.unmapPages(list));
  };
  return { name: 'map at once', request };
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
function keepMapped(mapper: GntdevMapper, granted: Granted): Way {
  const { owner, refs } = granted;
  const handles = new Map<number, number>();
  const reach = (page: number, readonly: boolean): number => {
    const key = refs[page] * 2 + Number(readonly);
    const kept = handles.get(key);
    if (kept !== undefined) return kept;
    const list = listOf(granted, page, 1);
    okay(mapper.mapPages(owner, list, readonly));
    const [handle] = list.handles;
    handles.set(key, handle);
    return handle;
  };
  const request = (bytes: number): void => {
    const pages = pagesOf(bytes);
    for (let page = 0; page < pages; page++) reach(page, true);
  };
  return { name: 'kept mapped', request };
}

/** Hands on what is not a status of a refusal. */
function okay(result: number): number {
  if (result < 0) throw new Error(`a granted page was refused with GNTST ${result}`);
  return result;
}
