// The accounting: follows the events of trace.ts and says what backends could reach, what of it nobody had
// asked for, and how long it lasted. The rules are in exposure-ledger.ts, the figures in exposure-figures.ts.

import type { TraceConsumer, TraceEvent } from './events.ts';
import { type ExposureFigures, figuresOf, Tally } from './exposure-figures.ts';
import { type AccountingOptions, ExposureLedger } from './exposure-ledger.ts';
import { type ExposureObserver, noObserver } from './exposure-observer.ts';
import type { DeviceState, Grant } from './exposure-state.ts';

/** The figures of one device. */
export interface DeviceExposure extends ExposureFigures {
  readonly domain: number;
  readonly device: number;
}

/** The figures of a whole run. */
export interface TotalExposure extends ExposureFigures {
  /** Pages granted that no need has named: they are no device's, and not in the foreign bytes. */
  readonly pagesWithoutNeed: number;
  /** Events that contradict those before them: the trace has holes, or its source a bug. */
  readonly contradictions: number;
}

/** A grant that is not over. */
export interface LiveGrant {
  readonly domain: number;
  readonly ref: number;
  readonly peer: number;
  readonly frame: number;
  readonly readonly: boolean;
  /** The bytes of the page that are granted, `start` to `end` (exclusive). */
  readonly start: number;
  readonly end: number;
  /** undefined when no need has named it. */
  readonly device: number | undefined;
  /** Nanoseconds. */
  readonly grantedAt: number;
  readonly isQuarantined: boolean;
  readonly mappings: number;
}

/** Follows the events of one run. */
export class Exposure implements TraceConsumer {
  readonly #ledger: ExposureLedger;
  readonly #observer: ExposureObserver;

  /** @param observer told what the figures are made of, one by one */
  constructor(observer: ExposureObserver = noObserver, options?: AccountingOptions) {
    this.#observer = observer;
    this.#ledger = new ExposureLedger(observer, options);
  }

  /** The latest time of all events, in nanoseconds. */
  get now(): number {
    return this.#ledger.now;
  }

  /** Bytes that are exposed now; one that is through two grants counts twice. */
  get exposedBytes(): number {
    return this.#ledger.exposedBytes;
  }

  /** Bytes that drivers need now; one that is needed twice counts twice. */
  get neededBytes(): number {
    return this.#ledger.neededBytes;
  }

  consume(event: TraceEvent): void {
    const ledger = this.#ledger;
    // The latest time of all, so that clocks of different threads never make a duration negative.
    if (event.time > ledger.now) ledger.now = event.time;
    switch (event.kind) {
      case 'grant':
        ledger.grant(event);
        break;
      case 'narrow':
        ledger.narrow(event);
        break;
      case 'revoke':
        ledger.revoke(event);
        break;
      case 'busy':
        ledger.busy(event);
        break;
      case 'need':
        ledger.need(event);
        break;
      case 'needEnd':
        ledger.needEnd(event);
        break;
      case 'origin':
        ledger.origin(event);
        break;
      case 'staleLimit':
        ledger.staleLimit(event);
        break;
      case 'privatePages':
        ledger.privatePages(event);
        break;
      case 'privatePagesEnd':
        ledger.privatePagesEnd(event);
        break;
      case 'map':
        ledger.map(event);
        break;
      case 'mapRefused':
        ledger.mapRefused(event);
        break;
      case 'unmap':
        ledger.unmap(event);
        break;
      case 'reach':
        ledger.reach(event);
        break;
      case 'reachEnd':
        ledger.reachEnd(event);
        break;
      case 'touch':
        ledger.touch(event);
        break;
      case 'requestBegin':
        ledger.requestBegin(event);
        break;
      case 'requestEnd':
        ledger.requestEnd(event);
        break;
    }
  }

  /** The figures of all devices together, and of what belongs to none, up to the last event. */
  total(): TotalExposure {
    const sum = new Tally();
    for (const tally of this.#talliesNow().values()) sum.add(tally);
    return {
      ...figuresOf(sum, Array.from(this.#ledger.domains.values(), ({ foreign }) => foreign ?? []).flat()),
      pagesWithoutNeed: this.#ledger.nobody.tally.pagesGranted,
      contradictions: this.#ledger.contradictions,
    };
  }

  /** The figures of each device up to the last event, in the order in which they first appeared. */
  devices(): DeviceExposure[] {
    const found: DeviceExposure[] = [];
    for (const [state, tally] of this.#talliesNow()) {
      const { domain, device, foreign } = state;
      if (state !== this.#ledger.nobody)
        found.push({ domain, device, ...figuresOf(tally, foreign === undefined ? [] : [foreign]) });
    }
    return found;
  }

  /** Every grant that is not over: what has leaked, once the devices are closed. */
  liveGrants(): LiveGrant[] {
    return Array.from(this.#grantsNow(), (grant) => ({
      domain: grant.domain.id,
      ref: grant.ref,
      peer: grant.peer,
      frame: grant.frame.number,
      readonly: grant.readonly,
      start: grant.start,
      end: grant.end,
      device: grant.device === this.#ledger.nobody ? undefined : grant.device.device,
      grantedAt: grant.grantedAt,
      isQuarantined: grant.isQuarantined,
      mappings: grant.mappings,
    }));
  }

  /** Tells the observer of the grants that are not over, and for how long no need has used them. */
  tellLive(): void {
    const { now } = this.#ledger;
    for (const grant of this.#grantsNow()) {
      if (grant.idleSince < now) this.#observer.stale(grant, now - grant.idleSince, grant.staleAtWork(now));
      this.#observer.live(grant);
    }
  }

  /** How many bytes of a frame were foreign at some time, to be read, and to be written as well. */
  foreignIn(domain: number, frame: number): { readonly readable: number; readonly writable: number } {
    const foreign = this.#ledger.domains.get(domain)?.foreign;
    return { readable: foreign?.readable.sizeIn(frame) ?? 0, writable: foreign?.writable.sizeIn(frame) ?? 0 };
  }

  /** Every grant that is granted or mapped, once. */
  #grantsNow(): Set<Grant> {
    const found = new Set<Grant>();
    for (const domain of this.#ledger.domains.values()) {
      for (const grant of domain.grants.values()) found.add(grant);
      for (const grant of domain.mappings.values()) found.add(grant);
    }
    return found;
  }

  /** The running sums of each device, with what is still going on added up to now. */
  #talliesNow(): Map<DeviceState, Tally> {
    const { now } = this.#ledger;
    const tallies = new Map<DeviceState, Tally>([[this.#ledger.nobody, new Tally()]]);
    for (const domain of this.#ledger.domains.values()) {
      for (const device of domain.devices.values()) tallies.set(device, new Tally());
    }
    for (const [device, tally] of tallies) tally.add(device.tally);
    for (const grant of this.#grantsNow()) {
      const tally = tallies.get(grant.device)!;
      grant.addTime(tally, now);
      grant.addStale(tally, now);
    }
    const unowned = tallies.get(this.#ledger.nobody)!;
    for (const domain of this.#ledger.domains.values()) {
      for (const need of domain.liveNeeds())
        tallies.get(need.device)!.neededByteTime += need.size * (now - need.begunAt);
      for (const reach of domain.reaches) reach.addTime(unowned, now);
    }
    return tallies;
  }
}
