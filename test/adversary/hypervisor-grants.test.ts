// Guests that call the grant table hypercall with anything at all: nothing throws, every status is one that there is,
// what was refused has changed nothing, and the tables equal a recount (invariants 3, 4 and 6; case H19).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as op from '../../src/abi/grant-table-op.ts';
import { GRANT_RESERVED_ENTRIES } from '../../src/abi/grant.ts';
import type { FieldLayout } from '../../src/abi/struct.ts';
import { DOMID_SELF, XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import { addDomain, type TestDomain } from '../../src/hosts/model/domains.test.helper.ts';
import { EFAULT } from '../../src/hosts/model/errno.ts';
import { grantPart, passOn } from '../../src/hosts/model/grants/entries.test.helper.ts';
import { ARGUMENTS, UNSET } from '../../src/hosts/model/grants/hypercall.test.helper.ts';
import { grantState, recount } from '../../src/hosts/model/grants/recount.test.helper.ts';
import { Xen } from '../../src/hosts/model/xen.ts';
import type { DomainId, FrameNumber, GrantRef } from '../../src/xen/ids.ts';

const CALLS = 700;
const MOST_ELEMENTS = 4;
const GNTST_LOWEST = -13;

/** What each operation takes. */
const layouts = [
  op.gnttabMapGrantRef,
  op.gnttabUnmapGrantRef,
  op.gnttabSetupTable,
  op.gnttabQuerySize,
  op.gnttabTransfer,
  op.gnttabCopy,
  op.gnttabQuerySize,
  op.gnttabUnmapAndReplace,
  op.gnttabSetVersion,
  op.gnttabGetStatusFrames,
  op.gnttabGetVersion,
  op.gnttabSwapGrantRef,
  op.gnttabCacheFlush,
] as const;

/** A source of numbers that a seed repeats (mulberry32). */
function randomFrom(seed: number) {
  let state = seed;
  return (below: number) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

class Fuzz {
  readonly random: (below: number) => number;
  readonly xen = Xen.boot(512 * XEN_PAGE_SIZE, 512 * XEN_PAGE_SIZE, false);
  domains: readonly TestDomain[];
  /** Domains that have ended while others held on to their pages. */
  gone: readonly TestDomain[] = [];
  /** How often an element was done, and refused. */
  readonly outcomes = [0, 0];

  constructor(seed: number) {
    this.random = randomFrom(seed);
    // The PV guest first: small machine frame numbers are its memory.
    this.domains = [1, 0, 2].map((id) => this.create(id));
  }

  create(id: number): TestDomain {
    return addDomain(this.xen, id, { maxGrantFrames: 3, kind: id === 1 ? 'pv' : 'pvh' });
  }

  /** Ends domain 0 or 2, and makes it anew as soon as nobody holds on to it. */
  comeAndGo(): void {
    const id = this.pick([0, 2]);
    const domain = this.domains.find((each) => each.id === id);
    if (domain !== undefined) {
      for (const _ of this.xen.destroyDomain(id));
      this.domains = this.domains.filter((each) => each !== domain);
      this.gone = [...this.gone, domain];
    } else if (this.xen.domains.find(id) === undefined) this.domains = [...this.domains, this.create(id)];
    this.recount();
  }

  recount(): void {
    this.gone = this.gone.filter(({ record }) => record.current);
    recount(this.domains, this.gone);
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.random(choices.length)];
  }

  /** A value that a kernel in its right mind could have meant for a field. */
  plausible({ record }: TestDomain, name: string): number {
    const place = () => (record.window + this.random(6)) * XEN_PAGE_SIZE;
    switch (name) {
      case 'host_addr':
        return this.pick([place, place, place, () => 0, () => 50 * XEN_PAGE_SIZE])();
      case 'new_addr':
        return this.pick([() => 0, () => this.random(20) * XEN_PAGE_SIZE, place])();
      case 'dev_bus_addr':
        return this.pick([0, 0, (1 + this.random(12)) * XEN_PAGE_SIZE]);
      case 'flags':
        return this.pick([2, 2, 6, 6, 3, 7, 1, 0]);
      case 'dom':
      case 'domid':
      case 'source_domid':
      case 'dest_domid':
        return this.pick([0, 1, 2, DOMID_SELF]);
      case 'frame_list':
        return 60 * XEN_PAGE_SIZE;
      case 'offset':
      case 'source_offset':
      case 'dest_offset':
      case 'len':
      case 'length':
        return this.pick([0, 1, 100, 4095, 4096]);
      case 'version':
        return 1 + this.random(2);
      case 'nr_frames':
        return this.random(4);
      case 'op':
        return this.random(4);
      default:
        // References, handles and frame numbers.
        return this.random(14);
    }
  }

  /** Puts a batch of random bytes into the caller's memory, most fields of it plausible. */
  arguments(caller: TestDomain, command: number, count: number): void {
    const layout = layouts[command];
    const bytes = new Uint8Array(layout.size);
    for (let index = 0; index < count; index++) {
      layout.randomise(bytes, 0, () => this.random(256));
      const record: Record<string, number> = layout.over(bytes) as never;
      for (const { name } of layout.fields as readonly FieldLayout[])
        if (name === 'status') record[name] = UNSET;
        else if (this.random(20) > 0) record[name] = this.plausible(caller, name);
      caller.ports.memory.region.u8.set(bytes, ARGUMENTS + index * layout.size);
    }
  }

  /** The statuses in a batch, of as many elements as Xen has come to. */
  statuses(caller: TestDomain, command: number, count: number): number[] {
    const layout = layouts[command];
    const field = (layout.fields as readonly FieldLayout[]).find(({ name }) => name === 'status');
    if (field === undefined) return [];
    const view = new DataView(caller.ports.addressSpace.read(ARGUMENTS, count * layout.size).buffer);
    return Array.from({ length: count }, (_, index) =>
      view.getInt16(index * layout.size + field.offset, true),
    );
  }

  /** A guest writes an entry into its table, or takes one back. */
  grant(): void {
    const granter = this.pick(this.domains);
    const { grantTable } = granter.ports;
    // Its kernel knows of the switches that it has made by hypercalls.
    grantTable.setVersion(granter.record.grantVersion);
    const [ref, peer, frame] = [this.random(14), this.random(3), 1 + this.random(12)];
    if (!grantTable.isFree(ref as GrantRef)) {
      // What ends a toolstack's entry of version 2 while it is mapped loses its status with the next switch, as in Xen.
      if (ref >= GRANT_RESERVED_ENTRIES) grantTable.revoke(ref as GrantRef, 1);
    } else if (granter.record.grantVersion === 2 && this.random(2) === 0) {
      if (this.random(2) === 0) grantPart(granter, ref, peer, frame, [this.random(200), this.random(4096)]);
      else passOn(granter, ref, peer, this.random(3), this.random(14));
    } else grantTable.grant(ref as GrantRef, 1, peer as DomainId, frame as FrameNumber, this.random(3) === 0);
  }

  call(): void {
    const caller = this.pick(this.domains);
    const command = this.pick([0, 0, 0, 0, 1, 1, 1, 2, 4, 5, 5, 5, 6, 7, 8, 9, 10, 11, 12]);
    const elements = 1 + this.random(MOST_ELEMENTS);
    const count = [2, 6, 9].includes(command) && this.random(4) > 0 ? 1 : elements;
    this.arguments(caller, command, elements);
    const before = grantState(this.domains);
    const result = caller.ports.grantTableOp(command, ARGUMENTS, count);
    const what = `GNTTABOP ${command} of domain ${caller.id}: ${result}`;
    assert.ok(result <= 0, what);
    const statuses = result === 0 ? this.statuses(caller, command, count) : [];
    for (const status of statuses) {
      assert.ok(status <= 0 && status >= GNTST_LOWEST, `${what}, status ${status}`);
      this.outcomes[status < 0 ? 1 : 0]++;
    }
    this.recount();
    const isRefused = result < 0 ? result !== EFAULT : statuses.length > 0 && Math.max(...statuses) < 0;
    // A list that leads nowhere is found when the table has grown, in Xen too.
    if (isRefused && command !== op.GNTTABOP_SETUP_TABLE)
      assert.deepEqual(grantState(this.domains), before, what);
  }
}

for (const seed of [1, 2, 3]) {
  test(`3 4 6 H19: ${CALLS} random grant table calls of guests that come and go, seed ${seed}`, () => {
    const fuzz = new Fuzz(seed);
    for (let call = 0; call < CALLS; call++) {
      if (call % 2 === 0) fuzz.grant();
      if (call % 25 === 0) fuzz.comeAndGo();
      fuzz.call();
    }
    assert.ok(Math.min(...fuzz.outcomes) > 100, `done and refused: ${fuzz.outcomes}`);
    // Whatever they did, they end, and nothing is left.
    for (const { id } of fuzz.domains) for (const _ of fuzz.xen.destroyDomain(id));
    assert.deepEqual(fuzz.xen.free, Xen.boot(512 * XEN_PAGE_SIZE, 512 * XEN_PAGE_SIZE, false).free);
  });
}

test('any bytes at all as arguments of any operation, seed 4', () => {
  const fuzz = new Fuzz(4);
  for (let call = 0; call < CALLS; call++) {
    const caller = fuzz.pick(fuzz.domains);
    for (let at = 0; at < 160; at++) caller.ports.memory.region.u8[ARGUMENTS + at] = fuzz.random(256);
    const count = fuzz.pick([0, 1, 1, 2, 3, 0x7fff_ffff, fuzz.random(2 ** 32)]);
    assert.ok(caller.ports.grantTableOp(fuzz.random(14), ARGUMENTS, count > 3 ? 3 : count) <= 0);
    assert.ok(
      caller.ports.grantTableOp(fuzz.random(2 ** 32), fuzz.random(2 ** 32), fuzz.random(2 ** 32)) <= 0,
    );
    if (call % 50 === 0) fuzz.recount();
  }
  fuzz.recount();
});
