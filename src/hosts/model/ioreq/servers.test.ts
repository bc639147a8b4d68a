// Any sequence of operations on ioreq servers against a plain list of them: after each one the ranges, event channels
// and pages of Xen are those of a recount, and a refused one has changed nothing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { HVM_IOREQSRV_BUFIOREQ_OFF } from '../../../abi/dm-op.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../domains.test.helper.ts';
import { EEXIST, EINVAL, ENOENT } from '../errno.ts';
import { Machine } from '../state.ts';
import { MAX_IOREQ_SERVERS } from './machine-page.ts';
import { RawModel } from './raw-model.test.helper.ts';
import { Channels, PORT_FREE } from '../events/channels.ts';
import { serverAt } from './server-record.ts';

const VCPUS = 2;
const TYPES = 3;
const END = 12;

/** What there should be of one server. */
interface Expected {
  readonly buffering: number;
  readonly numbers: readonly Set<number>[];
  pages: number;
}

/** A device model, and what it has done. */
class Recounted {
  readonly xen = bootTestMachine();
  readonly guest: TestDomain = addDomain(this.xen, 2, { vcpus: VCPUS });
  readonly model = RawModel.of(this.xen, this.guest);
  readonly servers = new Map<number, Expected>();
  readonly #frames = this.xen.free.frames;
  readonly #channels = this.#countChannels();

  create(buffering: number): void {
    const id = this.model.create(buffering);
    if (buffering > 2) assert.equal(id, EINVAL);
    if (id < 0) return;
    const numbers = Array.from({ length: TYPES }, () => new Set<number>());
    this.servers.set(id, { buffering, numbers, pages: 0 });
  }

  destroy(id: number): void {
    assert.equal(this.model.destroy(id), this.servers.has(id) ? 0 : ENOENT);
    for (const page of [0, 1]) this.model.unmapPage(id, page);
    this.servers.delete(id);
  }

  enable(id: number): void {
    assert.equal(this.model.enable(id), this.servers.has(id) ? 0 : ENOENT);
  }

  acquire(id: number): void {
    const server = this.servers.get(id);
    if (server === undefined) return;
    this.model.page(id, 1);
    server.pages = server.buffering === HVM_IOREQSRV_BUFIOREQ_OFF ? 1 : 2;
  }

  change(adds: boolean, id: number, type: number, start: number, end: number): void {
    const set = this.servers.get(id)?.numbers[type];
    const all = Array.from({ length: Math.max(end - start + 1, 0) }, (_, i) => start + i);
    const { model } = this;
    const result = adds ? model.map(id, type, start, end) : model.unmap(id, type, start, end);
    if (start > end) assert.equal(result, EINVAL);
    else if (!this.servers.has(id)) assert.equal(result, ENOENT);
    else if (set === undefined) assert.equal(result, EINVAL);
    else {
      const fits = adds ? !all.some((n) => set.has(n)) : all.every((n) => set.has(n));
      assert.equal(result, fits ? 0 : adds ? EEXIST : ENOENT);
      if (fits && adds) for (const n of all) set.add(n);
      else if (fits) for (const n of all) set.delete(n);
    }
  }

  recount(): void {
    let [channels, frames] = [0, 0];
    for (const { buffering, pages } of this.servers.values()) {
      channels += VCPUS + (buffering === HVM_IOREQSRV_BUFIOREQ_OFF ? 0 : 1);
      frames += pages;
    }
    assert.equal(this.#countChannels(), this.#channels + channels);
    assert.equal(this.xen.free.frames, this.#frames - frames);
    const machine = new Machine(this.xen.state);
    for (let id = 0; id < MAX_IOREQ_SERVERS; id++) {
      const server = serverAt(machine, this.guest.record, id);
      assert.equal(server?.used ?? false, this.servers.has(id));
      for (let type = 0; type < TYPES; type++) {
        const there = (server?.ranges(type)?.list() ?? []).flatMap(([first, last]) =>
          Array.from({ length: Number(last - first) + 1 }, (_, i) => Number(first) + i),
        );
        assert.deepEqual(new Set(there), this.servers.get(id)?.numbers[type] ?? new Set());
      }
    }
  }

  #countChannels(): number {
    const channels = new Channels(new Machine(this.xen.state));
    const ports = Array.from({ length: 127 }, (_, index) => index + 1);
    return ports.filter((port) => channels.binding(this.guest.record, port) !== PORT_FREE).length;
  }
}

const id = fc.nat(MAX_IOREQ_SERVERS);
const number = fc.nat(END);
const step: fc.Arbitrary<(machine: Recounted) => void> = fc.oneof(
  fc.nat(3).map((buffering) => (machine: Recounted) => machine.create(buffering)),
  id.map((each) => (machine: Recounted) => machine.destroy(each)),
  id.map((each) => (machine: Recounted) => machine.enable(each)),
  id.map((each) => (machine: Recounted) => machine.acquire(each)),
  fc.tuple(fc.boolean(), fc.nat(2), fc.nat(TYPES), number, number).map(
    ([adds, server, type, start, end]) =>
      (machine: Recounted) =>
        machine.change(adds, server, type, start, end),
  ),
);

test('after any operations on servers their ranges, channels and pages are those of a recount (10)', () => {
  const property = fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
    const machine = new Recounted();
    for (const each of steps) {
      each(machine);
      machine.recount();
    }
  });
  fc.assert(property, { seed: 20261122, numRuns: 100 });
});

test('whatever servers a guest had, when it has gone and its device model has let go nothing of it is left', () => {
  const property = fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
    const machine = new Recounted();
    const { xen, model } = machine;
    for (const each of steps) each(machine);
    for (const _ of xen.destroyDomain(machine.guest.id));
    for (let server = 0; server < MAX_IOREQ_SERVERS; server++) model.unmapPage(server, 1);
    assert.equal(xen.domains.find(machine.guest.id), undefined);
    for (const _ of xen.destroyDomain(model.domain.id));
    assert.deepEqual(xen.free, bootTestMachine().free);
  });
  fc.assert(property, { seed: 20261123, numRuns: 60 });
});

test('a device model that goes first takes its servers along, and its pages', () => {
  const machine = new Recounted();
  const { xen, model } = machine;
  const before = { ...xen.free };
  for (const buffering of [0, 1, 2]) machine.create(buffering);
  for (const server of [0, 1, 2]) machine.acquire(server);
  model.map(1, 1, 0, 100);
  for (const _ of xen.destroyDomain(model.domain.id));
  machine.servers.clear();
  for (const _ of xen.destroyDomain(machine.guest.id));
  assert.deepEqual(xen.free, bootTestMachine().free);
  assert.ok(before.frames < xen.free.frames);
});
