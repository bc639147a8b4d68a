// The ioreq servers of guests: made and ended by their device models, given ranges, switched on and off (Xen
// common/ioreq.c). Every operation holds the lock of the guest's machine while it looks and acts; event channels
// are opened before and closed after that. After hypercall.ts; before requests.ts.

import {
  HVM_IOREQSRV_BUFIOREQ_ATOMIC,
  HVM_IOREQSRV_BUFIOREQ_OFF,
  XEN_DMOP_IO_RANGE_MEMORY,
  XEN_DMOP_IO_RANGE_PCI,
} from '../../../abi/dm-op.ts';
import { ioreq, STATE_IOREQ_NONE } from '../../../abi/ioreq.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Domains } from '../domains.ts';
import { EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC, EPERM } from '../errno.ts';
import type { EventOps } from '../events/event-ops.ts';
import { withLock } from '../lock.ts';
import { type Machine, MAX_DOMAINS } from '../state.ts';
import { closeChannels, openChannels } from './channels.ts';
import { freeLegacyPage, hideLegacyPages, showLegacyPages, takeLegacyPage } from './legacy-pages.ts';
import { MachinePage, MAX_IOREQ_SERVERS } from './machine-page.ts';
import {
  BUFFERED_PAGE,
  serverAt,
  type ServerPage,
  type ServerRecord,
  SYNCHRONOUS_PAGE,
} from './server-record.ts';
import { addWindow, orphan, releaseOrphans, type Window, WINDOW_TABLE_PAGES, windowsOf } from './windows.ts';

const PORT_OFFSET = ioreq.offsetOf('vp_eport');
const STATE_WORD = ioreq.offsetOf('_pad0') / 4;

/** What a server has been given; frame numbers are -1 where it has no such page. */
export interface ServerInfo {
  readonly bufferedPort: number;
  readonly gfn: number;
  readonly bufferedGfn: number;
}

/** What is left to do for a server that has ended, once the lock is free. */
interface Ended {
  readonly ports: readonly number[];
  readonly frames: readonly number[];
}

/** Operations on ioreq servers as one thread makes them. Failures are negative errno values. */
export class IoreqServers {
  readonly #machine: Machine;
  readonly #domains: Domains;
  readonly #events: EventOps;

  constructor(machine: Machine, domains: Domains, events: EventOps) {
    this.#machine = machine;
    this.#domains = domains;
    this.#events = events;
  }

  /** Makes a server, off and without ranges. Returns its id, the lowest that is free. */
  create(emulator: DomainRecord, guest: DomainRecord, buffering: number): number {
    const most = guest.architecture === 'arm' ? HVM_IOREQSRV_BUFIOREQ_OFF : HVM_IOREQSRV_BUFIOREQ_ATOMIC;
    if (buffering > most) return EINVAL;
    const isBuffered = buffering !== HVM_IOREQSRV_BUFIOREQ_OFF;
    const vcpus = Array.from({ length: guest.vcpus }, (_, vcpu) => vcpu);
    // Buffered requests are told by a channel of the first processor's.
    if (isBuffered) vcpus.push(0);
    const ports = openChannels(this.#events, guest, emulator, vcpus);
    if (typeof ports === 'number') return ports;
    const id = this.#locked(guest, () => {
      const free = this.#freePlace(guest);
      if (free < 0) return free;
      const bufferedPort = isBuffered ? ports[guest.vcpus] : 0;
      serverAt(this.#machine, guest, free)?.begin(
        emulator.id,
        buffering,
        ports.slice(0, guest.vcpus),
        bufferedPort,
      );
      return free;
    });
    if (id < 0) closeChannels(this.#events, guest, ports);
    return id;
  }

