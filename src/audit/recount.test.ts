// The invariants of the accounting, stated a second time: recount() computes every figure from the stored
// list of events alone, by looking at all of it for every question and by painting bytes. exposure.ts,
// which sees each event once, must say the same of every valid sequence of events.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DMA_TO_DEVICE } from '../trace.ts';
import { DirectTracer } from './event-tracer.ts';
import type { EventKind, TraceEvent } from './events.ts';
import { Exposure } from './exposure.ts';
import type { ExposureFigures } from './exposure-figures.ts';

const PAGE = 4096;
const NEVER = Number.POSITIVE_INFINITY;

type Of<K extends EventKind> = Extract<TraceEvent, { readonly kind: K }>;

/** One granted page, with the indices of the events at which things happen to it. */
interface Page {
  readonly domain: number;
  readonly ref: number;
  readonly frame: number;
  readonly readonly: boolean;
  readonly peer: number;
  /** The bytes of the frame that are granted. */
  readonly start: number;
  readonly end: number;
  readonly granted: number;
  /** NEVER while it is granted at the end. */
  readonly revoked: number;
  /** Neither granted nor mapped any more. */
  readonly over: number;
  readonly wasBusy: boolean;
}

interface NeedSpan {
  readonly domain: number;
  readonly device: number;
  readonly size: number;
  readonly direction: number;
  readonly begun: number;
  readonly ended: number;
  /** When it ended or its request was reported complete, whichever was first. */
  readonly done: number;
  /** 1 for each byte that belongs to it. */
  readonly painted: ReadonlyMap<Page, Uint8Array>;
}

