// The rules by which events change what is live and what is counted; one method for each kind of event.
// Driven by exposure.ts, over the state in exposure-state.ts and the sums in exposure-figures.ts.
//
// How things belong together, where events do not say it:
// - A grant is the device's whose need names its reference first. That need "opens" the grant.
// - A page can serve several needs (slots of a bounce page). It is idle, and its exposure stale, from the
//   end of the last of them until the next one, or until it is neither granted nor mapped.
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
  NeedEndEvent,
  NeedEvent,
  PrivatePagesEndEvent,
  PrivatePagesEvent,
  RequestBeginEvent,
  RequestEndEvent,
  RevokeEvent,
  TouchEvent,
  UnmapEvent,
} from './events.ts';
import type { Tally } from './exposure-figures.ts';
import { DeviceState, DomainState, Grant, Need, NOT_IDLE, OpenRequest, Piece } from './exposure-state.ts';

/** Adds a grant to a device's, or takes it away. */
function count(tally: Tally, grant: Grant, sign: 1 | -1): void {
  tally.pagesGranted += sign;
  tally.liveGrants += sign;
  if (grant.isQuarantined) tally.quarantinedGrants += sign;
}

/** What is live and what has been counted, kept up to date event by event. */
export class ExposureLedger {
  readonly domains = new Map<number, DomainState>();
  /** What no device is known for. */
  readonly nobody = new DeviceState(-1, -1);
  /** Events that contradict those before them. */
  contradictions = 0;
  /** Time of the event at hand, in nanoseconds. */
  now = 0;

  grant(event: GrantEvent): void {
    const domain = this.#domain(event.domain);
    for (let page = 0; page < event.count; page++) {
      const ref = event.ref + page;
      const previous = domain.grants.get(ref);
      if (previous !== undefined) {
        this.contradictions++;
        this.#end(previous);
      }
      const frame = domain.frame(event.frame + page);
      frame.grants++;
      const grant = new Grant(domain, ref, event.peer, frame, event.readonly, this.now, this.nobody);
      domain.grants.set(ref, grant);
      count(this.nobody.tally, grant, 1);
    }
  }

  revoke(event: RevokeEvent): void {
    const domain = this.#domain(event.domain);
    for (let page = 0; page < event.count; page++) {
      const grant = domain.grants.get(event.ref + page);
      if (grant === undefined) this.contradictions++;
      else this.#end(grant);
    }
  }

  busy(event: BusyEvent): void {
    const grant = this.#domain(event.domain).grants.get(event.ref);
    if (grant === undefined) {
      this.contradictions++;
    } else if (!grant.isQuarantined) {
      grant.isQuarantined = true;
      grant.device.tally.quarantinedGrants++;
    }
  }

  need(event: NeedEvent): void {
    const domain = this.#domain(event.domain);
    const device = domain.device(event.device);
    const key = event.ref * XEN_PAGE_SIZE + event.offset;
    const previous = domain.needs.get(key);
    if (previous !== undefined) {
      this.contradictions++;
      this.#endNeed(domain, previous);
    }
    const last = domain.submitting;
    const serves = last?.device === device && last.thread === event.thread ? last : undefined;
    const need = new Need(device, event.size, this.now, serves);
    if (serves !== undefined) serves.needs++;
    domain.needs.set(key, need);
    device.tally.bytesNeeded += event.size;
    this.#cut(domain, need, event);
    this.#use(need, event.direction);
  }

