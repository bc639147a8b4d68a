// The accounting where only the backend's side is seen, as on a real Xen host: what it maps and what it needs. Nobody
// reports what the guest granted.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { grantAddressHigh, grantAddressLow } from '../abi/grant-address.ts';
import { Grants } from '../dma/grants.ts';
import { IdlePools } from '../dma/idle-pools.ts';
import { References } from '../dma/references.ts';
import { addDomain, bootTestMachine } from '../hosts/model/domains.test.helper.ts';
import { GrantMemory } from '../memory/grant-memory.ts';
import { needsOf, TracedMemory } from '../memory/traced-memory.ts';
import { DMA_FROM_DEVICE, DMA_TO_DEVICE, UNKNOWN_TYPE } from '../trace.ts';
import { audited, auditOf, BACKEND, DISK, GUEST, traceText } from './auditing.test.helper.ts';
import { DirectTracer } from './event-tracer.ts';
import type { TraceEvent } from './events.ts';
import { Exposure } from './exposure.ts';

const PAGE = 4096;

function accounting() {
  const clock = { now: 1000 };
  const exposure = new Exposure(undefined, { side: 'backend' });
  return { clock, exposure, trace: new DirectTracer([exposure], () => clock.now) };
}

test('what a backend maps is what it is exposed to, and what it needs of that is not foreign', () => {
  const { exposure, trace } = accounting();
  trace.map(BACKEND, GUEST, 8, 1, true);
  trace.map(BACKEND, GUEST, 9, 2, false);
  trace.need(GUEST, DISK, 8, 64, 16, DMA_TO_DEVICE);
  trace.need(GUEST, DISK, 9, 0, PAGE, DMA_FROM_DEVICE);
  trace.touch(BACKEND, GUEST, 8, 64, 16, false);
  const during = exposure.total();
  assert.deepEqual([during.leakedGrants, during.contradictions], [2, 0]);
  trace.unmap(BACKEND, GUEST, 9, 2);
  trace.unmap(BACKEND, GUEST, 8, 1);
  trace.needEnd(GUEST, DISK, 8, 64, 16);
  trace.needEnd(GUEST, DISK, 9, 0, PAGE);
  const total = exposure.total();
  assert.deepEqual([total.pagesMapped, total.bytesExposed, total.bytesNeeded], [2, 2 * PAGE, PAGE + 16]);
  assert.deepEqual([total.foreignReadableBytes, total.foreignWritableBytes], [PAGE - 16, 0]);
  assert.deepEqual([total.touchesOutsideNeed, total.leakedGrants, total.contradictions], [0, 0, 0]);
  assert.equal(total.maxStaleNanoseconds, 0, 'what is unmapped with its request is never stale');
  assert.equal(exposure.devices()[0].pagesMapped, 2, 'they are the device’s whose need named them');
});

test('what a backend copies is needed without being mapped, and nobody is accused of touching it', () => {
  const { exposure, trace } = accounting();
  trace.need(GUEST, DISK, 8, 64, 16, DMA_TO_DEVICE);
  trace.touch(BACKEND, GUEST, 8, 64, 16, false);
  trace.needEnd(GUEST, DISK, 8, 64, 16);
  const { bytesNeeded, bytesExposed, bytesRead, touchesOutsideNeed, contradictions } = exposure.total();
  assert.deepEqual([bytesNeeded, bytesExposed, bytesRead], [16, 0, 16]);
  assert.deepEqual([touchesOutsideNeed, contradictions], [0, 0]);
});

test('a mapping that a backend keeps is stale from its last use on', () => {
  const { clock, exposure, trace } = accounting();
  trace.map(BACKEND, GUEST, 8, 1, false);
  trace.need(GUEST, DISK, 8, 0, 512, DMA_FROM_DEVICE);
  trace.needEnd(GUEST, DISK, 8, 0, 512);
  clock.now += 300;
  trace.need(GUEST, DISK, 8, 0, 512, DMA_FROM_DEVICE);
  trace.needEnd(GUEST, DISK, 8, 0, 512);
  clock.now += 200;
  trace.unmap(BACKEND, GUEST, 8, 1);
  const { bytesExposed, bytesNeeded, maxStaleNanoseconds } = exposure.total();
  assert.deepEqual([bytesExposed, bytesNeeded, maxStaleNanoseconds], [PAGE, 1024, 300]);
});

