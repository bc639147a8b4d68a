import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import { DirectTracer } from './event-tracer.ts';
import { Exposure } from './exposure.ts';

const GUEST = 1;
const BACKEND = 0;
const DISK = 7;

/** An accounting with a tracer that feeds it and a clock that stands still unless it is moved. */
function accounting() {
  const clock = { now: 1000 };
  const exposure = new Exposure();
  return { clock, exposure, trace: new DirectTracer([exposure], () => clock.now) };
}

test('a buffer inside a page exposes the rest of the page, once for each grant', () => {
  const { exposure, trace } = accounting();
  for (let time = 0; time < 3; time++) {
    trace.grant(GUEST, BACKEND, 8, 100, 1, false);
    trace.need(GUEST, DISK, 8, 64, 32, DMA_FROM_DEVICE);
    trace.revoke(GUEST, 8, 1);
    trace.needEnd(GUEST, DISK, 8, 64, 32);
  }
  const total = exposure.total();
  assert.equal(total.pagesGranted, 3);
  assert.equal(total.bytesNeeded, 96);
  assert.equal(total.bytesExposed, 3 * 4096);
  assert.equal(total.foreignReadableBytes, 3 * 4064);
  assert.equal(total.foreignWritableBytes, 3 * 4064);
  assert.equal(total.distinctForeignReadableBytes, 4064);
  assert.equal(total.distinctForeignWritableBytes, 4064);
  assert.equal(total.leakedGrants, 0);
  assert.equal(total.contradictions, 0);
});

test('G1 a buffer that crosses pages leaves only its edges foreign', () => {
  const { exposure, trace } = accounting();
  trace.grant(GUEST, BACKEND, 8, 100, 3, true);
  trace.need(GUEST, DISK, 8, 4000, 96 + 4096 + 10, DMA_TO_DEVICE);
  const total = exposure.total();
  assert.equal(total.foreignReadableBytes, 4000 + (4096 - 10));
  assert.equal(total.foreignWritableBytes, 0);
});

test('a bounce page serves several needs: nothing is foreign, nothing stale while one of them lives', () => {
  const { clock, exposure, trace } = accounting();
  trace.privatePages(GUEST, DISK, 100, 1);
  trace.grant(GUEST, BACKEND, 8, 100, 1, false);
  trace.need(GUEST, DISK, 8, 0, 16, DMA_FROM_DEVICE);
  trace.need(GUEST, DISK, 8, 512, 100, DMA_FROM_DEVICE);
  clock.now += 10;
  trace.needEnd(GUEST, DISK, 8, 0, 16);
  clock.now += 10;
  trace.need(GUEST, DISK, 8, 0, 32, DMA_FROM_DEVICE);
  trace.needEnd(GUEST, DISK, 8, 512, 100);
  clock.now += 10;
  trace.revoke(GUEST, 8, 1);
  trace.needEnd(GUEST, DISK, 8, 0, 32);
  const [disk] = exposure.devices();
  assert.equal(disk.bytesNeeded, 148);
  assert.equal(disk.bytesExposed, 4096);
  assert.equal(disk.foreignReadableBytes, 0);
  assert.equal(disk.maxStaleNanoseconds, 0);
  assert.equal(disk.leakedGrants, 0);
});

test('pages private to one device are foreign to another, and after privatePagesEnd to all', () => {
  const { exposure, trace } = accounting();
  trace.privatePages(GUEST, DISK, 100, 2);
  trace.privatePagesEnd(GUEST, 101, 1);
  trace.grant(GUEST, BACKEND, 8, 100, 2, false);
  trace.need(GUEST, DISK, 8, 0, 1, DMA_FROM_DEVICE);
  trace.need(GUEST, DISK, 9, 0, 1, DMA_FROM_DEVICE);
  trace.grant(GUEST, BACKEND, 10, 100, 1, false);
  trace.need(GUEST, DISK + 1, 10, 0, 1, DMA_FROM_DEVICE);
  assert.deepEqual(
    exposure.devices().map(({ device, foreignReadableBytes }) => [device, foreignReadableBytes]),
    [
      [DISK, 4095],
      [DISK + 1, 4095],
    ],
  );
});

