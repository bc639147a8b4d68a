// The rules by which events change what is live and what is counted; one method for each kind of event.
// Driven by exposure.ts, over the state in exposure-state.ts and the sums in exposure-figures.ts.
//
// How things belong together, where events do not say it:
// - A grant is the device's whose need names its reference first. That need "opens" the grant.
// - A page can serve several needs (slots of a bounce page). It is idle, and its exposure stale, from the
//   end of the last of them until the next one, or until it is neither granted nor mapped.
// - A device is at work while a request of its is open. What it declares as its stale window is time at work.
// - Access without a grant is no device's. What of it was foreign is settled when it begins: every byte that
//   was in no need shared with the same domain.
// - Where only the backend's side is seen, it is the backend that says what it needs. Two of its requests may name the
//   same bytes. A mapping without a grant stands for one, and every reference for a page of its own. What is needed
//   and not mapped was copied, or is reached without a grant. Its requests are counted, and nothing follows from them:
//   it knows that a request is one when it has it in hand, and how long a page stays is up to the guest.
// - A need serves the request that its device began last in the same domain, if the same thread reports both
//   and no need and no request has ended in the domain since: drivers begin a request, share its buffers, and
//   only then look at other work. A need without a request is judged by its own end alone.

import { XEN_PAGE_SHIFT, XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_TO_DEVICE } from '../trace.ts';
import type {
  BusyEvent,
  GrantEvent,
  MapEvent,
  MapRefusedEvent,
  NarrowEvent,
  NeedEndEvent,
  NeedEvent,
  OriginEvent,
  PrivatePagesEndEvent,
  PrivatePagesEvent,
  ReachEndEvent,
  ReachEvent,
  RequestBeginEvent,
  RequestEndEvent,
  RevokeEvent,
  StaleLimitEvent,
  TouchEvent,
  TraceEvent,
  UnmapEvent,
} from './events.ts';
import type { Tally } from './exposure-figures.ts';
import type { ExposureObserver } from './exposure-observer.ts';
import { DeviceState, DomainState, Grant, Need, NOT_IDLE, OpenRequest, Piece } from './exposure-state.ts';
import { beginReach, endReach } from './plain-reach.ts';

/** Adds a grant to a device's, or takes it away. */
function count(tally: Tally, grant: Grant, sign: 1 | -1): void {
  tally.pagesGranted += sign;
  tally.bytesExposed += sign * (grant.end - grant.start);
  tally.liveGrants += sign;
  if (grant.isQuarantined) tally.quarantinedGrants += sign;
}

/** How events are to be read, and what is kept of them. */
export interface AccountingOptions {
  /** Whose events there are: `backend` is its own only, because nobody reports what the guest grants. */
  readonly side?: 'both' | 'backend';
  /** Whether to keep which bytes were foreign at some time, for the distinct ones: grows with the guest's memory. */
  readonly keepsBytes?: boolean;
}

/** What is live and what has been counted, kept up to date event by event. */
export class ExposureLedger {
  readonly domains = new Map<number, DomainState>();
  /** What no device is known for. */
  readonly nobody = new DeviceState(-1, -1, undefined);
  /** Events that contradict those before them. */
  contradictions = 0;
  /** Time of the event at hand, in nanoseconds. */
  now = 0;
  /** Bytes that are exposed, and needed, now; one that is twice counts twice. */
  exposedBytes = 0;
  neededBytes = 0;
  readonly #observer: ExposureObserver;
  readonly #ofBackend: boolean;
  readonly #keepsBytes: boolean;

  constructor(observer: ExposureObserver, { side = 'both', keepsBytes = true }: AccountingOptions = {}) {
    this.#observer = observer;
    this.#ofBackend = side === 'backend';
    this.#keepsBytes = keepsBytes;
  }

  grant(event: GrantEvent): void {
    const domain = this.#domain(event.domain);
    for (let page = 0; page < event.count; page++) {
      const ref = event.ref + page;
      const previous = domain.grants.get(ref);
      if (previous !== undefined) {
        this.#contradiction(event, 'the reference is granted already');
        this.#end(previous);
      }
      this.#begin(domain, ref, event.peer, event.frame + page, event.readonly);
    }
  }

