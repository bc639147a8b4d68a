// Where a trace breaks the rules of audit-rules.ts: follows the decisions of the accounting, finds who caused
// each and whose bytes they were, and groups them, so that a million events make a handful of findings.
// Before it: exposure-ledger.ts; after it: audit.ts.

import { type AuditRuleId, auditRule } from './audit-rules.ts';
import type { MapRefusedEvent, TouchEvent, TraceEvent } from './events.ts';
import type { ExposureObserver } from './exposure-observer.ts';
import { type DeviceState, type Grant, type Need, NO_STACK, NOT_IDLE, type Reach } from './exposure-state.ts';
import { OwnerSums, type OwnerBytes, ownersOf } from './owners.ts';

/** The request that a mapping served, as its driver reported it. */
export interface RequestInfo {
  readonly id: number;
  readonly type: number;
  readonly bytes: number;
}

/** One time at which a rule was broken. */
export interface Occurrence {
  /** Number of the event in the trace, and its time in nanoseconds. */
  readonly sequence: number;
  readonly time: number;
  /** The domain that could reach the bytes, or tried to. */
  readonly backend?: number;
  readonly ref?: number;
  readonly frame?: number;
  /** Bytes that it is about; 0 where it is not about bytes. */
  bytes: number;
  /** For how long it went on; 0 where it is not about time. */
  readonly nanoseconds: number;
  readonly request?: RequestInfo;
  /** What else there is to say. */
  readonly detail?: string;
}

/** All the times at which one rule was broken by the same cause. */
export interface Finding {
  readonly rule: AuditRuleId;
  /** Whose memory it is. */
  readonly domain?: number;
  /** undefined where no device is known, and in the finding that takes what was too much. */
  readonly device?: number;
  /** The type of the requests that the mappings served. */
  readonly requestType?: number;
  /** Number of the stack of calls that made the mappings. */
  readonly stack?: number;
  readonly count: number;
  /** Sum of the bytes. */
  readonly bytes: number;
  readonly maxNanoseconds: number;
  /** Whose bytes they were, for foreign bytes. */
  readonly owners: readonly OwnerBytes[];
  readonly first: Occurrence;
  /** The one with the most bytes; of those, the one that went on for longest. */
  readonly worst: Occurrence;
}

interface Cause {
  readonly rule: AuditRuleId;
  readonly domain?: number;
  readonly device?: number;
  readonly requestType?: number;
  readonly stack?: number;
  readonly detail?: string;
}

/** What one finding is made of. */
class Group {
  readonly cause: Cause;
  readonly first: Occurrence;
  worst: Occurrence;
  count = 0;
  bytes = 0;
  maxNanoseconds = 0;
  readonly owners = new OwnerSums();

  constructor(cause: Cause, first: Occurrence) {
    this.cause = cause;
    this.first = this.worst = first;
  }

  add(occurrence: Occurrence): void {
    const { bytes, nanoseconds } = occurrence;
    this.count++;
    this.bytes += bytes;
    this.maxNanoseconds = Math.max(this.maxNanoseconds, nanoseconds);
    const { worst } = this;
    if (bytes > worst.bytes || (bytes === worst.bytes && nanoseconds > worst.nanoseconds))
      this.worst = occurrence;
  }
}

/** Something about a mapping that has just been made, and whose stack the next event may name. */
interface Fresh {
  readonly thread: number;
  readonly rule: AuditRuleId;
  readonly grant: Grant;
  readonly need: Need;
  readonly occurrence: Occurrence;
  readonly owners: OwnerBytes[];
}

/** Most groups that are kept apart: beyond, one group takes what is left of each rule. */
const MAX_GROUPS = 1000;

/** Collects the findings of one run. */
export class FindingCollector implements ExposureObserver {
  readonly #groups = new Map<string, Group>();
  #fresh: Fresh[] = [];
  #sequence = 0;
  #time = 0;
  #thread = 0;
  /** Told of every occurrence. */
  readonly #onOccurrence: (rule: AuditRuleId, time: number) => void;