  /** Ends a server. A processor that waits for its answer gets all ones. */
  destroy(emulator: DomainRecord, guest: DomainRecord, id: number): number {
    let ended: Ended | undefined;
    const result = this.#withOwn(emulator, guest, id, (server) => {
      ended = this.#end(guest, server);
      return 0;
    });
    if (ended) this.#giveBack(guest, ended);
    return result;
  }

  /**
   * What a device model needs to know of its server. With `withPages` its pages are put into the guest's address
   * space, at places that the toolstack has set aside (legacy-pages.ts).
   */
  info(emulator: DomainRecord, guest: DomainRecord, id: number, withPages: boolean): ServerInfo | number {
    return this.#withOwn<ServerInfo | number>(emulator, guest, id, (server) => {
      const result = withPages ? this.#placePages(guest, server) : 0;
      if (result < 0) return result;
      return {
        bufferedPort: server.bufferedPort,
        gfn: server.gfn(SYNCHRONOUS_PAGE),
        bufferedGfn: server.gfn(BUFFERED_PAGE),
      };
    });
  }

  /** Has a server answer for `first` to `last` of one of the XEN_DMOP_IO_RANGE_ kinds. */
  mapRange(
    emulator: DomainRecord,
    guest: DomainRecord,
    id: number,
    type: number,
    first: bigint,
    last: bigint,
  ): number {
    if (first > last) return EINVAL;
    return this.#withOwn(emulator, guest, id, (server) => {
      if (type > XEN_DMOP_IO_RANGE_PCI) return EINVAL;
      const result = server.makeRanges(type)?.add(first, last) ?? ENOMEM;
      if (result === 0) this.#changed(guest);
      return result;
    });
  }

  /** Takes numbers away from a server, and the windows that lie there. */
  unmapRange(
    emulator: DomainRecord,
    guest: DomainRecord,
    id: number,
    type: number,
    first: bigint,
    last: bigint,
  ): number {
    if (first > last) return EINVAL;
    return this.#withOwn(emulator, guest, id, (server) => {
      if (type > XEN_DMOP_IO_RANGE_PCI) return EINVAL;
      const result = server.ranges(type)?.remove(first, last) ?? ENOENT;
      if (result < 0) return result;
      if (type === XEN_DMOP_IO_RANGE_MEMORY)
        for (const window of windowsOf(this.#machine, server.windows))
          if (window.base <= last && first < window.base + window.size) window.end();
      this.#changed(guest);
      return 0;
    });
  }

  /** Switches a server on or off. While it is off the guest finds nobody there. */
  setState(emulator: DomainRecord, guest: DomainRecord, id: number, enabled: boolean): number {
    return this.#withOwn(emulator, guest, id, (server) => {
      if (server.enabled !== enabled) this.#switch(guest, server, enabled);
      return 0;
    });
  }

  /**
   * Calls `use` with the machine frame of one of the server's pages, which are made now if need be.
   *
   * @param use what is done with the frame while the server cannot go; returns 0 or a negative errno
   */
  withFrame(
    emulator: DomainRecord,
    guest: DomainRecord,
    id: number,
    page: ServerPage,
    use: (frame: number) => number,
  ): number {
    return this.#withOwn(emulator, guest, id, (server) => {
      const result = this.#makePages(server);
      if (result < 0) return result;
      if (page === BUFFERED_PAGE && server.buffering === HVM_IOREQSRV_BUFIOREQ_OFF) return ENOENT;
      return use(server.frame(page));
    });
  }

  /**
   * Makes a window of registers that a server answers for, see windows.ts; an extension of this Xen.
   *
   * @param doorbellPort event channel of the device model that is raised when a queue is notified
   */
  accelerate(
    emulator: DomainRecord,
    guest: DomainRecord,
    id: number,
    base: number,
    size: number,
    doorbellPort: number,
  ): Window | number {
    return this.#withOwn<Window | number>(emulator, guest, id, (server) => {
      if (!server.ranges(XEN_DMOP_IO_RANGE_MEMORY)?.contains(base, base + size - 1)) return ENOENT;
      for (const window of windowsOf(this.#machine, server.windows))
        if (window.base < base + size && base < window.base + window.size) return EEXIST;
      if (server.windows === 0) server.windows = this.#machine.takePages(WINDOW_TABLE_PAGES);
      if (server.windows === 0) return ENOMEM;
      const window = addWindow(this.#machine, server.windows, base, size, doorbellPort);
      this.#changed(guest);
      return window ?? ENOSPC;
    });
  }

  /** Index of a server's table of windows, for `releaseOrphans` when the guest has gone first; 0 without one. */
  windowTable(guest: DomainRecord, id: number): number {
    return serverAt(this.#machine, guest, id)?.windows ?? 0;
  }

  /**
   * Ends all that a domain that is going has to do with device models: the servers of its devices, those that it
   * serves, and its right to serve others.
   */
  *release(domain: DomainRecord): Generator<void> {
    for (let id = 0; id < MAX_DOMAINS; id++) {
      const guest = this.#domains.find(id);
      if (guest === undefined || guest === domain) continue;
      new MachinePage(this.#machine, guest).setModel(domain.id, false);
      for (let server = 0; server < MAX_IOREQ_SERVERS; server++) this.destroy(domain, guest, server);
      yield;
    }
    releaseOrphans(this.#machine, domain);
    for (let id = 0; id < MAX_IOREQ_SERVERS; id++) {
      this.#releasePlace(domain, id);
      yield;
    }
    new MachinePage(this.#machine, domain).release(this.#machine);
  }

  /** Ends whatever server has this place, and gives its pages back. */
  #releasePlace(guest: DomainRecord, id: number): void {
    const { heap } = this.#machine;
    const page = new MachinePage(this.#machine, guest);
    let ended: Ended | undefined;
    withLock(heap, page.lockWord, () => {
      const server = serverAt(this.#machine, guest, id);
      if (server === undefined) return;
      const emulator = server.used ? this.#domains.find(server.emulator) : undefined;
      const table = server.windows;
      if (server.used) ended = this.#end(guest, server);
      if (table !== 0 && emulator) {
        orphan(this.#machine, emulator, table);
        server.windows = 0;
      }
      heap[page.serverWord(id)] = 0;
      server.release();
    });
    if (ended) this.#giveBack(guest, ended);
  }

  /** The server, if it exists and is the caller's. */
  #own(emulator: DomainRecord, guest: DomainRecord, id: number): ServerRecord | number {
    const server = serverAt(this.#machine, guest, id);
    if (!server?.used) return ENOENT;
    return server.emulator === emulator.id ? server : EPERM;
  }

  /** The lowest place without a server, with a record. */
  #freePlace(guest: DomainRecord): number {
    const page = new MachinePage(this.#machine, guest);
    for (let id = 0; id < MAX_IOREQ_SERVERS; id++) {
      if (serverAt(this.#machine, guest, id)?.used) continue;
      const word = page.serverWord(id);
      if (this.#machine.heap[word] === 0) this.#machine.heap[word] = this.#machine.takePages(1);
      return this.#machine.heap[word] === 0 ? ENOMEM : id;
    }
    return ENOSPC;
  }

  #end(guest: DomainRecord, server: ServerRecord): Ended {
    if (server.enabled) this.#switch(guest, server, false);
    const ports = Array.from({ length: guest.vcpus }, (_, vcpu) => server.port(vcpu));
    if (server.bufferedPort > 0) ports.push(server.bufferedPort);
    this.#abandonRequests(guest, server);
    for (const window of windowsOf(this.#machine, server.windows)) window.end();
    const frames = this.#takePages(guest, server);
    server.end();
    this.#changed(guest);
    return { ports, frames };
  }

  /** Nobody will answer any more: whoever waits is to look. */
  #abandonRequests(guest: DomainRecord, server: ServerRecord): void {
    const { heap, memory } = this.#machine;
    for (let vcpu = 0; vcpu < guest.vcpus; vcpu++) {
      if (Atomics.exchange(heap, server.pendingWord(vcpu), 0) === 0) continue;
      const state = server.request(vcpu) / 4 + STATE_WORD;
      Atomics.store(memory.i32, state, STATE_IOREQ_NONE);
      Atomics.notify(memory.i32, state);
    }
  }

  #giveBack(guest: DomainRecord, { ports, frames }: Ended): void {
    closeChannels(this.#events, guest, ports);
    for (const frame of frames) this.#machine.giveFrames(frame, 1);
  }

  /** The device model learns a processor's event channel when its server is switched on, and has its page by then. */
  #switch(guest: DomainRecord, server: ServerRecord, enabled: boolean): void {
    const move = enabled ? hideLegacyPages : showLegacyPages;
    if (!move(this.#machine, guest, server)) this.#domains.crash(guest);
    server.enabled = enabled;
    if (enabled && server.frame(SYNCHRONOUS_PAGE) !== 0)
      for (let vcpu = 0; vcpu < guest.vcpus; vcpu++)
        this.#machine.memory.u32[(server.request(vcpu) + PORT_OFFSET) / 4] = server.port(vcpu);
    this.#changed(guest);
  }

  /** Makes the pages that do not exist yet. */
  #makePages(server: ServerRecord): number {
    const pages: ServerPage[] = [SYNCHRONOUS_PAGE];
    if (server.buffering !== HVM_IOREQSRV_BUFIOREQ_OFF) pages.push(BUFFERED_PAGE);
    // Pages that stand in the guest's address space are the guest's.
    if (pages.some((page) => server.gfn(page) >= 0)) return EPERM;
    for (const page of pages) {
      if (server.frame(page) !== 0) continue;
      const frame = this.#machine.frames.take(1);
      if (frame < 0) return ENOMEM;
      this.#machine.memory.u8.fill(0, frame * XEN_PAGE_SIZE, (frame + 1) * XEN_PAGE_SIZE);
      server.setFrame(page, frame);
    }
    return 0;
  }

  /** Puts the server's pages into the guest's address space, unless they exist and do not stand there. */
  #placePages(guest: DomainRecord, server: ServerRecord): number {
    const pages: ServerPage[] = [SYNCHRONOUS_PAGE];
    if (server.buffering !== HVM_IOREQSRV_BUFIOREQ_OFF) pages.push(BUFFERED_PAGE);
    const placed: ServerPage[] = [];
    for (const page of pages) {
      const before = server.gfn(page);
      const result = takeLegacyPage(this.#machine, guest, server, page);
      if (result === 0 && before < 0) placed.push(page);
      if (result === 0) continue;
      for (const earlier of placed) freeLegacyPage(this.#machine, guest, server, earlier);
      return result;
    }
    return 0;
  }

  /** Takes the server's pages from it. Returns the frames that are Xen's to give back. */
  #takePages(guest: DomainRecord, server: ServerRecord): number[] {
    const frames: number[] = [];
    for (const page of [SYNCHRONOUS_PAGE, BUFFERED_PAGE] as const) {
      if (server.gfn(page) >= 0) freeLegacyPage(this.#machine, guest, server, page);
      else if (server.frame(page) !== 0) frames.push(server.frame(page));
      server.setFrame(page, 0);
    }
    return frames;
  }

  #changed(guest: DomainRecord): void {
    Atomics.add(this.#machine.heap, new MachinePage(this.#machine, guest).changesWord, 1);
  }

  /** Calls `use` with a server, if it exists and is the caller's, while it cannot change. */
  #withOwn<Result extends number | object>(
    emulator: DomainRecord,
    guest: DomainRecord,
    id: number,
    use: (server: ServerRecord) => Result,
  ): Result | number {
    return this.#locked<Result | number>(guest, () => {
      const server = this.#own(emulator, guest, id);
      return typeof server === 'number' ? server : use(server);
    });
  }

  #locked<Result extends number | object>(
    guest: DomainRecord,
    operation: () => Result,
  ): Result | typeof ENOENT {
    const { lockWord } = new MachinePage(this.#machine, guest);
    // A guest that is going has no servers any more, and must not get new ones.
    return withLock(this.#machine.heap, lockWord, () => (guest.alive ? operation() : ENOENT));
  }
}