test('G16 a buffer that the device only reads, granted for writing, is over-permission', () => {
  const { exposure, trace } = accounting();
  trace.grant(GUEST, BACKEND, 8, 100, 2, false);
  trace.need(GUEST, DISK, 8, 0, 8192, DMA_TO_DEVICE);
  trace.grant(GUEST, BACKEND, 10, 102, 1, true);
  trace.need(GUEST, DISK, 10, 0, 16, DMA_TO_DEVICE);
  trace.grant(GUEST, BACKEND, 11, 103, 1, false);
  trace.need(GUEST, DISK, 11, 0, 16, DMA_BIDIRECTIONAL);
  assert.equal(exposure.total().overPermission, 1);
});

test('G17 two buffers in one page, one revoked: each grant counts for itself', () => {
  const { exposure, trace } = accounting();
  trace.grant(GUEST, BACKEND, 8, 100, 1, true);
  trace.need(GUEST, DISK, 8, 0, 1000, DMA_TO_DEVICE);
  trace.grant(GUEST, BACKEND, 9, 100, 1, true);
  trace.need(GUEST, DISK, 9, 2000, 96, DMA_TO_DEVICE);
  trace.revoke(GUEST, 8, 1);
  trace.needEnd(GUEST, DISK, 8, 0, 1000);
  trace.touch(BACKEND, GUEST, 9, 2000, 96, false);
  const total = exposure.total();
  // The second grant shows the first buffer too, which is no secret from this device.
  assert.equal(total.foreignReadableBytes, 4096 - 1000 + (4096 - 1000 - 96));
  assert.equal(total.distinctForeignReadableBytes, 4096 - 1000);
  assert.equal(total.touchesOutsideNeed, 0);
  assert.equal(total.leakedGrants, 1);
});

test('G22 a page revoked after its need has ended is stale for that long', () => {
  const { clock, exposure, trace } = accounting();
  trace.grant(GUEST, BACKEND, 8, 100, 1, false);
  trace.need(GUEST, DISK, 8, 0, 512, DMA_FROM_DEVICE);
  trace.needEnd(GUEST, DISK, 8, 0, 512);
  clock.now += 300;
  trace.requestBegin(GUEST, DISK, 1, 0, 0);
  assert.equal(exposure.total().maxStaleNanoseconds, 300, 'while it goes on');
  clock.now += 200;
  trace.revoke(GUEST, 8, 1);
  clock.now += 1000;
  trace.requestEnd(GUEST, DISK, 1, 0);
  assert.equal(exposure.total().maxStaleNanoseconds, 500);
});

test('a request reported complete before its buffers are unmapped makes them stale from then on', () => {
  const { clock, exposure, trace } = accounting();
  trace.requestBegin(GUEST, DISK, 1, 0, 512);
  trace.grant(GUEST, BACKEND, 8, 100, 1, false);
  trace.need(GUEST, DISK, 8, 0, 512, DMA_FROM_DEVICE);
  clock.now += 50;
  trace.requestEnd(GUEST, DISK, 1, 0);
  clock.now += 70;
  trace.revoke(GUEST, 8, 1);
  trace.needEnd(GUEST, DISK, 8, 0, 512);
  const total = exposure.total();
  assert.equal(total.maxStaleNanoseconds, 70);
  assert.equal(total.requests, 1);
  assert.equal(total.maxLatencyNanoseconds, 50);
});

test('a buffer posted after other work has ended is not taken for part of an older request', () => {
  const { clock, exposure, trace } = accounting();
  trace.grant(GUEST, BACKEND, 8, 100, 2, false);
  trace.need(GUEST, DISK, 8, 0, 512, DMA_FROM_DEVICE);
  trace.requestBegin(GUEST, DISK, 1, 0, 512);
  trace.needEnd(GUEST, DISK, 8, 0, 512);
  trace.need(GUEST, DISK, 9, 0, 512, DMA_FROM_DEVICE);
  trace.revoke(GUEST, 8, 1);
  trace.requestEnd(GUEST, DISK, 1, 0);
  clock.now += 70;
  trace.revoke(GUEST, 9, 1);
  assert.equal(exposure.total().maxStaleNanoseconds, 0);
});