test('requests that name the same bytes need them until the last of them is over', () => {
  const { clock, exposure, trace } = accounting();
  trace.map(BACKEND, GUEST, 8, 1, false);
  for (const size of [512, 512, 100]) trace.need(GUEST, DISK, 8, 0, size, DMA_FROM_DEVICE);
  assert.equal(exposure.neededBytes, 1124);
  for (const size of [512, 100, 512]) {
    clock.now += 10;
    trace.needEnd(GUEST, DISK, 8, 0, size);
  }
  assert.equal(exposure.neededBytes, 0);
  trace.unmap(BACKEND, GUEST, 8, 1);
  const { contradictions, maxStaleNanoseconds, neededByteSeconds } = exposure.total();
  assert.deepEqual([contradictions, maxStaleNanoseconds], [0, 0]);
  assert.equal(neededByteSeconds, (512 * 10 + 100 * 20 + 512 * 30) / 1e9);
});

test('G5 a reference that is mapped for reading and for writing is exposed twice', () => {
  const { exposure, trace } = accounting();
  trace.map(BACKEND, GUEST, 8, 1, true);
  trace.map(BACKEND, GUEST, 8, 2, true);
  trace.map(BACKEND, GUEST, 8, 3, false);
  trace.map(BACKEND, GUEST, 8, 4, true);
  assert.equal(exposure.exposedBytes, 2 * PAGE);
  for (const handle of [3, 4, 1, 2]) trace.unmap(BACKEND, GUEST, 8, handle);
  const { contradictions, leakedGrants, pagesMapped } = exposure.total();
  assert.deepEqual([contradictions, leakedGrants, pagesMapped, exposure.exposedBytes], [0, 0, 4, 0]);
});

test('what a backend copies it needs, and is exposed to nothing beside it', () => {
  const { exposure, trace } = accounting();
  trace.need(GUEST, DISK, 8, 4000, 200, DMA_TO_DEVICE);
  trace.needEnd(GUEST, DISK, 8, 4000, 200);
  const { bytesNeeded, bytesExposed, foreignReadableBytes, contradictions } = exposure.total();
  assert.deepEqual([bytesNeeded, bytesExposed, foreignReadableBytes, contradictions], [200, 0, 0, 0]);
});

test('requests are counted, and how long a page stays after its last use does not depend on them', () => {
  const { clock, exposure, trace } = accounting();
  trace.staleLimit(GUEST, DISK, 100);
  trace.map(BACKEND, GUEST, 8, 1, false);
  trace.need(GUEST, DISK, 8, 0, 512, DMA_FROM_DEVICE);
  trace.requestBegin(GUEST, DISK, 0, UNKNOWN_TYPE, 512);
  // Of the next request, which is taken while the first goes on: buffers come before their request.
  trace.need(GUEST, DISK, 8, 512, 512, DMA_FROM_DEVICE);
  trace.requestBegin(GUEST, DISK, 1, UNKNOWN_TYPE, 512);
  trace.requestBegin(GUEST, DISK, 2, UNKNOWN_TYPE, 16);
  clock.now += 40;
  trace.needEnd(GUEST, DISK, 8, 0, 512);
  trace.requestEnd(GUEST, DISK, 0, 0);
  clock.now += 10;
  trace.touch(BACKEND, GUEST, 8, 512, 512, true);
  trace.needEnd(GUEST, DISK, 8, 512, 512);
  trace.requestEnd(GUEST, DISK, 1, 1);
  clock.now += 500;
  trace.unmap(BACKEND, GUEST, 8, 1);
  const { requests, requestsFailed, requestsOpen, maxLatencyNanoseconds, ...total } = exposure.total();
  assert.deepEqual([requests, requestsFailed, requestsOpen], [2, 1, 1]);
  assert.deepEqual([maxLatencyNanoseconds, total.meanLatencyNanoseconds], [50, 45]);
  assert.deepEqual([total.maxStaleNanoseconds, total.maxStaleAtWorkNanoseconds], [500, 0]);
  assert.deepEqual([total.contradictions, total.touchesOutsideNeed], [0, 0]);
});