  /** Access to a page begins. */
  #begin(domain: DomainState, ref: number, peer: number, number: number, readonly: boolean): Grant {
    const frame = domain.frame(number);
    frame.grants++;
    const grant = new Grant(domain, ref, peer, frame, readonly, this.now, this.nobody);
    domain.grants.set(ref, grant);
    count(this.nobody.tally, grant, 1);
    this.exposedBytes += XEN_PAGE_SIZE;
    this.#observer.granted(grant);
    return grant;
  }

  narrow(event: NarrowEvent): void {
    const grant = this.#domain(event.domain).grants.get(event.ref);
    const end = event.offset + event.size;
    if (grant === undefined || grant.device !== this.nobody || event.size === 0 || end > grant.end) {
      this.#contradiction(event, 'no page was just granted that has these bytes');
      return;
    }
    count(this.nobody.tally, grant, -1);
    this.exposedBytes -= grant.end - grant.start - event.size;
    grant.start = event.offset;
    grant.end = end;
    count(this.nobody.tally, grant, 1);
  }

  revoke(event: RevokeEvent): void {
    const domain = this.#domain(event.domain);
    for (let page = 0; page < event.count; page++) {
      const grant = domain.grants.get(event.ref + page);
      if (grant === undefined) this.#contradiction(event, 'the reference is not granted');
      else this.#end(grant);
    }
  }

  busy(event: BusyEvent): void {
    const grant = this.#domain(event.domain).grants.get(event.ref);
    if (grant === undefined) {
      this.#contradiction(event, 'the reference is not granted');
    } else if (!grant.isQuarantined) {
      grant.isQuarantined = true;
      grant.device.tally.quarantinedGrants++;
      this.#observer.busy(grant);
    }
  }

  need(event: NeedEvent): void {
    const domain = this.#domain(event.domain);
    const device = domain.device(event.device);
    const key = event.ref * XEN_PAGE_SIZE + event.offset;
    const previous = domain.needs.get(key);
    if (previous !== undefined && !this.#ofBackend) {
      this.#contradiction(event, 'the same need is going on already');
      this.#endNeed(domain, previous);
    }
    const last = domain.submitting;
    const serves = last?.device === device && last.thread === event.thread ? last : undefined;
    const need = new Need(device, event.size, this.now, serves);
    if (serves !== undefined) serves.needs++;
    if (this.#ofBackend) need.older = previous;
    domain.needs.set(key, need);
    device.tally.bytesNeeded += event.size;
    this.neededBytes += event.size;
    this.#cut(domain, need, event);
    this.#use(need, event);
  }

  /** Cuts a need into its pages. */
  #cut(domain: DomainState, need: Need, event: NeedEvent): void {
    let ref = event.ref + (event.offset >>> XEN_PAGE_SHIFT);
    let start = event.offset & (XEN_PAGE_SIZE - 1);
    for (let left = event.size; left > 0; ref++) {
      const grant = domain.grants.get(ref);
      const end = Math.min(start + left, XEN_PAGE_SIZE);
      if (grant !== undefined) this.#cutPage(need, grant, start, end, event);
      else if (!this.#ofBackend) {
        this.#contradiction(event, 'not all of its pages are granted');
        return;
      }
      left -= end - start;
      start = 0;
    }
  }

  #cutPage(need: Need, grant: Grant, start: number, end: number, event: NeedEvent): void {
    if (start < grant.start || end > grant.end)
      this.#contradiction(event, 'not all of its bytes are granted');
    const piece = new Piece(need, grant, start, end);
    need.pieces.push(piece);
    grant.frame.insert(piece);
  }

  /** Notes that a need uses its grants, all of whose pieces are in place. */
  #use(need: Need, event: NeedEvent): void {
    let writable: Grant | undefined;
    for (const { grant } of need.pieces) {
      this.#staleUntilNow(grant);
      grant.idleSince = NOT_IDLE;
      grant.needs++;
      grant.lastNeed = need;
      if (!grant.readonly) writable = grant;
      if (grant.device === this.nobody) this.#open(grant, need);
      else if (grant.device !== need.device) this.#contradiction(event, "the page is another device's");
    }
    if (writable === undefined || event.direction !== DMA_TO_DEVICE) return;
    need.device.tally.overPermission++;
    this.#observer.overPermission(writable, need);
  }

  /** Makes a grant the device's of its first need, and counts what it exposes beside the device's needs. */
  #open(grant: Grant, need: Need): void {
    const { device } = need;
    count(this.nobody.tally, grant, -1);
    count(device.tally, grant, 1);
    if (!grant.isGranted) {
      this.nobody.tally.pagesMapped -= grant.mappings;
      device.tally.pagesMapped += grant.mappings;
    }
    grant.device = device;
    if (grant.frame.privateTo === device) return;
    let reached = grant.start;
    for (const piece of grant.frame.pieces) {
      if (piece.start >= grant.end) break;
      if (piece.need.device !== device) continue;
      if (piece.start > reached) this.#foreign(grant, need, reached, piece.start);
      reached = Math.max(reached, piece.end);
    }
    if (reached < grant.end) this.#foreign(grant, need, reached, grant.end);
  }

  #foreign(grant: Grant, need: Need, start: number, end: number): void {
    const { device, domain, frame, readonly } = grant;
    grant.foreign += end - start;
    device.tally.foreignReadableBytes += end - start;
    if (!readonly) device.tally.foreignWritableBytes += end - start;
    device.foreign?.add(frame.number, start, end, readonly);
    domain.foreign?.add(frame.number, start, end, readonly);
    this.#observer.foreign(grant, need, start, end);
  }

  origin(event: OriginEvent): void {
    const need = this.#domain(event.domain).needs.get(event.ref * XEN_PAGE_SIZE + event.offset);
    if (need === undefined) this.#contradiction(event, 'there is no such need');
    else need.stack = event.stack;
  }

  staleLimit(event: StaleLimitEvent): void {
    const device = this.#domain(event.domain).device(event.device);
    device.staleLimit = event.nanoseconds;
    device.tally.staleLimit = Math.max(device.tally.staleLimit, event.nanoseconds);
  }

  needEnd(event: NeedEndEvent): void {
    const domain = this.#domain(event.domain);
    domain.submitting = undefined;
    const need = domain.takeNeed(event.ref * XEN_PAGE_SIZE + event.offset, event.size);
    if (need === undefined) this.#contradiction(event, 'there is no such need');
    else this.#endNeed(domain, need);
  }

  #endNeed(domain: DomainState, need: Need): void {
    need.device.tally.neededByteTime += need.size * (this.now - need.begunAt);
    this.neededBytes -= need.size;
    if (need.request !== undefined) need.request.needs--;
    if (!need.isOverdue) this.#stopUsing(need);
    for (const piece of need.pieces) {
      piece.grant.frame.remove(piece);
      domain.tidy(piece.grant.frame);
    }
  }

  #stopUsing(need: Need): void {
    for (const { grant } of need.pieces) {
      if (--grant.needs > 0) continue;
      grant.idleSince = this.now;
      grant.workedAtIdle = grant.device.workedUntil(this.now);
    }
  }

  privatePages(event: PrivatePagesEvent): void {
    const domain = this.#domain(event.domain);
    const device = domain.device(event.device);
    for (let page = 0; page < event.count; page++) domain.frame(event.frame + page).privateTo = device;
  }

  privatePagesEnd(event: PrivatePagesEndEvent): void {
    const domain = this.#domain(event.domain);
    for (let page = 0; page < event.count; page++) {
      const frame = domain.frame(event.frame + page);
      frame.privateTo = undefined;
      domain.tidy(frame);
    }
  }

  map(event: MapEvent): void {
    const { mappings } = this.#domain(event.mapper);
    const previous = mappings.get(event.handle);
    if (previous !== undefined) {
      this.#contradiction(event, 'the handle names another mapping already');
      this.#endMapping(previous);
      mappings.delete(event.handle);
    }
    const grant = this.#grantOf(event);
    if (grant === undefined) {
      this.#contradiction(event, 'the reference is not granted');
      return;
    }
    mappings.set(event.handle, grant);
    grant.isUsed = true;
    grant.mappings++;
    grant.device.tally.pagesMapped++;
  }

  /** The grant that a mapping is of, or stands for. */
  #grantOf({ owner, mapper, ref, readonly }: MapEvent): Grant | undefined {
    const grant = this.domains.get(owner)?.grants.get(ref);
    if (!this.#ofBackend || grant?.isGranted || (grant !== undefined && (readonly || !grant.readonly)))
      return grant;
    // One with more rights than those before it counts for itself.
    const implied = this.#begin(this.#domain(owner), ref, mapper, ref, readonly);
    implied.isGranted = false;
    return implied;
  }

  mapRefused(event: MapRefusedEvent): void {
    // Owner and reference are what the backend made up: nothing may come into being because of them.
    const grant = this.domains.get(event.owner)?.grants.get(event.ref);
    (grant?.device ?? this.nobody).tally.mapsRefused++;
    this.#observer.refused(event, grant);
  }

  unmap(event: UnmapEvent): void {
    const { mappings } = this.#domain(event.mapper);
    const grant = mappings.get(event.handle);
    if (grant === undefined || grant.ref !== event.ref || grant.domain.id !== event.owner) {
      this.#contradiction(event, 'there is no such mapping');
      return;
    }
    mappings.delete(event.handle);
    this.#endMapping(grant);
  }

  reach(event: ReachEvent): void {
    const reach = beginReach(event, this.#domain(event.owner), this.nobody.tally, this.now);
    this.exposedBytes += reach.bytes;
    this.#observer.reached(reach);
  }

  reachEnd(event: ReachEndEvent): void {
    const reach = endReach(event, this.#domain(event.owner), this.nobody.tally, this.now);
    if (reach === undefined) this.#contradiction(event, 'there is no such access');
    else this.exposedBytes -= reach.bytes;
  }

  touch(event: TouchEvent): void {
    const grants = this.domains.get(event.owner)?.grants;
    let ref = event.ref + (event.offset >>> XEN_PAGE_SHIFT);
    const { tally } = grants?.get(ref)?.device ?? this.nobody;
    if (event.write) tally.bytesWritten += event.size;
    else tally.bytesRead += event.size;
    let start = event.offset & (XEN_PAGE_SIZE - 1);
    for (let left = event.size; left > 0; ref++) {
      const grant = grants?.get(ref);
      const end = Math.min(start + left, XEN_PAGE_SIZE);
      // What is not mapped was copied, and of that it is not known here what was needed.
      if (grant === undefined && this.#ofBackend) return;
      if (grant === undefined || !grant.isNeeded(start, end)) {
        tally.touchesOutsideNeed++;
        this.#observer.strayed(event, grant);
        return;
      }
      grant.isUsed = true;
      // The need goes on, but its request has been reported complete.
      if (grant.idleSince !== NOT_IDLE) this.#observer.strayed(event, grant);
      left -= end - start;
      start = 0;
    }
  }

  requestBegin(event: RequestBeginEvent): void {
    const domain = this.#domain(event.domain);
    const device = domain.device(event.device);
    if (domain.requests.has(event.id)) {
      this.#contradiction(event, 'the request is open already');
    } else {
      if (!this.#ofBackend) device.noteWork(this.now, 1);
      device.tally.requestsOpen++;
    }
    const request = new OpenRequest(device, event, this.now);
    if (!this.#ofBackend) domain.submitting = request;
    domain.requests.set(event.id, request);
  }

  requestEnd(event: RequestEndEvent): void {
    const domain = this.#domain(event.domain);
    domain.submitting = undefined;
    const request = domain.requests.get(event.id);
    if (request === undefined) {
      this.#contradiction(event, 'there is no such request');
      return;
    }
    domain.requests.delete(event.id);
    if (!this.#ofBackend) request.device.noteWork(this.now, -1);
    const { tally } = request.device;
    const latency = this.now - request.begunAt;
    tally.requestsOpen--;
    tally.requests++;
    if (event.status !== 0) tally.requestsFailed++;
    tally.totalLatency += latency;
    tally.maxLatency = Math.max(tally.maxLatency, latency);
    if (request.needs > 0) this.#overdue(domain, request);
  }

  /** The request is reported complete while its needs go on: what they use is stale from now. */
  #overdue(domain: DomainState, request: OpenRequest): void {
    for (const need of domain.liveNeeds()) {
      if (need.request !== request) continue;
      need.isOverdue = true;
      this.#stopUsing(need);
    }
  }

  /** Access through a grant has ended, save for mappings whose end has not been reported yet. */
  #end(grant: Grant): void {
    grant.domain.grants.delete(grant.ref);
    grant.isGranted = false;
    if (grant.isQuarantined) {
      grant.isQuarantined = false;
      grant.device.tally.quarantinedGrants--;
    }
    if (grant.mappings === 0) this.#release(grant);
  }

  #endMapping(grant: Grant): void {
    grant.mappings--;
    if (grant.mappings === 0 && !grant.isGranted) this.#release(grant);
  }

  /** Nobody can reach the page through this grant any more. */
  #release(grant: Grant): void {
    const { tally } = grant.device;
    tally.liveGrants--;
    grant.addTime(tally, this.now);
    this.exposedBytes -= grant.end - grant.start;
    this.#staleUntilNow(grant);
    this.#observer.ended(grant);
    const { grants } = grant.domain;
    if (grants.get(grant.ref) === grant) grants.delete(grant.ref);
    grant.frame.grants--;
    grant.domain.tidy(grant.frame);
  }

  #staleUntilNow(grant: Grant): void {
    if (grant.idleSince >= this.now) return;
    grant.addStale(grant.device.tally, this.now);
    this.#observer.stale(grant, this.now - grant.idleSince, grant.staleAtWork(this.now));
  }

  #contradiction(event: TraceEvent, reason: string): void {
    this.contradictions++;
    this.#observer.contradiction(event, reason);
  }

  #domain(id: number): DomainState {
    let domain = this.domains.get(id);
    if (domain === undefined) {
      domain = new DomainState(id, this.#keepsBytes);
      this.domains.set(id, domain);
    }
    return domain;
  }
}