function recount(events: readonly TraceEvent[]) {
  const at = <K extends EventKind>(kind: K, index: number): Of<K> | undefined =>
    events[index]?.kind === kind ? (events[index] as Of<K>) : undefined;
  const first = (from: number, holds: (index: number) => boolean): number => {
    for (let index = from; index < events.length; index++) if (holds(index)) return index;
    return NEVER;
  };
  const indices = (kind: EventKind) => events.flatMap((event, index) => (event.kind === kind ? [index] : []));
  const times = events.map((_, index) => Math.max(0, ...events.slice(0, index + 1).map((e) => e.time)));
  const time = (index: number): number => times[Math.min(index, times.length - 1)];

  const isNarrowOf = (index: number, domain: number, ref: number): boolean =>
    at('narrow', index)?.domain === domain && at('narrow', index)?.ref === ref;
  const pages: Page[] = indices('grant').flatMap((granted) => {
    const { domain, peer, ref: base, frame, count, readonly } = at('grant', granted)!;
    return Array.from({ length: count }, (_, page): Page => {
      const ref = base + page;
      const revoked = first(granted, (index) => {
        const revoke = at('revoke', index);
        return revoke?.domain === domain && ref >= revoke.ref && ref < revoke.ref + revoke.count;
      });
      const mappingEnds = indices('map').flatMap((index) => {
        const { owner, ref: mapped, mapper, handle } = at('map', index)!;
        if (owner !== domain || mapped !== ref || index < granted || index > revoked) return [];
        return [first(index, (u) => at('unmap', u)?.mapper === mapper && at('unmap', u)?.handle === handle)];
      });
      const wasBusy = indices('busy').some((index) => {
        const busy = at('busy', index)!;
        return busy.domain === domain && busy.ref === ref && index > granted && index < revoked;
      });
      const over = Math.max(revoked, ...mappingEnds);
      const narrowed = at(
        'narrow',
        first(granted, (index) => index < revoked && isNarrowOf(index, domain, ref)),
      );
      const start = narrowed?.offset ?? 0;
      const end = start + (narrowed?.size ?? PAGE);
      return {
        domain,
        ref,
        frame: frame + page,
        readonly,
        peer,
        start,
        end,
        granted,
        revoked,
        over,
        wasBusy,
      };
    });
  });
  const pageAt = (index: number, domain: number, ref: number): Page | undefined =>
    pages.find((p) => p.domain === domain && p.ref === ref && p.granted < index && index < p.revoked);

  /** The request that a need at `index` serves, as the index of its end. */
  const servedUntil = (index: number): number => {
    const { domain, device, thread } = at('need', index)!;
    for (let back = index - 1; back >= 0; back--) {
      if (at('needEnd', back)?.domain === domain || at('requestEnd', back)?.domain === domain) return NEVER;
      const begin = at('requestBegin', back);
      if (begin?.domain !== domain) continue;
      if (begin.device !== device || begin.thread !== thread) return NEVER;
      return first(
        back,
        (end) => at('requestEnd', end)?.domain === domain && at('requestEnd', end)?.id === begin.id,
      );
    }
    return NEVER;
  };

  const needs: NeedSpan[] = indices('need').map((begun) => {
    const { domain, device, ref, offset, size, direction } = at('need', begun)!;
    const ended = first(begun, (index) => {
      const end = at('needEnd', index);
      return end?.domain === domain && end.ref * PAGE + end.offset === ref * PAGE + offset;
    });
    const painted = new Map<Page, Uint8Array>();
    for (let byte = offset; byte < offset + size; byte++) {
      const page = pageAt(begun, domain, ref + Math.floor(byte / PAGE))!;
      if (!painted.has(page)) painted.set(page, new Uint8Array(PAGE));
      painted.get(page)![byte % PAGE] = 1;
    }
    const done = Math.min(ended, servedUntil(begun));
    return { domain, device, size, direction, begun, ended, done, painted };
  });

  /** The need that made a page some device's. */
  const opener = (page: Page): NeedSpan | undefined => needs.find(({ painted }) => painted.has(page));
  const deviceAt = (index: number, page: Page | undefined): number | undefined => {
    const need = page && opener(page);
    return need && need.begun < index ? need.device : undefined;
  };
  /** Bytes of a frame that live needs of a device hold at an index. */
  const needed = (index: number, domain: number, device: number | undefined, frame: number): Uint8Array => {
    const union = new Uint8Array(PAGE);
    for (const need of needs) {
      if (need.domain !== domain || need.device !== device || need.begun > index || need.ended <= index)
        continue;
      for (const [page, bytes] of need.painted) {
        if (page.frame === frame) for (let i = 0; i < PAGE; i++) union[i] |= bytes[i];
      }
    }
    return union;
  };
  const privateTo = (index: number, domain: number, frame: number): number | undefined => {
    for (let back = index; back >= 0; back--) {
      const event = at('privatePages', back) ?? at('privatePagesEnd', back);
      if (event?.domain !== domain || frame < event.frame || frame >= event.frame + event.count) continue;
      return event.kind === 'privatePages' ? event.device : undefined;
    }
    return undefined;
  };

  const foreign = new Map(
    pages.map((page): [Page, Uint8Array] => {
      const need = opener(page);
      if (need === undefined || privateTo(need.begun, page.domain, page.frame) === need.device)
        return [page, new Uint8Array(PAGE)];
      const mine = needed(need.begun, page.domain, need.device, page.frame);
      return [page, mine.map((byte, at) => (at >= page.start && at < page.end ? 1 - byte : 0))];
    }),
  );
  const ones = (bytes: Uint8Array): number => bytes.reduce((sum, byte) => sum + byte, 0);
  const foreignSize = new Map([...foreign].map(([page, bytes]) => [page, ones(bytes)]));

  const staleOf = (page: Page): number => {
    let longest = 0;
    let since = NEVER;
    for (let index = opener(page)?.begun ?? NEVER; index < Math.min(page.over, events.length); index++) {
      const used = needs.some((n) => n.painted.has(page) && n.begun <= index && index < n.done);
      longest = Math.max(longest, time(index) - since);
      if (used) since = NEVER;
      else if (since === NEVER) since = time(index);
    }
    return Math.max(longest, time(page.over) - since);
  };

  const requests = indices('requestBegin').map((begun) => {
    const { domain, device, id } = at('requestBegin', begun)!;
    const isEnd = (end: number) =>
      at('requestEnd', end)?.domain === domain && at('requestEnd', end)?.id === id;
    return { domain, device, begun, ended: first(begun, isEnd) };
  });
  /** For how long a device had had a request to serve, at each index. */
  const worked = (domain: number, device: number): number[] => {
    const mine = requests.filter((request) => request.domain === domain && request.device === device);
    let sum = 0;
    return events.map((_, index) => {
      const isAtWork = mine.some(({ begun, ended }) => begun < index && ended >= index);
      if (isAtWork) sum += time(index) - time(index - 1);
      return sum;
    });
  };
  const staleAtWorkOf = (page: Page): number => {
    const device = opener(page)?.device;
    if (device === undefined) return 0;
    const work = worked(page.domain, device);
    const end = Math.min(page.over, events.length - 1);
    let longest = 0;
    let since = NEVER;
    for (let index = opener(page)!.begun; index <= end; index++) {
      if (since !== NEVER) longest = Math.max(longest, work[index] - work[since]);
      const used = needs.some((n) => n.painted.has(page) && n.begun <= index && index < n.done);
      if (used) since = NEVER;
      else if (since === NEVER) since = index;
    }
    return longest;
  };

  /** Frames reached without a grant, with the bytes of each that nobody shared with the mapper. */
  const reaches = indices('reach').map((begun) => {
    const { mapper, owner, frame, count } = at('reach', begun)!;
    const ended = first(begun, (index) => {
      const end = at('reachEnd', index);
      return end?.mapper === mapper && end.owner === owner && end.frame === frame && end.count === count;
    });
    const unshared = Array.from({ length: count }, (_, offset) => {
      const bytes = new Uint8Array(PAGE).fill(1);
      for (const need of needs) {
        if (need.domain !== owner || need.begun > begun || need.ended <= begun) continue;
        for (const [page, painted] of need.painted) {
          if (page.frame !== frame + offset || page.peer !== mapper) continue;
          for (let i = 0; i < PAGE; i++) if (painted[i] === 1) bytes[i] = 0;
        }
      }
      return { frame: frame + offset, bytes };
    });
    return { owner, count, begun, ended, unshared };
  });

  const isOutside = (index: number): boolean => {
    const { owner, ref, offset, size } = at('touch', index)!;
    const pieces = new Map<Page, Uint8Array>();
    for (let byte = offset; byte < offset + size; byte++) {
      const page = pageAt(index, owner, ref + Math.floor(byte / PAGE));
      if (page === undefined || byte % PAGE < page.start || byte % PAGE >= page.end) return true;
      if (!pieces.has(page)) pieces.set(page, needed(index, owner, deviceAt(index, page), page.frame));
      if (pieces.get(page)![byte % PAGE] === 0) return true;
    }
    return false;
  };

  /** The figures of one device; of everything, and of what is no device's, without one. */
  const figures = (only?: { domain: number; device: number }): ExposureFigures => {
    const mine = (domain: number, device: number | undefined) =>
      only === undefined || (only.domain === domain && only.device === device);
    const sum = <T>(items: readonly T[], size: (item: T) => number) => items.reduce((s, i) => s + size(i), 0);
    const myPages = pages.filter((page) => mine(page.domain, deviceAt(NEVER, page)));
    const myNeeds = needs.filter((need) => mine(need.domain, need.device));
    const reached = (kind: 'map' | 'mapRefused' | 'touch') =>
      indices(kind).filter((index) => {
        const { owner, ref } = at(kind, index)!;
        const offset = at('touch', index)?.offset ?? 0;
        return mine(owner, deviceAt(index, pageAt(index, owner, ref + Math.floor(offset / PAGE))));
      });
    const touched = (write: boolean) =>
      sum(reached('touch'), (i) => (at('touch', i)!.write === write ? at('touch', i)!.size : 0));
    const myReaches = only === undefined ? reaches : [];
    const foreignReached = sum(myReaches, ({ unshared }) => sum(unshared, ({ bytes }) => ones(bytes)));
    const limits = indices('staleLimit').flatMap((index) => {
      const { domain, device, nanoseconds } = at('staleLimit', index)!;
      return mine(domain, device) ? [nanoseconds] : [];
    });
    const distinct = (some: readonly Page[]): number => {
      const union = new Map<string, Uint8Array>();
      const paint = (key: string, bytes: Uint8Array) => {
        if (!union.has(key)) union.set(key, new Uint8Array(PAGE));
        const all = union.get(key)!;
        for (let i = 0; i < PAGE; i++) all[i] |= bytes[i];
      };
      for (const page of some) paint(`${page.domain}/${page.frame}`, foreign.get(page)!);
      for (const { owner, unshared } of myReaches)
        for (const { frame, bytes } of unshared) paint(`${owner}/${frame}`, bytes);
      return sum([...union.values()], ones);
    };
    const writable = myPages.filter((page) => !page.readonly);
    const myRequests = requests.filter(({ domain, device }) => mine(domain, device));
    const done = myRequests.filter(({ ended }) => ended !== NEVER);
    const latencies = done.map(({ begun, ended }) => time(ended) - time(begun));
    return {
      pagesGranted: myPages.length,
      pagesReached: sum(myReaches, ({ count }) => count),
      bytesNeeded: sum(myNeeds, (need) => need.size),
      bytesExposed:
        sum(myPages, ({ start, end }) => end - start) + sum(myReaches, ({ count }) => count * PAGE),
      foreignReadableBytes: sum(myPages, (page) => foreignSize.get(page)!) + foreignReached,
      foreignWritableBytes: sum(writable, (page) => foreignSize.get(page)!) + foreignReached,
      distinctForeignReadableBytes: distinct(myPages),
      distinctForeignWritableBytes: distinct(writable),
      overPermission: myNeeds.filter(
        (n) => n.direction === DMA_TO_DEVICE && [...n.painted.keys()].some((page) => !page.readonly),
      ).length,
      maxStaleNanoseconds: Math.max(0, ...myPages.map(staleOf)),
      maxStaleAtWorkNanoseconds: Math.max(0, ...myPages.map(staleAtWorkOf)),
      staleLimitNanoseconds: Math.max(0, ...limits),
      exposedByteSeconds:
        (sum(myPages, (page) => (page.end - page.start) * (time(page.over) - time(page.granted))) +
          sum(myReaches, ({ count, begun, ended }) => count * PAGE * (time(ended) - time(begun)))) /
        1e9,
      foreignByteSeconds:
        (sum(myPages, (page) => foreignSize.get(page)! * (time(page.over) - time(page.granted))) +
          sum(
            myReaches,
            ({ unshared, begun, ended }) =>
              sum(unshared, ({ bytes }) => ones(bytes)) * (time(ended) - time(begun)),
          )) /
        1e9,
      neededByteSeconds: sum(myNeeds, (need) => need.size * (time(need.ended) - time(need.begun))) / 1e9,
      pagesMapped: reached('map').length,
      mapsRefused: reached('mapRefused').length,
      bytesRead: touched(false),
      bytesWritten: touched(true),
      touchesOutsideNeed: reached('touch').filter(isOutside).length,
      leakedGrants: myPages.filter((page) => page.over === NEVER).length,
      quarantinedGrants: myPages.filter((page) => page.revoked === NEVER && page.wasBusy).length,
      requests: latencies.length,
      requestsFailed: done.filter(({ ended }) => at('requestEnd', ended)!.status !== 0).length,
      requestsOpen: myRequests.length - done.length,
      maxLatencyNanoseconds: Math.max(0, ...latencies),
      meanLatencyNanoseconds: latencies.length > 0 ? sum(latencies, (each) => each) / latencies.length : 0,
    };
  };

  return {
    figures,
    pagesWithoutNeed: pages.filter((page) => opener(page) === undefined).length,
  };
}