test('a trace says that it is of a backend alone, and is audited so', () => {
  const report = (trace: DirectTracer): void => {
    trace.map(BACKEND, GUEST, 8, 1, false);
    trace.need(GUEST, DISK, 8, 0, 16, DMA_TO_DEVICE);
    trace.needEnd(GUEST, DISK, 8, 0, 16);
    trace.unmap(BACKEND, GUEST, 8, 1);
  };
  const text = traceText(({ trace }) => report(trace), 'xvda', 'backend');
  const [{ total, findings }] = auditOf(text).runs;
  assert.deepEqual([total.contradictions, total.foreignWritableBytes], [0, PAGE - 16]);
  assert.deepEqual(findings.map(({ rule }) => rule).sort(), ['foreign-writable', 'over-permission']);
  const [both] = audited(({ trace }) => report(trace)).runs;
  assert.ok(both.total.contradictions > 0, 'a whole trace has grants');
});

test('on the embedded Xen a backend alone comes to the same figures as both sides together', () => {
  const both = new Exposure();
  const alone = new Exposure(undefined, { side: 'backend' });
  const [guestSays, backendSays, needed] = [[both], [both, alone], [alone]].map(
    (consumers) => new DirectTracer(consumers, () => 0),
  );
  const xen = bootTestMachine();
  const guest = addDomain(xen, GUEST);
  const backend = addDomain(xen, BACKEND, {}, backendSays);
  const { memory, grantTable: table } = guest.ports;
  const references = new References(table);
  const domain = { id: guest.id, memory, table, references, pools: new IdlePools(), tracer: guestSays };
  const grants = new Grants(domain, backend.id);
  const granted = new GrantMemory(backend.ports.grantMapper, backend.id, guest.id, backendSays);
  const access = new TracedMemory(granted, needsOf(needed, GUEST, DISK)).newChainAccess();
  // Header, data over two pages, and status.
  for (const [frame, offset, length, writable] of [
    [3, 64, 16, false],
    [5, 0, 5000, true],
    [9, 4095, 1, true],
  ] as const) {
    const ref = grants.share(frame, Math.ceil((offset + length) / PAGE), !writable);
    guestSays.need(GUEST, DISK, ref, offset, length, writable ? DMA_FROM_DEVICE : DMA_TO_DEVICE);
    access.map(grantAddressLow(ref, offset), grantAddressHigh(ref), length, writable);
  }
  assert.equal(access.ready(), 0);
  assert.equal(access.release(16, 5001, 0), 0);
  const figures = [both.total(), alone.total()].map((total) => ({
    ...{ needed: total.bytesNeeded, exposed: total.bytesExposed, mapped: total.pagesMapped },
    ...{ readable: total.foreignReadableBytes, writable: total.foreignWritableBytes },
    ...{ read: total.bytesRead, written: total.bytesWritten, strayed: total.touchesOutsideNeed },
    contradictions: total.contradictions,
  }));
  assert.deepEqual(figures[1], figures[0]);
  const writable = 2 * PAGE - 5000 + (PAGE - 1);
  assert.deepEqual(figures[1], {
    ...{ needed: 5017, exposed: 4 * PAGE, mapped: 4, readable: PAGE - 16 + writable, writable },
    ...{ read: 16, written: 5001, strayed: 0, contradictions: 0 },
  });
  assert.deepEqual(alone.liveGrants(), [], 'it has let go of everything');
});

/** One buffer of a random chain. */
interface Buffer {
  readonly ref: number;
  readonly offset: number;
  readonly size: number;
  readonly writable: boolean;
}

const buffer: fc.Arbitrary<Buffer> = fc.record({
  ref: fc.integer({ min: 8, max: 11 }),
  offset: fc.constantFrom(0, 64, 2048, 4095),
  size: fc.constantFrom(1, 16, 512, PAGE, 5000),
  writable: fc.boolean(),
});

