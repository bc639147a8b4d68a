// Limits of event channels, resets, and what security advisories on them (XSA) have taught.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SHARED_INFO_EVTCHN_PENDING, VIRQ_DOM_EXC } from '../../../abi/event-channel.ts';
import type { EventPort } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../domains.test.helper.ts';
import { EAGAIN, EBUSY, EINVAL, ENOMEM, ENOSPC, EOPNOTSUPP } from '../errno.ts';
import { Machine } from '../state.ts';
import { Xen } from '../xen.ts';
import { eventState, recount } from './recount.test.helper.ts';

const allocate = (local: TestDomain, remote: TestDomain) => local.ports.events.allocateUnbound(remote.id);

/** Takes ports until there are no more. Returns how many there were. */
function takeAll(domain: TestDomain): number {
  let ports = 0;
  while (allocate(domain, domain) > 0) ports++;
  return ports;
}

function pair(maxEventChannels?: number, shared = false) {
  const xen = bootTestMachine(shared);
  const options = maxEventChannels === undefined ? {} : { maxEventChannels };
  const [one, two] = [1, 2].map((id) => addDomain(xen, id, options));
  return { xen, one, two, all: [one, two] };
}

test('H26: a guest has 1023 ports unless its configuration says otherwise, domain 0 as many as the ABI has', () => {
  const xen = bootTestMachine();
  assert.equal(takeAll(addDomain(xen, 1)), 1023);
  assert.equal(takeAll(addDomain(xen, 2, { maxEventChannels: 5 })), 5);
  assert.equal(takeAll(addDomain(xen, 3, { maxEventChannels: 100_000 })), 4095);
  assert.equal(takeAll(addDomain(xen, 0)), 4095);
  assert.throws(
    () => addDomain(xen, 4, { maxEventChannels: 0 }),
    /max_event_channels of 0; expected 1 to 131071/,
  );
});

test('H26: XSA-496: a guest without free ports that binds a virtual interrupt takes nothing from domain 0', () => {
  const xen = bootTestMachine();
  const [zero, one, two] = [0, 1, 2].map((id) => addDomain(xen, id));
  const port = xen.events.bindVirq(zero.record, VIRQ_DOM_EXC, 0);
  let told = 0;
  zero.ports.events.onEvent(port as EventPort, () => told++);
  takeAll(one);
  const before = eventState([zero, one, two]);
  for (const virq of [0, 1, 11]) assert.equal(xen.events.bindVirq(one.record, virq, 0), ENOSPC);
  assert.equal(xen.events.bindIpi(one.record, 0), ENOSPC);
  assert.deepEqual(eventState([zero, one, two]), before);
  xen.domains.crash(two.record);
  zero.ports.events.poll();
  assert.equal(told, 1);
});

test('H26: where Xen’s heap is used up, a port that needs a new page is ENOMEM, and the others go on', () => {
  const xen = Xen.boot(1 << 20, 1 << 20, false);
  const [one, two] = [1, 2].map((id) => addDomain(xen, id, { memory: 4096 }));
  const machine = new Machine(xen.state);
  while (machine.takePages(1) !== 0);
  assert.equal(takeAll(one), 127);
  const before = eventState([one, two]);
  assert.equal(allocate(one, two), ENOMEM);
  assert.equal(xen.events.bindVirq(one.record, 0, 0), ENOMEM);
  assert.deepEqual(eventState([one, two]), before);
  assert.equal(one.ports.events.close(5 as EventPort), 0);
  assert.equal(allocate(one, two), 5);
  recount([one, two]);
});

test('H23: XSA-340: send, close, status, unmask and poll look at no record that is not there', () => {
  const { xen, one, all } = pair();
  const { events } = xen;
  const before = eventState(all);
  // The first page of records ends at 128.
  for (const port of [
    128,
    1023,
    1024,
    4095,
    4096,
    2 ** 17 - 1,
    2 ** 17,
    2 ** 31,
    2 ** 32 - 1,
    -1,
    Number.NaN,
  ]) {
    assert.equal(events.send(one.record, port), EINVAL);
    assert.equal(events.close(one.record, port), EINVAL);
    assert.equal(events.status(one.record, port), EINVAL);
    assert.equal(events.unmask(one.record, port), EINVAL);
    assert.equal(events.poll(one.record, port), EINVAL);
    assert.equal(events.bindVcpu(one.record, port, 0), EINVAL);
    events.raise(one.record, port);
  }
  assert.deepEqual(eventState(all), before);
  allocate(one, one);
  assert.deepEqual(
    [0, 1, 2].map((port) => events.poll(one.record, port)),
    [EINVAL, 0, EINVAL],
  );
  events.raise(one.record, 1);
  assert.equal(events.poll(one.record, 1), 1);
});