/** What one random command of the generator may draw on. */
interface Command {
  readonly op: number;
  readonly pick: number;
  readonly frame: number;
  readonly offset: number;
  readonly size: number;
  readonly flag: boolean;
  readonly elapsed: number;
}

const FRAMES = 6;
const FIRST_REF = 8;
const REFS = 10;

interface SharedRun {
  readonly domain: number;
  readonly device: number;
  readonly ref: number;
  readonly pages: number;
  /** The bytes of it that are granted. */
  readonly start: number;
  readonly end: number;
}

interface SharedBytes extends SharedRun {
  readonly offset: number;
  readonly size: number;
}

/** Two guests with two devices each, and backends, that do what commands say as far as it is allowed. */
class RandomWorld {
  readonly events: TraceEvent[] = [];
  #time = 0;
  #thread = 0;
  readonly #trace = new DirectTracer(
    [{ consume: (event) => this.events.push({ ...event, thread: this.#thread }) }],
    () => this.#time,
  );
  readonly #usedRefs = new Set<string>();
  /** Runs that are granted, and whether the driver has ended its own use (revoke is overdue). */
  readonly #runs: SharedRun[] = [];
  readonly #needs: SharedBytes[] = [];
  readonly #mappings: { mapper: number; owner: number; ref: number; handle: number }[] = [];
  readonly #requests: { domain: number; device: number; id: number }[] = [];
  readonly #reaches: { mapper: number; owner: number; frame: number; count: number }[] = [];
  #serial = 0;

  do(command: Command): void {
    // Clocks of different threads: time may go back a little.
    this.#time = Math.max(0, this.#time + command.elapsed - 2);
    this.#thread = command.pick % 5 === 0 ? 1 : 0;
    const domain = 1 + (command.pick & 1);
    const device = (command.pick >> 1) & 1;
    const steps = [
      () => this.#share(domain, device, command),
      () => this.#share(domain, device, command),
      () => this.#shareForRequest(domain, device, command),
      () => this.#shareForRequest(domain, device, command),
      () => this.#sharePrivate(domain, device, command),
      () => this.#sharePrivate(domain, device, command),
      () => this.#shareInto(command),
      () => this.#shareInto(command),
      () => this.#endNeed(command),
      () => this.#endNeed(command),
      () => this.#revoke(command),
      () => this.#revoke(command),
      () => this.#grantOnly(domain, device, command),
      () => this.#privatePages(domain, device, command),
      () => this.#map(command),
      () => this.#unmap(command),
      () => this.#touch(command),
      () => this.#touchRun(command),
      () => this.#touchNeed(command),
      () => this.#request(domain, device, command),
      () => this.#endRequest(command),
      () => this.#endRequest(command),
      () => this.#shareNarrowly(domain, device, command),
      () => this.#shareNarrowly(domain, device, command),
      () => this.#trace.staleLimit(domain, device, command.size),
      () => this.#origin(command),
      () => this.#reach(domain, command),
      () => this.#reachEnd(command),
    ];
    steps[command.op % steps.length]();
  }

  #freeRun(domain: number, pages: number): number {
    for (let ref = FIRST_REF; ref + pages <= FIRST_REF + REFS; ref++) {
      const refs = Array.from({ length: pages }, (_, page) => `${domain}/${ref + page}`);
      if (refs.some((each) => this.#usedRefs.has(each))) continue;
      for (const each of refs) this.#usedRefs.add(each);
      return ref;
    }
    return -1;
  }

  #grantRun(domain: number, device: number, frame: number, pages: number, readonly: boolean) {
    const ref = this.#freeRun(domain, pages);
    if (ref < 0 || frame + pages > FRAMES) return undefined;
    this.#trace.grant(domain, 0, ref, frame, pages, readonly);
    const run = { domain, device, ref, pages, start: 0, end: pages * PAGE };
    this.#runs.push(run);
    return run;
  }

  #shareNarrowly(domain: number, device: number, { frame, offset, size, flag }: Command): void {
    const granted = this.#grantRun(domain, device, frame, 1, flag);
    if (granted === undefined) return;
    const run = { ...granted, start: offset, end: Math.min(offset + size, PAGE) };
    this.#trace.narrow(domain, run.ref, offset, run.end - offset);
    this.#runs[this.#runs.length - 1] = run;
    // Sometimes less is needed than what is granted.
    const skipped = size % 3 === 0 ? (run.end - offset) >> 1 : 0;
    this.#addNeed(run, offset + skipped, run.end - offset - skipped, size % 3);
  }

  #origin({ pick, size }: Command): void {
    const need = this.#needs[pick % this.#needs.length];
    if (need !== undefined) this.#trace.origin(need.domain, need.device, need.ref, need.offset, size);
  }

  #reach(owner: number, { frame, size, flag }: Command): void {
    const reach = { mapper: flag ? 0 : 3, owner, frame, count: 1 + (size % (FRAMES - frame)) };
    if (this.#reaches.some((each) => JSON.stringify(each) === JSON.stringify(reach))) return;
    this.#reaches.push(reach);
    this.#trace.reach(reach.mapper, owner, frame, reach.count);
  }

  #reachEnd({ pick }: Command): void {
    const reach = this.#reaches.splice(pick % this.#reaches.length, 1)[0];
    if (reach !== undefined) this.#trace.reachEnd(reach.mapper, reach.owner, reach.frame, reach.count);
  }

