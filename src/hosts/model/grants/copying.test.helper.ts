// Three domains whose pages have known contents, and copies between them as the first one's kernel asks for them.

import assert from 'node:assert/strict';
import { withPreemption } from '../../../../test/support/preemption.test.helper.ts';
import { GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF } from '../../../abi/grant-table-op.ts';
import { DOMID_SELF, XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { FrameNumber, GrantRef } from '../../../xen/ids.ts';
import { addDomain, type TestDomain } from '../domains.test.helper.ts';
import { Xen } from '../xen.ts';
import { ACTIVE_LOCK } from './active-entry.ts';
import type { CopyEnd } from './copying.ts';
import { grantState, recount } from './recount.test.helper.ts';

/** One end of a copy, with what it is named by. */
export interface End extends CopyEnd {
  readonly isReference: boolean;
}

/** A reference of domain `domain`. */
export const reference = (domain: number, ref: number, offset = 0): End => ({
  domain,
  page: ref,
  offset,
  isReference: true,
});

/** A frame of the caller's. */
export const ownFrame = (frame: number, offset = 0): End => ({
  domain: DOMID_SELF,
  page: frame,
  offset,
  isReference: false,
});

export class CopyBench {
  readonly xen = Xen.boot(256 * XEN_PAGE_SIZE, 256 * XEN_PAGE_SIZE, false);
  /** Domain 1 copies; 2 grants; 3 is where 2 has its grants from, and the destination of copies between others. */
  readonly copier: TestDomain;
  readonly granter: TestDomain;
  readonly third: TestDomain;
  readonly all: readonly TestDomain[];

  constructor(version = 1) {
    [this.copier, this.granter, this.third] = [1, 2, 3].map((id) => addDomain(this.xen, id));
    this.all = [this.copier, this.granter, this.third];
    for (const domain of this.all) {
      const bytes = domain.ports.memory.region.u8;
      for (let at = 0; at < bytes.length; at++) bytes[at] = at * 7 + (at >>> 12) * 31 + domain.id * 101;
      assert.equal(domain.ports.grantTable.setVersion(version), 0);
    }
  }

  /** Grants a whole page of domain 2 (or another) to domain 1 (or another). */
  grant(ref: number, frame: number, readonly = false, granter = this.granter, peer = this.copier): void {
    granter.ports.grantTable.grant(ref as GrantRef, 1, peer.id, frame as FrameNumber, readonly);
  }

  /** A page as its domain sees it. */
  page(domain: TestDomain, frame: number): Uint8Array {
    return domain.ports.memory.region.u8.subarray(frame * XEN_PAGE_SIZE, (frame + 1) * XEN_PAGE_SIZE);
  }

  /** The copy hypercall of domain 1, on this processor or, with another view of Xen, on another. */
  copy(source: End, dest: End, length: number, xen: Xen = this.xen): number {
    const flags = (source.isReference ? GNTCOPY_SOURCE_GREF : 0) | (dest.isReference ? GNTCOPY_DEST_GREF : 0);
    return xen.copies.copy(xen.domain(1), source, dest, length, flags);
  }

  /** A copy that must be refused, and must have changed nothing, neither tables nor memory. */
  refuses(expected: number, source: End, dest: End, length: number): void {
    const memory = new Uint8Array(this.xen.state.memory).slice();
    const before = grantState(this.all);
    assert.equal(this.copy(source, dest, length), expected);
    assert.deepEqual(grantState(this.all), before);
    assert.ok(Buffer.from(this.xen.state.memory).equals(memory), 'no byte of memory has changed');
    recount(this.all);
  }

  /**
   * A copy between two references during which `meanwhile` runs on another processor: once, when the source is
   * pinned and no lock of an entry is held. Returns the status of the copy.
   */
  copyWhile(source: End, dest: End, length: number, meanwhile: (other: Xen) => void): number {
    const other = new Xen(this.xen.state);
    const owner = this.xen.domain(source.domain);
    const heap = new Int32Array(this.xen.state.heap);
    let done = false;
    let status = 0;
    const isPinned = () =>
      this.xen.grants.pins(owner, source.page) !== 0 &&
      this.all.every(({ record }) =>
        Array.from({ length: 16 }, (_, ref) => heap[record.activeEntry(ref) + ACTIVE_LOCK]).every(
          (each) => each === 0,
        ),
      );
    const stepIn = () => {
      if (done || !isPinned()) return;
      done = true;
      meanwhile(other);
    };
    withPreemption(stepIn, () => {
      status = this.copy(source, dest, length);
    });
    assert.ok(done, 'there was a moment at which the source was pinned');
    return status;
  }
}