  constructor(onOccurrence: (rule: AuditRuleId, time: number) => void = () => undefined) {
    this.#onOccurrence = onOccurrence;
  }

  /** `event` is about to be accounted; `now` is the latest time so far. */
  follow(event: TraceEvent, now: number): void {
    if (this.#fresh.length > 0 && event.kind !== 'origin') this.#settle(event.thread);
    this.#sequence = event.sequence;
    this.#time = now;
    this.#thread = event.thread;
  }

  /** The findings, in no order. Nothing may be added afterwards. */
  finish(): Finding[] {
    this.#settle(undefined);
    return Array.from(this.#groups.values(), ({ cause: { detail: _, ...cause }, owners, ...group }) => ({
      ...cause,
      ...group,
      owners: owners.list(),
    }));
  }

  /** Whether a finding has this stack of calls. */
  names(stack: number): boolean {
    for (const { cause } of this.#groups.values()) if (cause.stack === stack) return true;
    return this.#fresh.some(({ need }) => need.stack === stack);
  }

  /** Notes something that is no grant's. */
  note(rule: AuditRuleId, detail: string, bytes = 0): void {
    this.#add({ rule, detail }, this.#occurrence({ bytes, detail }));
  }

  granted(_grant: Grant): void {
    // What comes of it is told by the others.
  }

  foreign(grant: Grant, need: Need, start: number, end: number): void {
    const owners = ownersOf(grant, start, end);
    const last = this.#fresh.at(-1);
    if (last?.grant === grant && last.rule !== 'over-permission') {
      last.occurrence.bytes += end - start;
      last.owners.push(...owners);
      return;
    }
    const rule = grant.readonly ? 'foreign-readable' : 'foreign-writable';
    this.#fresh.push({ ...this.#freshly(rule, grant, need, end - start), owners });
  }

  overPermission(grant: Grant, need: Need): void {
    this.#fresh.push(this.#freshly('over-permission', grant, need, need.size));
  }

  stale(grant: Grant, nanoseconds: number, atWork: number): void {
    const { staleLimit } = grant.device;
    if (staleLimit === 0) this.#ofGrant('stale-window', grant, { nanoseconds });
    else if (atWork > staleLimit) this.#ofGrant('stale-beyond-limit', grant, { nanoseconds: atWork });
    else this.#ofGrant('stale-declared', grant, { nanoseconds });
  }

  busy(grant: Grant): void {
    this.#ofGrant('quarantined-page', grant, {});
  }

  ended(grant: Grant): void {
    if (grant.lastNeed === undefined) this.#ofGrant('grant-without-need', grant, {});
    else if (!grant.isUsed) this.#ofGrant('grant-never-used', grant, {});
  }

  live(grant: Grant): void {
    this.#ofGrant('leaked-grant', grant, { nanoseconds: this.#time - grant.grantedAt });
  }

  refused({ mapper, owner, ref, status }: MapRefusedEvent, grant: Grant | undefined): void {
    const detail = `status ${status}`;
    if (grant !== undefined) this.#ofGrant('refused-map', grant, { bytes: 0, backend: mapper, detail });
    else
      this.#add(
        { rule: 'refused-map', domain: owner },
        this.#occurrence({ backend: mapper, ref, detail: `${detail}, no such grant` }),
      );
  }

  strayed(event: TouchEvent, grant: Grant | undefined): void {
    const { mapper: backend, owner, ref, offset, size: bytes, write } = event;
    const detail = `${write ? 'wrote' : 'read'} ${bytes} bytes from offset ${offset}`;
    if (grant === undefined) {
      const occurrence = this.#occurrence({ backend, ref, bytes, detail: `${detail}, of no grant` });
      this.#add({ rule: 'touch-outside-need', domain: owner }, occurrence);
      return;
    }
    const isLate = grant.idleSince !== NOT_IDLE;
    const rule = !isLate ? 'touch-outside-need' : write ? 'late-write' : 'late-read';
    const nanoseconds = isLate ? this.#time - grant.idleSince : 0;
    this.#ofGrant(rule, grant, { backend, bytes, nanoseconds, detail });
  }

  reached({ mapper: backend, owner: domain, frame, count, foreign: bytes }: Reach): void {
    const detail = `${count} frames from ${frame}`;
    this.#add({ rule: 'unrestricted-reach', domain }, this.#occurrence({ backend, frame, bytes, detail }));
  }

  contradiction(event: TraceEvent, reason: string): void {
    this.note('contradiction', `${event.kind}: ${reason}`);
  }

  #freshly(rule: AuditRuleId, grant: Grant, need: Need, bytes: number): Fresh {
    const occurrence = this.#occurrence({ ...placeOf(grant), ...requestOf(need), bytes });
    return { thread: this.#thread, rule, grant, need, occurrence, owners: [] };
  }

  /** The stacks of the mappings that `thread` made are known now, or never will be; of all threads without one. */
  #settle(thread: number | undefined): void {
    const rest: Fresh[] = [];
    for (const fresh of this.#fresh) {
      if (thread !== undefined && fresh.thread !== thread) {
        rest.push(fresh);
        continue;
      }
      const { rule, need, occurrence, owners } = fresh;
      this.#add(causeOf(rule, need.device, need), occurrence, owners);
    }
    this.#fresh = rest;
  }

  #ofGrant(rule: AuditRuleId, grant: Grant, about: Partial<Occurrence>): void {
    const { lastNeed, domain } = grant;
    const cause: Cause = lastNeed ? causeOf(rule, grant.device, lastNeed) : { rule, domain: domain.id };
    const bytes = grant.end - grant.start;
    this.#add(cause, this.#occurrence({ ...placeOf(grant), ...requestOf(lastNeed), bytes, ...about }));
  }

  #occurrence(about: Partial<Occurrence>): Occurrence {
    return { sequence: this.#sequence, time: this.#time, bytes: 0, nanoseconds: 0, ...about };
  }

  #add(cause: Cause, occurrence: Occurrence, owners: readonly OwnerBytes[] = []): void {
    const { rule, domain, device, requestType, stack, detail } = cause;
    let key = `${rule}/${domain}/${device}/${requestType}/${stack}/${detail}`;
    let kept = cause;
    if (!this.#groups.has(key) && this.#groups.size >= MAX_GROUPS) {
      key = rule;
      kept = { rule };
    }
    let group = this.#groups.get(key);
    if (group === undefined) {
      group = new Group(kept, occurrence);
      this.#groups.set(key, group);
    }
    group.add(occurrence);
    for (const owner of owners) group.owners.add(owner);
    this.#onOccurrence(rule, occurrence.time);
  }
}

function causeOf(rule: AuditRuleId, { domain, device }: DeviceState, { request, stack }: Need): Cause {
  return {
    rule,
    domain,
    device,
    ...(request && { requestType: request.type }),
    ...(stack !== NO_STACK && { stack }),
  };
}

function placeOf({ ref, frame, peer }: Grant): Pick<Occurrence, 'backend' | 'ref' | 'frame'> {
  return { backend: peer, ref, frame: frame.number };
}

function requestOf(need: Need | undefined): Pick<Occurrence, 'request'> {
  if (need?.request === undefined) return {};
  const { id, type, bytes } = need.request;
  return { request: { id, type, bytes } };
}

const SEVERITIES = ['error', 'warning', 'note'];

/** Orders findings: the most severe first, then those with the most bytes, then those that went on for longest. */
export function compareFindings(a: Finding, b: Finding): number {
  const severity = (finding: Finding) => SEVERITIES.indexOf(auditRule(finding.rule).severity);
  return (
    severity(a) - severity(b) ||
    b.bytes - a.bytes ||
    b.maxNanoseconds - a.maxNanoseconds ||
    a.first.sequence - b.first.sequence
  );
}