test('a page still mapped when its revoke is reported stays exposed until the unmap', () => {
  const { clock, exposure, trace } = accounting();
  trace.grant(GUEST, BACKEND, 8, 100, 1, false);
  trace.need(GUEST, DISK, 8, 0, 512, DMA_FROM_DEVICE);
  trace.map(BACKEND, GUEST, 8, 33, false);
  trace.busy(GUEST, 8);
  trace.revoke(GUEST, 8, 1);
  trace.needEnd(GUEST, DISK, 8, 0, 512);
  clock.now += 40;
  assert.deepEqual(exposure.liveGrants(), [
    {
      domain: GUEST,
      ref: 8,
      peer: BACKEND,
      frame: 100,
      readonly: false,
      start: 0,
      end: 4096,
      device: DISK,
      grantedAt: 1000,
      isQuarantined: false,
      mappings: 1,
    },
  ]);
  trace.unmap(BACKEND, GUEST, 8, 33);
  assert.deepEqual(exposure.liveGrants(), []);
  assert.equal(exposure.total().maxStaleNanoseconds, 40);
  assert.equal(exposure.total().exposedByteSeconds, (4096 * 40) / 1e9);
});

test('G10 a page that the backend holds on to is quarantined, counted as leaked, and recovered', () => {
  const { clock, exposure, trace } = accounting();
  trace.grant(GUEST, BACKEND, 8, 100, 2, false);
  trace.need(GUEST, DISK, 8, 0, 8192, DMA_FROM_DEVICE);
  trace.map(BACKEND, GUEST, 9, 1, false);
  trace.revoke(GUEST, 8, 1);
  trace.busy(GUEST, 9);
  trace.busy(GUEST, 9);
  trace.needEnd(GUEST, DISK, 8, 0, 8192);
  let total = exposure.total();
  assert.deepEqual([total.leakedGrants, total.quarantinedGrants], [1, 1]);
  assert.equal(exposure.liveGrants()[0].isQuarantined, true);
  clock.now += 1_000_000;
  trace.unmap(BACKEND, GUEST, 9, 1);
  trace.revoke(GUEST, 9, 1);
  total = exposure.total();
  assert.deepEqual([total.leakedGrants, total.quarantinedGrants], [0, 0]);
  assert.equal(total.maxStaleNanoseconds, 1_000_000);
  assert.equal(total.contradictions, 0);
});

test('B19 a backend that tries other references is counted, and creates nothing by it', () => {
  const { exposure, trace } = accounting();
  trace.grant(GUEST, BACKEND, 8, 100, 1, true);
  trace.need(GUEST, DISK, 8, 0, 512, DMA_TO_DEVICE);
  trace.mapRefused(BACKEND, GUEST, 8, -1);
  trace.mapRefused(BACKEND, GUEST, 0xffff_ffff, -3);
  trace.mapRefused(BACKEND, 31_999, 8, -2);
  const total = exposure.total();
  assert.equal(total.mapsRefused, 3);
  assert.equal(total.pagesMapped, 0);
  assert.equal(total.contradictions, 0);
  assert.equal(exposure.devices().length, 1);
  assert.equal(exposure.devices()[0].mapsRefused, 1);
});

test('B19 a touch outside every live need is counted: beside it, after it, at no grant at all', () => {
  const { exposure, trace } = accounting();
  const outside = () => exposure.total().touchesOutsideNeed;
  trace.grant(GUEST, BACKEND, 8, 100, 2, false);
  trace.need(GUEST, DISK, 8, 4000, 196, DMA_FROM_DEVICE);
  trace.touch(BACKEND, GUEST, 8, 4000, 196, true);
  trace.touch(BACKEND, GUEST, 9, 0, 100, true);
  assert.equal(outside(), 0);
  trace.touch(BACKEND, GUEST, 8, 3999, 2, false);
  assert.equal(outside(), 1);
  trace.touch(BACKEND, GUEST, 9, 99, 2, true);
  assert.equal(outside(), 2);
  trace.touch(BACKEND, GUEST, 10, 0, 1, false);
  assert.equal(outside(), 3);
  trace.needEnd(GUEST, DISK, 8, 4000, 196);
  trace.touch(BACKEND, GUEST, 8, 4000, 1, false);
  assert.equal(outside(), 4);
  assert.equal(exposure.total().bytesWritten, 196 + 100 + 2);
  assert.equal(exposure.total().bytesRead, 2 + 1 + 1);
});