test('H24: XSA-342: after a reset the limit is that of the 2-level ABI again, and no port has survived', () => {
  const xen = Xen.boot(8 << 20, 4 << 20, false);
  const [one, two] = [1, 2].map((id) => addDomain(xen, id, { maxEventChannels: 10_000 }));
  assert.equal(one.ports.events.useFifo(one.ports.memory), 0);
  assert.equal(takeAll(one), 10_000);
  assert.equal(one.ports.events.close(9999 as EventPort), 0);
  const far = allocate(one, two);
  const near = two.ports.events.bindInterdomain(one.id, far);
  assert.deepEqual([far, near], [9999, 1]);
  assert.equal(xen.events.reset(one.record), 0);
  // The far end is unbound for it, and a send from there goes nowhere.
  assert.deepEqual(xen.events.status(two.record, near), { status: 1, vcpu: 0, remote: 1, remotePort: 0 });
  const before = eventState([one, two]);
  assert.equal(two.ports.events.send(near), 0);
  assert.deepEqual(eventState([one, two]), before);
  assert.equal(xen.events.expandArray(one.record, 1), EOPNOTSUPP);
  assert.equal(takeAll(one), 4095);
  recount([one, two]);
});

test('H24: a guest that was reset may use FIFO again, or the 2-level ABI', () => {
  const { xen, one, two } = pair();
  for (const fifo of [true, false, true, true]) {
    const { events, memory } = xen.ports(one.id, () => false);
    if (fifo) assert.equal(events.useFifo(memory), 0);
    const far = events.allocateUnbound(two.id);
    const near = two.ports.events.bindInterdomain(one.id, far);
    let heard = 0;
    events.onEvent(far, () => heard++);
    two.ports.events.send(near);
    events.poll();
    assert.equal(heard, 1);
    two.ports.events.send(near);
    assert.equal(xen.events.reset(one.record), 0);
    assert.equal(xen.events.poll(one.record, far), EINVAL);
    two.ports.events.close(near);
    recount([one, two]);
  }
});

test('H24: XSA-343: a reset in the middle of which ports are opened is EAGAIN, and nobody else resets meanwhile', () => {
  const { xen, one, two } = pair(4095);
  assert.equal(one.ports.events.useFifo(one.ports.memory), 0);
  for (let port = 1; port <= 200; port++) allocate(one, two);
  let pauses = 0;
  const result = xen.events.reset(one.record, one.record, false, () => {
    pauses++;
    recount([one, two]);
    assert.equal(xen.events.reset(one.record), EBUSY);
    assert.equal(allocate(one, two), 1 + (pauses - 1));
  });
  assert.deepEqual([result, pauses], [EAGAIN, 3]);
  // FIFO is still what it uses, and what was opened is there.
  assert.equal(xen.events.status(one.record, 300), EINVAL);
  assert.deepEqual(xen.events.status(one.record, 3), { status: 1, vcpu: 0, remote: 2, remotePort: 0 });
  assert.equal(xen.events.reset(one.record), 0);
  assert.equal(xen.events.setPriority(one.record, 1, 0), -38);
  recount([one, two]);
});

test('H24: XSA-505: a page of event words for a guest that is being reset is refused after it, and taken before', () => {
  const { xen, one } = pair();
  assert.equal(xen.events.initControl(one.record, 0, 1, 0), 0);
  for (let port = 1; port <= 100; port++) allocate(one, one);
  const result = xen.events.reset(one.record, one.record, false, () => {
    assert.equal(xen.events.expandArray(one.record, 2), 0);
  });
  assert.equal(result, 0);
  assert.equal(xen.events.expandArray(one.record, 3), EOPNOTSUPP);
  assert.equal(xen.events.initControl(one.record, 0, 1, 0), 0);
  recount([one]);
});

test('XSA-344: a domain that others hold 4000 channels of goes away in slices, each of 64 ports at most', () => {
  const { xen, one, two } = pair(4095);
  for (let port = 1; port <= 4000; port++) two.ports.events.bindInterdomain(one.id, allocate(one, two));
  let slices = 0;
  let open = 4000;
  for (const _ of xen.destroyDomain(1)) {
    slices++;
    let left = 0;
    for (let port = 1; port <= 4000; port++) {
      const status = xen.events.status(two.record, port);
      if (typeof status === 'object' && status.status === 2) left++;
    }
    assert.ok(open - left <= 64);
    open = left;
  }
  assert.ok(slices > 4000 / 64);
  assert.equal(open, 0);
});