  #addNeed(run: SharedRun, at: number, size: number, direction: number): void {
    const need = { ...run, ref: run.ref + Math.floor(at / PAGE), offset: at % PAGE, size };
    const same = (n: SharedBytes) =>
      n.domain === need.domain && n.ref === need.ref && n.offset === need.offset;
    if (size === 0 || this.#needs.some(same)) return;
    this.#needs.push(need);
    this.#trace.need(need.domain, need.device, need.ref, need.offset, size, direction);
  }

  #share(domain: number, device: number, { frame, offset, size, flag }: Command): void {
    const pages = Math.ceil((offset + size) / PAGE);
    const run = this.#grantRun(domain, device, frame, pages, flag);
    if (run !== undefined) this.#addNeed(run, offset, size, size % 3);
  }

  #shareForRequest(domain: number, device: number, command: Command): void {
    this.#request(domain, device, command);
    // Sometimes the driver looks at other work in between, or it is another device that shares.
    if (command.size % 4 === 0) this.#endNeed(command);
    this.#share(domain, command.size % 7 === 0 ? 1 - device : device, command);
  }

  #sharePrivate(domain: number, device: number, command: Command): void {
    this.#trace.privatePages(domain, device, command.frame, 1);
    this.#share(domain, device, command);
  }

  /** Another need in pages that are granted already. */
  #shareInto({ pick, offset, size }: Command): void {
    const run = this.#runs[pick % this.#runs.length];
    if (run === undefined) return;
    const at = run.start + ((offset + pick * PAGE) % (run.end - run.start));
    this.#addNeed(run, at, Math.min(size, run.end - at), size % 3);
  }

  #endNeed({ pick }: Command): void {
    const need = this.#needs.splice(pick % this.#needs.length, 1)[0];
    if (need === undefined) return;
    this.#trace.needEnd(need.domain, need.device, need.ref, need.offset, need.size);
  }

  /** Ends a run's access in one event or page by page, or finds it busy; needs may still be live. */
  #revoke({ pick, flag }: Command): void {
    const index = pick % this.#runs.length;
    const run = this.#runs[index];
    if (run === undefined) return;
    const { domain, ref, pages } = run;
    if (pick % 4 === 0) {
      this.#trace.busy(domain, ref + (pick % pages));
      return;
    }
    this.#runs.splice(index, 1);
    if (flag) this.#trace.revoke(domain, ref, pages);
    else for (let page = pages - 1; page >= 0; page--) this.#trace.revoke(domain, ref + page, 1);
    // A reference whose need is still live must not be used again: the need would name the new grant.
    if (this.#needs.some((n) => n.domain === domain && n.ref >= ref && n.ref < ref + pages)) return;
    for (let page = 0; page < pages; page++) this.#usedRefs.delete(`${domain}/${ref + page}`);
  }

  #grantOnly(domain: number, device: number, { frame, flag, size }: Command): void {
    this.#grantRun(domain, device, frame, 1 + (size % 2), flag);
  }

  #privatePages(domain: number, device: number, { frame, flag, size }: Command): void {
    const count = 1 + (size % (FRAMES - frame));
    if (flag) this.#trace.privatePages(domain, device, frame, count);
    else this.#trace.privatePagesEnd(domain, frame, count);
  }

  #map({ pick, flag, size }: Command): void {
    const run = this.#runs[pick % this.#runs.length];
    if (run === undefined) return;
    const mapper = flag ? 0 : 3;
    const ref = run.ref + (size % run.pages);
    if (size % 5 === 0) {
      this.#trace.mapRefused(mapper, run.domain, ref + (size % 2) * 100, -3);
      return;
    }
    const mapping = { mapper, owner: run.domain, ref, handle: this.#serial++ };
    this.#mappings.push(mapping);
    this.#trace.map(mapper, run.domain, ref, mapping.handle, flag);
  }

  #unmap({ pick }: Command): void {
    const mapping = this.#mappings.splice(pick % this.#mappings.length, 1)[0];
    if (mapping !== undefined) this.#trace.unmap(mapping.mapper, mapping.owner, mapping.ref, mapping.handle);
  }

  #touch({ pick, offset, size, flag }: Command): void {
    this.#trace.touch(0, 1 + (pick % 3), FIRST_REF + (pick % REFS), offset, size, flag);
  }

  #touchRun({ pick, offset, size, flag }: Command): void {
    const run = this.#runs[pick % this.#runs.length];
    if (run !== undefined) this.#trace.touch(3, run.domain, run.ref, offset, size, flag);
  }

  #touchNeed({ pick, offset, size, flag }: Command): void {
    const need = this.#needs[pick % this.#needs.length];
    if (need === undefined) return;
    const skip = offset % need.size;
    const length = 1 + (size % (need.size - skip));
    this.#trace.touch(0, need.domain, need.ref, need.offset + skip, length, flag);
  }

  #request(domain: number, device: number, { size }: Command): void {
    const request = { domain, device, id: this.#serial++ };
    this.#requests.push(request);
    this.#trace.requestBegin(domain, device, request.id, 0, size);
  }

  #endRequest({ pick, size }: Command): void {
    const request = this.#requests.splice(pick % this.#requests.length, 1)[0];
    if (request !== undefined) this.#trace.requestEnd(request.domain, request.device, request.id, size % 2);
  }
}

