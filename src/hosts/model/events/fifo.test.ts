// The FIFO ABI from both sides: what Xen writes into a guest's event words and control blocks, what a kernel makes of
// it, and guests that write there what no kernel would.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  EVTCHN_FIFO_BUSY,
  EVTCHN_FIFO_LINK_MASK,
  EVTCHN_FIFO_LINKED,
  EVTCHN_FIFO_MASKED,
  EVTCHN_FIFO_PENDING,
  EVTCHN_FIFO_PORTS,
} from '../../../abi/event-channel.ts';
import { randomFrom } from '../../../machine/random.ts';
import type { EventPort } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../domains.test.helper.ts';
import type { DomainOptions } from '../domain-options.ts';
import { EINVAL, ENOMEM, ENOSPC } from '../errno.ts';
import { Xen } from '../xen.ts';
import { recount } from './recount.test.helper.ts';

/** Frames of a raw guest: its control block, and its event words. */
const CONTROL = 1;
const WORDS = 2;

/** A sender, and a receiver whose kernel uses the FIFO ABI. */
function kernels(options: Partial<DomainOptions> = {}) {
  const xen = bootTestMachine();
  const sender = addDomain(xen, 1, { maxEventChannels: 4095 });
  const receiver = addDomain(xen, 2, { vcpus: 2, maxEventChannels: 4095, ...options });
  assert.equal(receiver.ports.events.useFifo(receiver.ports.memory), 0);
  return { xen, sender, receiver };
}

/** A receiver that the test itself is the kernel of. */
function raw(array: boolean) {
  const xen = bootTestMachine();
  const sender = addDomain(xen, 1);
  const receiver = addDomain(xen, 2, { vcpus: 2 });
  assert.equal(xen.events.initControl(receiver.record, 0, CONTROL, 0), 0);
  if (array) assert.equal(xen.events.expandArray(receiver.record, WORDS), 0);
  const memory = receiver.ports.memory.region.i32;
  return {
    xen,
    sender,
    receiver,
    word: memory.subarray(WORDS * 1024, (WORDS + 1) * 1024),
    ready: () => memory[CONTROL * 1024],
    head: (priority: number) => memory[CONTROL * 1024 + 2 + priority],
  };
}

function join(sender: TestDomain, receiver: TestDomain): { near: EventPort; far: EventPort } {
  const far = receiver.ports.events.allocateUnbound(sender.id);
  const near = sender.ports.events.bindInterdomain(receiver.id, far);
  assert.ok(near > 0 && far > 0);
  return { near, far };
}

test('every port of the 4095 delivers exactly its own event, and all of them at once', () => {
  const { sender, receiver } = kernels({ memory: 128 * 4096 });
  const heard: number[] = [];
  const nears: EventPort[] = [];
  for (let i = 1; i < 4096; i++) {
    const { near, far } = join(sender, receiver);
    nears.push(near);
    receiver.ports.events.onEvent(far, () => heard.push(far));
  }
  for (const near of nears) {
    assert.equal(sender.ports.events.send(near), 0);
    assert.ok(receiver.ports.events.poll());
    assert.deepEqual(heard.splice(0), [near]);
  }
  const order = nears.toReversed();
  for (const near of order) sender.ports.events.send(near);
  while (receiver.ports.events.poll());
  assert.deepEqual(heard, order);
  recount([sender, receiver]);
});

test('events come in the order of priorities, and in the order of sending within one', () => {
  const { xen, sender, receiver } = kernels();
  const heard: number[] = [];
  const channels = Array.from({ length: 6 }, () => join(sender, receiver));
  channels.forEach(({ far }, index) => {
    receiver.ports.events.onEvent(far, () => heard.push(index));
    assert.equal(xen.events.setPriority(receiver.record, far, [15, 7, 0, 7, 15, 0][index]), 0);
  });
  for (const { near } of channels) sender.ports.events.send(near);
  receiver.ports.events.poll();
  assert.deepEqual(heard, [2, 5, 1, 3, 0, 4]);
});

test('an event moves to its port’s new processor and priority when it is sent again, and none is lost', () => {
  const { xen, sender, receiver } = kernels();
  const random = randomFrom(18);
  const channels = Array.from({ length: 5 }, () => join(sender, receiver));
  const work = channels.map(() => ({ sent: 0, seen: 0 }));
  channels.forEach(({ far }, index) => {
    receiver.ports.events.onEvent(far, () => {
      work[index].seen = work[index].sent;
    });
  });
  for (let step = 0; step < 4000; step++) {
    const index = Math.floor(random() * channels.length);
    const { near, far } = channels[index];
    const choice = random();
    if (choice < 0.2) xen.events.bindVcpu(receiver.record, far, Math.floor(random() * 2));
    else if (choice < 0.4) xen.events.setPriority(receiver.record, far, Math.floor(random() * 16));
    else if (choice < 0.8) {
      work[index].sent++;
      sender.ports.events.send(near);
    } else {
      while (receiver.ports.events.poll());
      for (const { sent, seen } of work) assert.equal(seen, sent, `step ${step}`);
    }
  }
});

