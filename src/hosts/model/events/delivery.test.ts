// From a send to the handler: pending bits, selectors, masks and wake-ups in the ABI of shared_info.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  EVTCHN_2L_PORTS,
  SHARED_INFO_EVTCHN_MASK,
  SHARED_INFO_EVTCHN_PENDING,
  VCPU_INFO_PENDING_SEL,
  VCPU_INFO_UPCALL_PENDING,
} from '../../../abi/event-channel.ts';
import type { EventPort } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../domains.test.helper.ts';

function pair() {
  const xen = bootTestMachine();
  const options = { maxEventChannels: EVTCHN_2L_PORTS - 1 };
  return { xen, sender: addDomain(xen, 1, options), receiver: addDomain(xen, 2, options) };
}

/** Joins a port of each, with the binder's first look at its own port done. */
function join(sender: TestDomain, receiver: TestDomain): { near: EventPort; far: EventPort } {
  const far = receiver.ports.events.allocateUnbound(sender.id);
  const near = sender.ports.events.bindInterdomain(receiver.id, far);
  assert.ok(near > 0 && far > 0);
  sender.ports.events.poll();
  return { near, far };
}

/** Counts the events of a port. */
function listen({ ports }: TestDomain, port: EventPort): { count: number } {
  const heard = { count: 0 };
  ports.events.onEvent(port, () => heard.count++);
  return heard;
}

/** A domain's shared_info, where its kernel sets masks. */
const sharedInfo = ({ xen, record }: TestDomain) => new Uint8Array(xen.state.memory, record.sharedInfo, 4096);
const bitOf = (port: number) => [port >>> 3, 1 << (port & 7)] as const;

function setMask(domain: TestDomain, port: number, masked: boolean): void {
  const [byte, bit] = bitOf(port);
  const info = sharedInfo(domain);
  if (masked) info[SHARED_INFO_EVTCHN_MASK + byte] |= bit;
  else info[SHARED_INFO_EVTCHN_MASK + byte] &= ~bit;
}

const isPending = (domain: TestDomain, port: number) =>
  (sharedInfo(domain)[SHARED_INFO_EVTCHN_PENDING + bitOf(port)[0]] & bitOf(port)[1]) !== 0;

/** What Linux does to unmask: clear the mask, and make the port's word be looked at if it is pending. */
function unmask(domain: TestDomain, port: number): void {
  setMask(domain, port, false);
  const info = sharedInfo(domain);
  if (!isPending(domain, port)) return;
  info[VCPU_INFO_PENDING_SEL + (port >>> 9)] |= 1 << ((port >>> 6) & 7);
  info[VCPU_INFO_UPCALL_PENDING] = 1;
}

test('every port of the 4095 delivers exactly its own event', () => {
  const { sender, receiver } = pair();
  const heard = new Map<number, number>();
  const nears: EventPort[] = [];
  for (let i = 1; i < EVTCHN_2L_PORTS; i++) {
    const { near, far } = join(sender, receiver);
    nears.push(near);
    receiver.ports.events.onEvent(far, () => heard.set(far, (heard.get(far) ?? 0) + 1));
  }
  for (const near of nears) {
    assert.equal(sender.ports.events.send(near), 0);
    assert.ok(receiver.ports.events.poll());
    assert.deepEqual([...heard], [[near, 1]]);
    heard.clear();
  }
  for (const near of nears.toReversed()) sender.ports.events.send(near);
  receiver.ports.events.poll();
  assert.equal(heard.size, EVTCHN_2L_PORTS - 1);
});

test('events that nobody has taken yet are one event, and poll says whether there were any', () => {
  const { sender, receiver } = pair();
  const { near, far } = join(sender, receiver);
  const heard = listen(receiver, far);
  assert.ok(!receiver.ports.events.pending);
  assert.ok(!receiver.ports.events.poll());
  for (let i = 0; i < 5; i++) sender.ports.events.send(near);
  assert.ok(receiver.ports.events.pending);
  assert.ok(receiver.ports.events.poll());
  assert.equal(heard.count, 1);
  assert.ok(!receiver.ports.events.poll());
});