test('a grant that no need names belongs to nobody and is shown as such', () => {
  const { exposure, trace } = accounting();
  trace.grant(GUEST, BACKEND, 8, 100, 5, false);
  trace.need(GUEST, DISK, 8, 0, 4096, DMA_FROM_DEVICE);
  assert.equal(exposure.total().pagesWithoutNeed, 4);
  assert.equal(exposure.total().pagesGranted, 5);
  assert.equal(exposure.devices()[0].pagesGranted, 1);
  assert.equal(exposure.liveGrants()[1].device, undefined);
});

test('every event that contradicts those before it is counted and changes no more than it must', () => {
  const contradictory: [string, (trace: DirectTracer) => void][] = [
    ['revoke of nothing', (trace) => trace.revoke(GUEST, 50, 1)],
    ['busy of nothing', (trace) => trace.busy(GUEST, 50)],
    ['need of nothing', (trace) => trace.need(GUEST, DISK, 50, 0, 1, DMA_TO_DEVICE)],
    ['end of no need', (trace) => trace.needEnd(GUEST, DISK, 50, 0, 1)],
    ['map of nothing', (trace) => trace.map(BACKEND, GUEST, 50, 2, false)],
    ['unmap of nothing', (trace) => trace.unmap(BACKEND, GUEST, 8, 3)],
    ['unmap of another page', (trace) => trace.unmap(BACKEND, GUEST, 9, 1)],
    ['request twice', (trace) => trace.requestBegin(GUEST, DISK, 4, 0, 0)],
    ['end of no request', (trace) => trace.requestEnd(GUEST, DISK, 5, 0)],
    ['need of another device', (trace) => trace.need(GUEST, DISK + 1, 8, 5, 1, DMA_FROM_DEVICE)],
    ['grant twice', (trace) => trace.grant(GUEST, BACKEND, 8, 200, 1, false)],
    ['need twice', (trace) => trace.need(GUEST, DISK, 8, 0, 16, DMA_FROM_DEVICE)],
    ['handle twice', (trace) => trace.map(BACKEND, GUEST, 8, 1, false)],
    ['part of nothing', (trace) => trace.narrow(GUEST, 50, 0, 16)],
    ['part of a page that a need has named', (trace) => trace.narrow(GUEST, 8, 0, 16)],
    ['origin of no need', (trace) => trace.origin(GUEST, DISK, 8, 1, 5)],
    ['end of no access', (trace) => trace.reachEnd(BACKEND, GUEST, 0, 4)],
  ];
  for (const [what, report] of contradictory) {
    const { exposure, trace } = accounting();
    trace.requestBegin(GUEST, DISK, 4, 0, 0);
    trace.grant(GUEST, BACKEND, 8, 100, 1, false);
    trace.need(GUEST, DISK, 8, 0, 16, DMA_FROM_DEVICE);
    trace.map(BACKEND, GUEST, 8, 1, false);
    report(trace);
    assert.equal(exposure.total().contradictions, 1, what);
    trace.unmap(BACKEND, GUEST, 8, 1);
    trace.revoke(GUEST, 8, 1);
    trace.needEnd(GUEST, DISK, 8, 0, 16);
    trace.requestEnd(GUEST, DISK, 4, 0);
    const { leakedGrants, requestsOpen } = exposure.total();
    assert.deepEqual([leakedGrants, requestsOpen], [0, 0], what);
  }
});

test('clocks of two threads that disagree never make a time negative', () => {
  const { clock, exposure, trace } = accounting();
  trace.requestBegin(GUEST, DISK, 1, 0, 0);
  trace.grant(GUEST, BACKEND, 8, 100, 1, false);
  trace.need(GUEST, DISK, 8, 0, 16, DMA_FROM_DEVICE);
  clock.now -= 500;
  trace.revoke(GUEST, 8, 1);
  trace.needEnd(GUEST, DISK, 8, 0, 16);
  trace.requestEnd(GUEST, DISK, 1, 0);
  const { meanLatencyNanoseconds, exposedByteSeconds, neededByteSeconds } = exposure.total();
  assert.deepEqual([meanLatencyNanoseconds, exposedByteSeconds, neededByteSeconds], [0, 0, 0]);
});