test('18: an event that comes while its handler runs is a new event, and poll ends though they never end', () => {
  const { sender, receiver } = kernels();
  const { near, far } = join(sender, receiver);
  let count = 0;
  receiver.ports.events.onEvent(far, () => {
    count++;
    sender.ports.events.send(near);
  });
  sender.ports.events.send(near);
  for (let polls = 1; polls <= 3; polls++) {
    const before = count;
    assert.ok(receiver.ports.events.poll());
    assert.ok(count > before);
  }
});

test('a masked port stays pending, is not delivered and wakes nobody, until it is unmasked', () => {
  const { xen, sender, receiver, word, ready } = raw(true);
  const { near, far } = join(sender, receiver);
  word[far] = EVTCHN_FIFO_MASKED;
  const wake = new Int32Array(xen.state.heap)[receiver.record.wakeWord];
  sender.ports.events.send(near);
  assert.equal(word[far], EVTCHN_FIFO_PENDING | EVTCHN_FIFO_MASKED);
  assert.deepEqual([ready(), receiver.ports.events.pending], [0, false]);
  assert.equal(new Int32Array(xen.state.heap)[receiver.record.wakeWord], wake);
  assert.equal(xen.events.unmask(receiver.record, far), 0);
  assert.equal(word[far], EVTCHN_FIFO_PENDING | EVTCHN_FIFO_LINKED);
  assert.deepEqual([ready(), receiver.ports.events.pending], [1 << 7, true]);
});

test('queues: the head stands in the control block, each event is linked behind the one before', () => {
  const { sender, receiver, word, ready, head } = raw(true);
  const channels = [1, 2, 3].map(() => join(sender, receiver));
  for (const { near } of channels) sender.ports.events.send(near);
  const linked = EVTCHN_FIFO_PENDING | EVTCHN_FIFO_LINKED;
  assert.deepEqual([...word.subarray(1, 4)], [linked | 2, linked | 3, linked]);
  assert.deepEqual([ready(), head(7)], [1 << 7, 1]);
  // Taken off by the kernel, the tail is followed by nothing: the next event is a head again.
  word.fill(0, 1, 4);
  sender.ports.events.send(channels[1].near);
  assert.deepEqual([word[2], word[3], head(7)], [linked, 0, 2]);
});

test('H25: XSA-107: events for a processor without a control block are dropped, and come when it has one', () => {
  const { xen, sender, receiver, word, ready } = raw(true);
  const { near, far } = join(sender, receiver);
  assert.equal(xen.events.bindVcpu(receiver.record, far, 1), 0);
  assert.equal(sender.ports.events.send(near), 0);
  assert.deepEqual([word[far], ready(), receiver.ports.events.pending], [0, 0, false]);
  assert.equal(xen.events.initControl(receiver.record, 1, CONTROL, 128), 0);
  assert.equal(sender.ports.events.send(near), 0);
  assert.equal(word[far], EVTCHN_FIFO_PENDING | EVTCHN_FIFO_LINKED);
  assert.ok(receiver.ports.events.pending);
});

test('H25: XSA-221: an event without an event word waits for its page, and polling the port is no error', () => {
  const { xen, sender, receiver, word, ready } = raw(false);
  const { near, far } = join(sender, receiver);
  assert.equal(sender.ports.events.send(near), 0);
  assert.equal(xen.events.unmask(receiver.record, far), 0);
  assert.equal(xen.events.poll(receiver.record, far), 0);
  assert.equal(xen.events.poll(receiver.record, far + 1), EINVAL);
  assert.equal(ready(), 0);
  assert.equal(xen.events.expandArray(receiver.record, WORDS), 0);
  assert.equal(word[far], EVTCHN_FIFO_PENDING | EVTCHN_FIFO_LINKED);
  assert.equal(xen.events.poll(receiver.record, far), 1);
  assert.equal(ready(), 1 << 7);
});

test('H25: what is pending when a guest switches to FIFO is delivered when its event word has come', () => {
  const xen = bootTestMachine();
  const [sender, receiver] = [1, 2].map((id) => addDomain(xen, id));
  const { near, far } = join(sender, receiver);
  let heard = 0;
  sender.ports.events.send(near);
  receiver.ports.events.onEvent(far, () => heard++);
  assert.equal(receiver.ports.events.useFifo(receiver.ports.memory), 0);
  receiver.ports.events.poll();
  assert.equal(heard, 1);
  sender.ports.events.send(near);
  receiver.ports.events.poll();
  assert.equal(heard, 2);
});

test('a port that was closed while on a queue is not given out before the guest has taken it off', () => {
  const { sender, receiver } = kernels();
  const old = join(sender, receiver);
  let heard = 0;
  receiver.ports.events.onEvent(old.far, () => heard++);
  sender.ports.events.send(old.near);
  assert.equal(receiver.ports.events.close(old.far), 0);
  const other = receiver.ports.events.allocateUnbound(sender.id);
  assert.notEqual(other, old.far);
  receiver.ports.events.poll();
  assert.equal(heard, 0);
  assert.equal(receiver.ports.events.allocateUnbound(sender.id), old.far);
});