/** The chains in flight, and mappings that the backend keeps for a while. */
class RandomBackend {
  readonly events: TraceEvent[] = [];
  #time = 0;
  readonly #trace = new DirectTracer(
    [{ consume: (event) => this.events.push({ ...event }) }],
    () => this.#time++,
  );
  readonly #chains: { readonly buffers: readonly Buffer[]; readonly mapped: readonly [number, number][] }[] =
    [];
  #handle = 0;

  take(buffers: readonly Buffer[]): void {
    const mapped: [number, number][] = [];
    for (const { ref, offset, size, writable } of buffers)
      for (let page = ref; page * PAGE < ref * PAGE + offset + size; page++) {
        this.#trace.map(BACKEND, GUEST, page, this.#handle, !writable);
        mapped.push([page, this.#handle++]);
      }
    for (const { ref, offset, size } of buffers)
      this.#trace.need(GUEST, DISK, ref, offset, size, DMA_FROM_DEVICE);
    this.#chains.push({ buffers, mapped });
  }

  complete(pick: number): void {
    const [chain] = this.#chains.splice(pick % this.#chains.length, 1);
    for (const [ref, handle] of chain?.mapped.toReversed() ?? [])
      this.#trace.unmap(BACKEND, GUEST, ref, handle);
    for (const { ref, offset, size } of chain?.buffers ?? [])
      this.#trace.needEnd(GUEST, DISK, ref, offset, size);
  }

  completeAll(): void {
    while (this.#chains.length > 0) this.complete(0);
  }
}

/** The sums from all events, by looking back from each and by painting bytes. */
function recount(events: readonly TraceEvent[]) {
  const needsAt = (index: number) => {
    const live = events.slice(0, index + 1).filter((event) => event.kind === 'need');
    for (const event of events.slice(0, index + 1)) {
      if (event.kind !== 'needEnd') continue;
      live.splice(
        live.findIndex((n) => n.ref === event.ref && n.offset === event.offset && n.size === event.size),
        1,
      );
    }
    return live;
  };
  const touches = (need: { ref: number; offset: number; size: number }, ref: number) =>
    need.ref * PAGE + need.offset < (ref + 1) * PAGE &&
    need.ref * PAGE + need.offset + need.size > ref * PAGE;
  const foreignAt = (index: number, ref: number): number => {
    const bytes = new Uint8Array(PAGE).fill(1);
    for (const need of needsAt(index)) {
      const start = (need.ref - ref) * PAGE + need.offset;
      bytes.fill(0, Math.max(0, start), Math.max(0, start + need.size));
    }
    return bytes.reduce((sum, byte) => sum + byte, 0);
  };
  const sums = { pagesMapped: 0, bytesExposed: 0, bytesNeeded: 0, foreignReadable: 0, foreignWritable: 0 };
  const newest = new Map<number, { readonly: boolean; handles: Set<number> }>();
  for (const [index, event] of events.entries()) {
    if (event.kind === 'need') sums.bytesNeeded += event.size;
    if (event.kind === 'unmap')
      for (const [ref, { handles }] of newest)
        if (handles.delete(event.handle) && handles.size === 0) newest.delete(ref);
    if (event.kind !== 'map') continue;
    sums.pagesMapped++;
    const known = newest.get(event.ref);
    if (known !== undefined && (event.readonly || !known.readonly)) {
      known.handles.add(event.handle);
      continue;
    }
    newest.set(event.ref, { readonly: event.readonly, handles: new Set([event.handle]) });
    sums.bytesExposed += PAGE;
    const replaced = events.findIndex(
      (e, at) => at > index && e.kind === 'map' && e.ref === event.ref && event.readonly && !e.readonly,
    );
    const opener = events.findIndex((e, at) => at > index && e.kind === 'need' && touches(e, event.ref));
    // A mapping with more rights took its place before a need named it.
    if (replaced >= 0 && replaced < opener) continue;
    const foreign = foreignAt(opener, event.ref);
    sums.foreignReadable += foreign;
    if (!event.readonly) sums.foreignWritable += foreign;
  }
  return sums;
}

test('a backend’s side alone is accounted as a recount from scratch says, and nothing is left of it', () => {
  const step = fc.oneof(fc.array(buffer, { minLength: 1, maxLength: 3 }), fc.nat(5));
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 30 }), (steps) => {
      const backend = new RandomBackend();
      for (const each of steps) {
        if (typeof each === 'number') backend.complete(each);
        else backend.take(each);
      }
      const exposure = new Exposure(undefined, { side: 'backend', keepsBytes: false });
      for (const event of backend.events) exposure.consume(event);
      const { pagesMapped, bytesExposed, bytesNeeded, ...total } = exposure.total();
      const { foreignReadableBytes: foreignReadable, foreignWritableBytes: foreignWritable } = total;
      assert.deepEqual(
        { pagesMapped, bytesExposed, bytesNeeded, foreignReadable, foreignWritable },
        recount(backend.events),
      );
      const before = backend.events.length;
      backend.completeAll();
      for (const event of backend.events.slice(before)) exposure.consume(event);
      assert.deepEqual([exposure.exposedBytes, exposure.neededBytes], [0, 0]);
      assert.deepEqual([exposure.total().contradictions, exposure.liveGrants().length], [0, 0]);
    }),
    { seed: 6_006, numRuns: 300 },
  );
});