const command: fc.Arbitrary<Command> = fc.record({
  op: fc.nat(1000),
  pick: fc.nat(1000),
  frame: fc.nat(FRAMES - 1),
  // Few distinct places, so that needs overlap and touch each other.
  offset: fc.oneof(fc.nat(PAGE - 1), fc.constantFrom(0, 64, 512, 2048, 4000, 4095)),
  size: fc.oneof(fc.integer({ min: 1, max: 2 * PAGE }), fc.constantFrom(1, 16, 64, 512, 2048, 4096)),
  flag: fc.boolean(),
  elapsed: fc.nat(9),
});

// Short lists show what a long run's maxima hide; long ones let things happen twice.
const commandLists = fc.oneof(
  fc.array(command, { minLength: 1, maxLength: 12, size: 'max' }),
  fc.array(command, { minLength: 20, maxLength: 100, size: 'max' }),
);

test('the accounting equals a recount from scratch, for every device and in total (invariants 1, 4, 9, 11)', () => {
  const seen = new Set<keyof ExposureFigures>();
  fc.assert(
    fc.property(commandLists, (commands) => {
      const world = new RandomWorld();
      for (const each of commands) world.do(each);
      fc.pre(world.events.length > 0);
      const exposure = new Exposure();
      for (const event of world.events) exposure.consume(event);
      const recounted = recount(world.events);

      const { pagesWithoutNeed, contradictions, ...total } = exposure.total();
      assert.equal(contradictions, 0);
      assert.equal(pagesWithoutNeed, recounted.pagesWithoutNeed);
      assert.deepEqual(total, recounted.figures());
      for (const { domain, device, ...figures } of exposure.devices())
        assert.deepEqual(
          figures,
          recounted.figures({ domain, device }),
          `domain ${domain}, device ${device}`,
        );
      for (const key of Object.keys(total) as (keyof ExposureFigures)[]) if (total[key] > 0) seen.add(key);
    }),
    { seed: 20_240_601, numRuns: 200 },
  );
  // The generator reaches every figure, or the comparison above says nothing about it.
  const all = Object.keys(new Exposure().total()).filter((key) => key !== 'contradictions');
  assert.deepEqual([...seen, 'pagesWithoutNeed'].sort(), all.sort());
});