test('a sub-page grant exposes its bytes and no others, in all figures', () => {
  const { clock, exposure, trace } = accounting();
  trace.grant(GUEST, BACKEND, 8, 100, 1, false);
  trace.narrow(GUEST, 8, 64, 40);
  trace.need(GUEST, DISK, 8, 64, 32, DMA_FROM_DEVICE);
  trace.touch(BACKEND, GUEST, 8, 64, 32, true);
  clock.now += 1_000_000_000;
  const total = exposure.total();
  assert.deepEqual([total.pagesGranted, total.bytesExposed], [1, 40]);
  assert.deepEqual([total.foreignReadableBytes, total.foreignWritableBytes], [8, 8]);
  assert.deepEqual([total.touchesOutsideNeed, total.contradictions], [0, 0]);
  assert.deepEqual(
    exposure.liveGrants().map(({ start, end }) => [start, end]),
    [[64, 104]],
  );
  trace.revoke(GUEST, 8, 1);
  assert.deepEqual([exposure.total().exposedByteSeconds, exposure.total().foreignByteSeconds], [40, 8]);
});

test('bytes that another need of the page holds are outside a sub-page grant all the same', () => {
  const { exposure, trace } = accounting();
  for (const [ref, offset] of [
    [8, 0],
    [9, 16],
  ]) {
    trace.grant(GUEST, BACKEND, ref, 100, 1, false);
    trace.narrow(GUEST, ref, offset, 16);
    trace.need(GUEST, DISK, ref, offset, 16, DMA_FROM_DEVICE);
  }
  assert.equal(exposure.total().foreignReadableBytes, 0);
  trace.touch(BACKEND, GUEST, 8, 8, 16, false);
  assert.equal(exposure.total().touchesOutsideNeed, 1);
});

test('access without a grant exposes whole frames, all foreign but what is shared with that domain', () => {
  const { clock, exposure, trace } = accounting();
  trace.grant(GUEST, BACKEND, 8, 102, 1, true);
  trace.need(GUEST, DISK, 8, 16, 80, DMA_TO_DEVICE);
  trace.grant(GUEST, BACKEND + 5, 9, 102, 1, true);
  trace.need(GUEST, DISK + 1, 9, 2048, 1024, DMA_TO_DEVICE);
  trace.revoke(GUEST, 8, 1);
  const before = exposure.total();
  trace.reach(BACKEND, GUEST, 100, 262_144);
  clock.now += 1_000_000_000;
  trace.reachEnd(BACKEND, GUEST, 100, 262_144);
  const total = exposure.total();
  const bytes = 262_144 * 4096;
  assert.equal(total.pagesReached, 262_144);
  assert.equal(total.bytesExposed - before.bytesExposed, bytes);
  assert.equal(total.foreignReadableBytes - before.foreignReadableBytes, bytes - 80);
  assert.equal(total.foreignWritableBytes, bytes - 80);
  assert.equal(total.distinctForeignWritableBytes, bytes - 80);
  // What the disk shares with this backend is foreign to the other one, which was given the page as well.
  assert.equal(total.distinctForeignReadableBytes, bytes);
  assert.equal(total.exposedByteSeconds, bytes + 4096);
  assert.equal(exposure.devices()[0].bytesExposed, 4096);
});

test('G22 the window that a device declares counts while it has requests, the measured one always', () => {
  const { clock, exposure, trace } = accounting();
  trace.staleLimit(GUEST, DISK, 5000);
  trace.requestBegin(GUEST, DISK, 1, 0, 512);
  trace.grant(GUEST, BACKEND, 8, 100, 1, false);
  trace.need(GUEST, DISK, 8, 0, 512, DMA_FROM_DEVICE);
  trace.needEnd(GUEST, DISK, 8, 0, 512);
  clock.now += 10;
  trace.requestEnd(GUEST, DISK, 1, 0);
  clock.now += 90_000;
  trace.requestBegin(GUEST, DISK, 2, 0, 512);
  clock.now += 20;
  trace.need(GUEST, DISK, 8, 0, 512, DMA_FROM_DEVICE);
  const { maxStaleNanoseconds, maxStaleAtWorkNanoseconds, staleLimitNanoseconds } = exposure.total();
  assert.deepEqual(
    [maxStaleNanoseconds, maxStaleAtWorkNanoseconds, staleLimitNanoseconds],
    [90_030, 30, 5000],
  );
});
