// Shares runs of pages with one backend and ends the sharing: references, grant entries and, where the
// backend still maps a page, the quarantine. Below the exposure modes (buffer-sharing.ts), before quarantine.ts.

import { pagesTouched } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import type { DomainId, FrameNumber, GrantRef } from '../xen/ids.ts';
import type { GrantingDomain } from './granting-domain.ts';
import { Quarantine } from './quarantine.ts';

/** The pages that one device shares with its backend's domain. */
export class Grants {
  readonly domain: GrantingDomain;
  readonly backend: DomainId;
  /** What the backend still mapped when access should have ended. */
  readonly quarantine: Quarantine;
  /** Pages and reference of each run that is shared now, by its first reference. */
  readonly #frames: Int32Array;
  readonly #counts: Uint16Array;
  #live = 0;

  constructor(domain: GrantingDomain, backend: DomainId) {
    this.domain = domain;
    this.backend = backend;
    this.quarantine = new Quarantine(domain);
    this.#frames = new Int32Array(domain.table.maxEntries);
    this.#counts = new Uint16Array(domain.table.maxEntries);
  }

  /** References shared now, those in quarantine not included. */
  get live(): number {
    return this.#live;
  }

  /** References that cannot be used again until the backend lets go of their pages. */
  get quarantined(): number {
    return this.quarantine.size;
  }

  /**
   * Grants `count` pages from `frame` through consecutive references.
   *
   * @returns the first reference, or -1 when the table has no such run and may not grow
   */
  share(frame: number, count: number, readonly: boolean): number {
    const { table, tracer, id } = this.domain;
    const first = this.#begin(frame, count);
    if (first < 0) return -1;
    if (tracer.enabled) tracer.grant(id, this.backend, first, frame, count, readonly);
    table.grant(first as GrantRef, count, this.backend, frame as FrameNumber, readonly);
    return first;
  }

  /**
   * Grants just the `size` bytes at `address`: one reference for each page that they touch, consecutive, each
   * for the bytes in its page and for copies only. For tables whose entries can say that (`grantsParts`).
   *
   * @returns the first reference, or -1 as `share` does
   */
  shareBytes(address: number, size: number, readonly: boolean): number {
    const { table, tracer, id } = this.domain;
    let offset = address & (XEN_PAGE_SIZE - 1);
    const count = pagesTouched(offset, size);
    const frame = Math.floor(address / XEN_PAGE_SIZE);
    const first = this.#begin(frame, count);
    if (first < 0) return -1;
    let left = size;
    for (let page = 0; page < count; page++) {
      const length = Math.min(left, XEN_PAGE_SIZE - offset);
      const ref = (first + page) as GrantRef;
      if (tracer.enabled) {
        tracer.grant(id, this.backend, ref, frame + page, 1, readonly);
        tracer.narrow(id, ref, offset, length);
      }
      table.grantPart(ref, this.backend, (frame + page) as FrameNumber, offset, length, readonly);
      left -= length;
      offset = 0;
    }
    return first;
  }

  /**
   * Ends the sharing of a run from `share` or `shareBytes`.
   *
   * @returns true when the pages are the caller's alone again; false when the backend still maps some of
   *   them: those are in quarantine with their references, and must be held until `retry` frees them
   */
  unshare(first: number, count: number): boolean {
    assert(
      this.#counts[first] === count,
      'unshare of a run that is not shared so',
      count,
      this.#counts[first],
    );
    const { references, table, tracer, id } = this.domain;
    this.#counts[first] = 0;
    this.#live -= count;
    if (table.revoke(first as GrantRef, count) > 0) {
      this.#quarantineBusy(first, count);
      return false;
    }
    if (tracer.enabled) tracer.revoke(id, first, count);
    references.release(first, count);
    return true;
  }

  /** First frame of the run that is shared from `first` on. */
  frameOf(first: number): number {
    return this.#frames[first];
  }

  /** Tries again to end access to what is in quarantine. Returns how many pages came free. */
  retry(): number {
    return this.quarantine.retry();
  }

  /**
   * Takes references for a run of pages that is to be shared; when none are free, those of idle pages of any device
   * of the domain. Returns the first, or -1.
   */
  #begin(frame: number, count: number): number {
    const { references, pools } = this.domain;
    let first = references.allocate(count);
    while (first < 0 && pools.reclaimReferences()) first = references.allocate(count);
    if (first < 0) return -1;
    this.#frames[first] = frame;
    this.#counts[first] = count;
    this.#live += count;
    return first;
  }

  #quarantineBusy(first: number, count: number): void {
    const { references, table, tracer, id } = this.domain;
    for (let page = 0; page < count; page++) {
      const ref = (first + page) as GrantRef;
      if (!table.isFree(ref)) {
        this.quarantine.add(ref, (this.#frames[first] + page) as FrameNumber);
        continue;
      }
      if (tracer.enabled) tracer.revoke(id, ref, 1);
      references.release(ref, 1);
    }
  }
}