  /** Cuts a need into its pages. */
  #cut(domain: DomainState, need: Need, event: NeedEvent): void {
    let ref = event.ref + (event.offset >>> XEN_PAGE_SHIFT);
    let start = event.offset & (XEN_PAGE_SIZE - 1);
    for (let left = event.size; left > 0; ref++) {
      const grant = domain.grants.get(ref);
      if (grant === undefined) {
        this.contradictions++;
        return;
      }
      const end = Math.min(start + left, XEN_PAGE_SIZE);
      const piece = new Piece(need, grant, start, end);
      need.pieces.push(piece);
      grant.frame.insert(piece);
      left -= end - start;
      start = 0;
    }
  }

  /** Notes that a need uses its grants, all of whose pieces are in place. */
  #use(need: Need, direction: number): void {
    let isWritable = false;
    for (const { grant } of need.pieces) {
      this.#staleUntilNow(grant);
      grant.idleSince = NOT_IDLE;
      grant.needs++;
      if (!grant.readonly) isWritable = true;
      if (grant.device === this.nobody) this.#open(grant, need.device);
      else if (grant.device !== need.device) this.contradictions++;
    }
    if (isWritable && direction === DMA_TO_DEVICE) need.device.tally.overPermission++;
  }

  /** Makes a grant the device's, and counts what it exposes beside the needs. */
  #open(grant: Grant, device: DeviceState): void {
    count(this.nobody.tally, grant, -1);
    count(device.tally, grant, 1);
    grant.device = device;
    if (grant.frame.privateTo === device) return;
    let reached = 0;
    for (const piece of grant.frame.pieces) {
      if (piece.need.device !== device) continue;
      if (piece.start > reached) this.#foreign(grant, reached, piece.start);
      reached = Math.max(reached, piece.end);
    }
    if (reached < XEN_PAGE_SIZE) this.#foreign(grant, reached, XEN_PAGE_SIZE);
  }

  #foreign({ device, domain, frame, readonly }: Grant, start: number, end: number): void {
    device.tally.foreignReadableBytes += end - start;
    if (!readonly) device.tally.foreignWritableBytes += end - start;
    device.foreign.add(frame.number, start, end, readonly);
    domain.foreign.add(frame.number, start, end, readonly);
  }

  needEnd(event: NeedEndEvent): void {
    const domain = this.#domain(event.domain);
    domain.submitting = undefined;
    const key = event.ref * XEN_PAGE_SIZE + event.offset;
    const need = domain.needs.get(key);
    if (need === undefined) {
      this.contradictions++;
      return;
    }
    domain.needs.delete(key);
    this.#endNeed(domain, need);
  }

  #endNeed(domain: DomainState, need: Need): void {
    need.device.tally.neededByteTime += need.size * (this.now - need.begunAt);
    if (need.request !== undefined) need.request.needs--;
    if (!need.isOverdue) this.#stopUsing(need);
    for (const piece of need.pieces) {
      piece.grant.frame.remove(piece);
      domain.tidy(piece.grant.frame);
    }
  }

  #stopUsing(need: Need): void {
    for (const { grant } of need.pieces) {
      if (--grant.needs === 0) grant.idleSince = this.now;
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
    const grant = this.domains.get(event.owner)?.grants.get(event.ref);
    const { mappings } = this.#domain(event.mapper);
    const previous = mappings.get(event.handle);
    if (previous !== undefined) {
      this.contradictions++;
      this.#endMapping(previous);
      mappings.delete(event.handle);
    }
    if (grant === undefined) {
      this.contradictions++;
      return;
    }
    mappings.set(event.handle, grant);
    grant.mappings++;
    grant.device.tally.pagesMapped++;
  }

  mapRefused(event: MapRefusedEvent): void {
    // Owner and reference are what the backend made up: nothing may come into being because of them.
    const grant = this.domains.get(event.owner)?.grants.get(event.ref);
    (grant?.device ?? this.nobody).tally.mapsRefused++;
  }

  unmap(event: UnmapEvent): void {
    const { mappings } = this.#domain(event.mapper);
    const grant = mappings.get(event.handle);
    if (grant === undefined || grant.ref !== event.ref || grant.domain.id !== event.owner) {
      this.contradictions++;
      return;
    }
    mappings.delete(event.handle);
    this.#endMapping(grant);
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
      if (grant === undefined || !grant.frame.isNeeded(grant.device, start, end)) {
        tally.touchesOutsideNeed++;
        return;
      }
      left -= end - start;
      start = 0;
    }
  }

  requestBegin(event: RequestBeginEvent): void {
    const domain = this.#domain(event.domain);
    const device = domain.device(event.device);
    if (domain.requests.has(event.id)) this.contradictions++;
    else device.tally.requestsOpen++;
    domain.submitting = new OpenRequest(device, event.thread, this.now);
    domain.requests.set(event.id, domain.submitting);
  }

  requestEnd(event: RequestEndEvent): void {
    const domain = this.#domain(event.domain);
    domain.submitting = undefined;
    const request = domain.requests.get(event.id);
    if (request === undefined) {
      this.contradictions++;
      return;
    }
    domain.requests.delete(event.id);
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
    for (const need of domain.needs.values()) {
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
    tally.exposedByteTime += XEN_PAGE_SIZE * (this.now - grant.grantedAt);
    this.#staleUntilNow(grant);
    grant.frame.grants--;
    grant.domain.tidy(grant.frame);
  }

  #staleUntilNow({ device: { tally }, idleSince }: Grant): void {
    tally.maxStale = Math.max(tally.maxStale, this.now - idleSince);
  }

  #domain(id: number): DomainState {
    let domain = this.domains.get(id);
    if (domain === undefined) {
      domain = new DomainState(id);
      this.domains.set(id, domain);
    }
    return domain;
  }
}