test('XSA-358 XSA-359: a domain that was made anew with an old id gets no event of the old one', () => {
  const { xen, one, two } = pair();
  const old = two.record;
  const near = one.ports.events.bindInterdomain(two.id, allocate(two, one));
  for (const _ of xen.destroyDomain(2));
  const fresh = addDomain(xen, 2);
  assert.equal(allocate(fresh, one), 1);
  const before = eventState([fresh]);
  const memory = new Uint8Array(xen.state.memory).slice();
  assert.equal(one.ports.events.send(near), 0);
  xen.events.raise(old, 1);
  xen.events.raiseVirq(old, 0);
  assert.deepEqual(eventState([fresh]), before);
  assert.ok(Buffer.from(xen.state.memory).equals(memory), 'nor does whoever has its pages now');
  assert.ok(!fresh.ports.events.pending);
  xen.events.raise(fresh.record, 1);
  assert.ok(fresh.ports.events.pending);
  recount([one, fresh]);
});

test('a domain that is going gets no new ports, by whomever they are asked for', () => {
  const xen = bootTestMachine();
  const [zero, one] = [0, 1].map((id) => addDomain(xen, id));
  const far = allocate(zero, one);
  const steps = xen.destroyDomain(1);
  steps.next();
  assert.equal(xen.events.allocateUnbound(one.record, zero.id, zero.record), EINVAL);
  assert.equal(xen.events.bindInterdomain(one.record, zero.id, far), EINVAL);
  assert.equal(xen.events.bindVirq(one.record, 0, 0), EINVAL);
  for (const _ of steps);
});

test('a port whose consumer is Xen: the guest can neither send, close nor move it; the other end is a guest’s', () => {
  const { xen, one, two, all } = pair();
  const port = xen.events.allocateForXen(one.record, two.id, 0);
  xen.events.sendFromXen(one.record, port);
  const near = two.ports.events.bindInterdomain(one.id, port as EventPort);
  two.ports.events.poll();
  const before = eventState(all);
  assert.equal(xen.events.send(one.record, port), EINVAL);
  assert.equal(xen.events.close(one.record, port), EINVAL);
  assert.equal(xen.events.bindVcpu(one.record, port, 0), EINVAL);
  assert.equal(xen.events.poll(one.record, port), EINVAL);
  assert.deepEqual(eventState(all), before);
  const heap = new Int32Array(xen.state.heap);
  const wake = heap[one.record.wakeWord];
  assert.equal(two.ports.events.send(near), 0);
  // Xen has been told; the guest has nothing pending.
  assert.equal(heap[one.record.wakeWord], wake + 1);
  assert.equal(new Int32Array(xen.state.memory)[(one.record.sharedInfo + SHARED_INFO_EVTCHN_PENDING) / 4], 0);
  let heard = 0;
  two.ports.events.onEvent(near, () => heard++);
  xen.events.sendFromXen(one.record, port);
  two.ports.events.poll();
  assert.equal(heard, 1);
  // It survives a reset, and is not what a reset waits for.
  assert.equal(xen.events.reset(one.record), 0);
  two.ports.events.close(near);
  recount(all);
  assert.equal(two.ports.events.bindInterdomain(one.id, port as EventPort), near);
  assert.equal(xen.events.closeForXen(one.record, port), 0);
  recount(all);
});

for (const [title, last] of [
  ['before its event is forgotten', 3],
  ['also for one that has lost its processor meanwhile', 10_003],
  ['not for ever where others never stop', Number.POSITIVE_INFINITY],
] as const) {
  test(`XSA-343: who closes a port waits for those who are delivering, ${title}`, () => {
    const { xen, one } = pair(undefined, true);
    const port = xen.events.bindIpi(one.record, 0);
    const heap = new Int32Array(xen.state.heap);
    const { raisesWord } = one.record;
    const pending = new Uint8Array(xen.state.memory, one.record.sharedInfo + SHARED_INFO_EVTCHN_PENDING, 1);
    // Somebody has seen the port open, and makes it pending while it is being closed.
    heap[raisesWord] = 1;
    const original = Atomics.add;
    let looks = 0;
    Atomics.add = ((array: Int32Array, index: number, value: number): number => {
      const before = original(array, index, value);
      if (index === raisesWord && ++looks === last) {
        pending[0] |= 1 << port;
        heap[raisesWord] = 0;
      }
      return before;
    }) as typeof Atomics.add;
    try {
      assert.equal(one.ports.events.close(port as EventPort), 0);
    } finally {
      Atomics.add = original;
    }
    assert.equal(looks, Math.min(last + 1, 10_100));
    assert.equal(pending[0], 0);
  });
}