test('what a guest scribbles into event words, links and heads leads Xen nowhere', () => {
  const { xen, sender, receiver, word } = raw(true);
  const third = addDomain(xen, 3);
  const channels = Array.from({ length: 8 }, () => join(sender, receiver));
  const random = randomFrom(25);
  const outside = () => {
    const all = new Int32Array(xen.state.memory);
    const first = receiver.record.ramFrame * 1024;
    const info = receiver.record.sharedInfo / 4;
    let sum = 0;
    for (let at = 0; at < all.length; at++) {
      const isReceivers = (at >= first && at < first + 64 * 1024) || (at >= info && at < info + 1024);
      if (!isReceivers && all[at] !== 0) sum = (sum * 31 + at + all[at]) | 0;
    }
    return sum;
  };
  for (const { ports } of [sender, third]) ports.events.poll();
  const before = outside();
  for (let step = 0; step < 3000; step++) {
    const { near, far } = channels[Math.floor(random() * channels.length)];
    const junk = Math.floor(random() * 2 ** 32);
    word[Math.floor(random() * 16)] = junk;
    // The control block, too, but not the rest of memory.
    if (step % 3 === 0) receiver.ports.memory.region.i32[CONTROL * 1024 + (junk & 31)] = junk;
    sender.ports.events.send(near);
    if (step % 5 === 0) xen.events.unmask(receiver.record, far);
    if (step % 7 === 0) xen.events.setPriority(receiver.record, far, junk & 15);
  }
  assert.equal(outside(), before);
  recount([sender, receiver, third]);
});

test('XSA-295: a guest that changes a tail’s word all the time makes Xen try no more than five times', () => {
  const { sender, receiver, word } = raw(true);
  const [first, second] = [join(sender, receiver), join(sender, receiver)];
  sender.ports.events.send(first.near);
  const original = Atomics.compareExchange;
  let tries = 0;
  // Before each attempt the guest flips MASKED, as another of its processors could.
  const restless = (array: Int32Array, index: number, before: number, after: number): number => {
    if (before & EVTCHN_FIFO_LINKED) {
      tries++;
      word[first.far] ^= EVTCHN_FIFO_MASKED;
    }
    return original(array, index, before, after);
  };
  Atomics.compareExchange = restless as typeof Atomics.compareExchange;
  try {
    assert.equal(sender.ports.events.send(second.near), 0);
  } finally {
    Atomics.compareExchange = original;
  }
  assert.equal(tries, 5);
  assert.equal(word[first.far] & (EVTCHN_FIFO_BUSY | EVTCHN_FIFO_LINK_MASK), 0);
});

test('H26: XSA-344: 131071 ports, and then ENOSPC for every call that needs one; the end gives all of it back', () => {
  const xen = Xen.boot(16 << 20, 16 << 20, false);
  const small = addDomain(xen, 3);
  const before = xen.free;
  const domain = addDomain(xen, 2, { memory: 256 * 4096, maxEventChannels: EVTCHN_FIFO_PORTS - 1 });
  const { events, memory } = domain.ports;
  assert.equal(events.useFifo(memory), 0);
  for (let port = 1; port < EVTCHN_FIFO_PORTS; port++)
    if (events.allocateUnbound(small.id) !== port) assert.fail(`port ${port}`);
  assert.equal(events.allocateUnbound(small.id), ENOSPC);
  assert.equal(xen.events.bindVirq(domain.record, 0, 0), ENOSPC);
  assert.equal(xen.events.bindIpi(domain.record, 0), ENOSPC);
  assert.equal(xen.events.expandArray(domain.record, 200), ENOSPC);
  const near = small.ports.events.bindInterdomain(domain.id, (EVTCHN_FIFO_PORTS - 1) as EventPort);
  let heard = 0;
  events.onEvent((EVTCHN_FIFO_PORTS - 1) as EventPort, () => heard++);
  small.ports.events.send(near);
  events.poll();
  assert.equal(heard, 1);
  let slices = 0;
  for (const _ of xen.destroyDomain(2)) slices++;
  assert.ok(slices > EVTCHN_FIFO_PORTS / 64);
  assert.deepEqual(xen.free, before);
});

test('a kernel without a page for its control blocks or event words stays as it was, and closes what it opened', () => {
  const xen = bootTestMachine();
  const sender = addDomain(xen, 1);
  const receiver = addDomain(xen, 2, { memory: 2 * 4096 });
  const { events, memory } = receiver.ports;
  const taken = memory.allocatePages(2) ?? assert.fail();
  assert.equal(events.useFifo(memory), ENOMEM);
  assert.ok(events.allocateUnbound(sender.id) > 0);
  memory.freePages(taken, 1);
  assert.equal(events.useFifo(memory), 0);
  assert.equal(memory.pagesFree, 0);
  assert.equal(events.allocateUnbound(sender.id), ENOMEM);
  recount([sender, receiver]);
  memory.freePages(taken + 4096, 1);
  assert.equal(events.allocateUnbound(sender.id), 2);
});