test('18: an event that comes while its handler runs is a new event', () => {
  const { sender, receiver } = pair();
  const { near, far } = join(sender, receiver);
  let count = 0;
  receiver.ports.events.onEvent(far, () => {
    if (++count < 3) sender.ports.events.send(near);
  });
  sender.ports.events.send(near);
  while (receiver.ports.events.poll());
  assert.equal(count, 3);
});

test('18: a send always changes the word on which the receiver sleeps, unless the event is pending already', () => {
  const { xen, sender, receiver } = pair();
  const { near, far } = join(sender, receiver);
  listen(receiver, far);
  const heap = new Int32Array(xen.state.heap);
  const word = () => heap[receiver.record.wakeWord];
  heap[receiver.record.sleepingWord] = 1;
  for (let i = 0; i < 3; i++) {
    const before = word();
    sender.ports.events.send(near);
    assert.equal(word(), before + 1);
    sender.ports.events.send(near);
    assert.equal(word(), before + 1);
    receiver.ports.events.poll();
  }
});

test('a masked port stays pending, is not delivered and wakes nobody; its neighbours are', () => {
  const { sender, receiver } = pair();
  const masked = join(sender, receiver);
  const open = join(sender, receiver);
  const quiet = listen(receiver, masked.far);
  const loud = listen(receiver, open.far);
  setMask(receiver, masked.far, true);
  sender.ports.events.send(masked.near);
  assert.ok(!receiver.ports.events.pending);
  sender.ports.events.send(open.near);
  receiver.ports.events.poll();
  assert.deepEqual([quiet.count, loud.count], [0, 1]);
  assert.ok(isPending(receiver, masked.far));
  unmask(receiver, masked.far);
  receiver.ports.events.poll();
  assert.deepEqual([quiet.count, loud.count], [1, 1]);
  assert.ok(!isPending(receiver, masked.far));
});

test('an event without a handler is taken and forgotten; the next one finds the new handler', () => {
  const { sender, receiver } = pair();
  const { near, far } = join(sender, receiver);
  sender.ports.events.send(near);
  assert.ok(receiver.ports.events.poll());
  const heard = listen(receiver, far);
  receiver.ports.events.poll();
  assert.equal(heard.count, 0);
  sender.ports.events.send(near);
  receiver.ports.events.poll();
  receiver.ports.events.onEvent(far, undefined);
  sender.ports.events.send(near);
  receiver.ports.events.poll();
  assert.equal(heard.count, 1);
});

test('close and rebind: an event of the old channel does not reach the new one, and the new one is not deaf', () => {
  const { sender, receiver } = pair();
  const old = join(sender, receiver);
  listen(receiver, old.far);
  sender.ports.events.send(old.near);
  receiver.ports.events.close(old.far);
  sender.ports.events.close(old.near);
  const fresh = join(sender, receiver);
  assert.deepEqual(fresh, old);
  const heard = listen(receiver, fresh.far);
  receiver.ports.events.poll();
  assert.equal(heard.count, 0);
  sender.ports.events.send(fresh.near);
  receiver.ports.events.poll();
  assert.equal(heard.count, 1);
});

test('close and rebind of a masked port: the event that nobody took does not make the new channel deaf', () => {
  const { sender, receiver } = pair();
  const old = join(sender, receiver);
  setMask(receiver, old.far, true);
  sender.ports.events.send(old.near);
  receiver.ports.events.close(old.far);
  sender.ports.events.close(old.near);
  setMask(receiver, old.far, false);
  const fresh = join(sender, receiver);
  const heard = listen(receiver, fresh.far);
  sender.ports.events.send(fresh.near);
  receiver.ports.events.poll();
  assert.equal(heard.count, 1);
});

test('binding makes the binder look once: events may have been sent before there was an end to send to', () => {
  const { sender, receiver } = pair();
  const far = receiver.ports.events.allocateUnbound(sender.id);
  receiver.ports.events.send(far);
  const near = sender.ports.events.bindInterdomain(receiver.id, far);
  const heard = listen(sender, near);
  sender.ports.events.poll();
  assert.equal(heard.count, 1);
});
