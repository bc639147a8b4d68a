// Event channels between real threads, in both ABIs: no wake-up is lost, two ends that are closed at the same moment
// are both closed, and nothing of a channel that was closed reaches the next one on its port.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isMainThread } from 'node:worker_threads';
import { noTrace } from '../../../trace.ts';
import type { DomainId, EventPort } from '../../../xen/ids.ts';
import type { DomainEvents } from './domain-events.ts';
import { addDomain, bootTestMachine } from '../domains.test.helper.ts';
import { recount } from './recount.test.helper.ts';
import { meet, myPart, newStage, perform, type Stage } from '../threads.test.helper.ts';
import { sleepWhile } from '../waiting.ts';

const ROUNDS = 2000;
const CLOSINGS = 1000;
/**
 * A sleep ends early where a sender was overtaken between making its event pending and waking: the event has
 * been taken already. But no more than once for each sender in a row, so that this many sleeps without an
 * event, each longer than any delay of a loaded machine, are a wake-up that was lost.
 */
const IDLE_SLEEPS = 4;
const SLEEP_MILLISECONDS = 5000;

// Words of the stage.
const LOST = 0;
const TAKEN = 1;
const PORT = 2;
const LEFT_OVER = 3;
const FIFO = 20;
const STRAY = 21;
const DONE = 22;

/** Rounds in which a port is closed while somebody sends to it, and every how many of them all ports are. */
const RACES = 600;
const RESET_EVERY = 50;
/** More than a port can be. */
const ROUND = 4096;

/** Handles events until `done`. Returns false, and has counted it, when a wake-up was lost. */
function takeUntil(stage: Stage, events: DomainEvents, done: () => boolean): boolean {
  for (let idle = 0; !done(); ) {
    events.sleep(SLEEP_MILLISECONDS);
    idle = events.poll() ? 0 : idle + 1;
    if (idle < IDLE_SLEEPS) continue;
    Atomics.add(stage.words, LOST, 1);
    return false;
  }
  return true;
}

/** The kernel of a domain, with the ABI that the test is about. */
function portsOf(stage: Stage, id: number): DomainEvents {
  const { events, memory } = stage.xen.ports(id as DomainId, sleepWhile, noTrace);
  if (Atomics.load(stage.words, FIFO) !== 0 && events.useFifo(memory) !== 0)
    Atomics.add(stage.words, LOST, 1);
  return events;
}

/** Sends on `port` of domain `id` and waits for the answer, or, with `first` false, the other way round. */
function bounceEvents(stage: Stage, id: number, port: number, first: boolean): void {
  const events = portsOf(stage, id);
  let heard = 0;
  events.onEvent(port as EventPort, () => heard++);
  while (events.poll());
  meet(stage, 2);
  heard = 0;
  for (let round = 1; round <= ROUNDS; round++) {
    if (first) events.send(port as EventPort);
    if (!takeUntil(stage, events, () => heard >= round)) return;
    if (!first) events.send(port as EventPort);
  }
}

/** Two senders, whose ports lie in different words, and a receiver that answers each of them. */
function sendAndAwait(stage: Stage, id: number): void {
  const events = portsOf(stage, id);
  const port = Atomics.load(stage.words, PORT + id) as EventPort;
  let answered = 0;
  events.onEvent(port, () => answered++);
  while (events.poll());
  meet(stage, 3);
  answered = 0;
  for (let round = 1; round <= ROUNDS; round++) {
    events.send(port);
    if (!takeUntil(stage, events, () => answered >= round)) return;
  }
}

function answerBoth(stage: Stage): void {
  const events = portsOf(stage, 1);
  let left = 2 * ROUNDS;
  let ready = false;
  for (const sender of [2, 3]) {
    const port = Atomics.load(stage.words, PORT + 2 + sender) as EventPort;
    events.onEvent(port, () => {
      if (!ready) return;
      left--;
      events.send(port);
    });
  }
  while (events.poll());
  ready = true;
  meet(stage, 3);
  takeUntil(stage, events, () => left <= 0);
  Atomics.store(stage.words, TAKEN, 2 * ROUNDS - left);
}

/** Each round one thread makes a channel; both close their end at once. */
function closeEnds(stage: Stage, id: number): void {
  const events = portsOf(stage, id);
  for (let round = 0; round < CLOSINGS; round++) {
    if (id === 1) {
      const near = events.allocateUnbound(2 as DomainId);
      Atomics.store(stage.words, PORT, near);
    }
    meet(stage, 2);
    const port = id === 1 ? Atomics.load(stage.words, PORT) : undefined;
    const mine = port ?? events.bindInterdomain(1 as DomainId, Atomics.load(stage.words, PORT) as EventPort);
    meet(stage, 2);
    if (events.close(mine as EventPort) !== 0) Atomics.add(stage.words, LEFT_OVER, 1);
    meet(stage, 2);
    // Both are closed: the lowest port is free again, and closing it is refused.
    if (events.close(mine as EventPort) === 0) Atomics.add(stage.words, LEFT_OVER, 1);
    meet(stage, 2);
  }
}

/** Opens and closes a port again and again: for the one that sends, then for one that there is not. */
function openAndClose(stage: Stage): void {
  const { words, xen } = stage;
  let events = portsOf(stage, 1);
  meet(stage, 2);
  for (let round = 0; round < RACES; round++) {
    const isBindable = round % 2 === 0;
    const port = events.allocateUnbound((isBindable ? 2 : 3) as DomainId);
    let heard = 0;
    events.onEvent(port, () => heard++);
    // The round with it: the next channel may have the same port.
    if (isBindable) Atomics.store(words, PORT, round * ROUND + port);
    // The other one is now sending all the time; to the port of an odd round nobody can send.
    if (isBindable) takeUntil(stage, events, () => heard > 0);
    else for (let looks = 0; looks < 50; looks++) events.poll();
    if (!isBindable && heard > 0) Atomics.add(words, STRAY, heard);
    Atomics.store(words, PORT, 0);
    if (events.close(port) !== 0) Atomics.add(words, LEFT_OVER, 1);
    while (events.poll());
    if (round % RESET_EVERY !== 0) continue;
    if (xen.events.reset(xen.domain(1)) !== 0) Atomics.add(words, LEFT_OVER, 1);
    events = portsOf(stage, 1);
  }
  Atomics.store(words, DONE, 1);
}

/** Binds whatever port there is, and sends until it is gone. */
function bindAndSend(stage: Stage): void {
  const events = portsOf(stage, 2);
  const { words } = stage;
  meet(stage, 2);
  while (Atomics.load(words, DONE) === 0) {
    const offer = Atomics.load(words, PORT);
    if (offer === 0) continue;
    const near = events.bindInterdomain(1 as DomainId, (offer % ROUND) as EventPort);
    if (near < 0) continue;
    while (Atomics.load(words, PORT) === offer) events.send(near);
    events.close(near);
  }
}

if (isMainThread) {
  for (const fifo of [0, 1]) {
    const abi = fifo ? 'FIFO' : '2-level';

    test(`18: ${abi}: events bounce between two threads, and none is lost`, async () => {
      const xen = bootTestMachine(true);
      const [one, two] = [1, 2].map((id) => addDomain(xen, id).ports.events);
      const near = one.allocateUnbound(2 as DomainId);
      const far = two.bindInterdomain(1 as DomainId, near);
      assert.deepEqual([near, far], [1, 1]);
      const stage = newStage(xen);
      stage.words[FIFO] = fifo;
      await perform(import.meta.url, stage, ['ping', 'pong']);
      assert.equal(stage.words[LOST], 0);
    });

    test(`18: ${abi}: two threads that send to one receiver at once are both heard, every time`, async () => {
      const xen = bootTestMachine(true);
      const [receiver, ...senders] = [1, 2, 3].map((id) => addDomain(xen, id, { maxEventChannels: 4095 }));
      const stage = newStage(xen);
      stage.words[FIFO] = fifo;
      for (const sender of senders) {
        // Far apart, so that the two events meet in different words and selectors.
        for (let spread = 0; spread < 1000; spread++) receiver.ports.events.allocateUnbound(sender.id);
        const far = receiver.ports.events.allocateUnbound(sender.id);
        stage.words[PORT + sender.id] = sender.ports.events.bindInterdomain(receiver.id, far);
        stage.words[PORT + 2 + sender.id] = far;
      }
      await perform(import.meta.url, stage, ['answer', 'send 2', 'send 3']);
      assert.equal(stage.words[LOST], 0);
      assert.equal(stage.words[TAKEN], 2 * ROUNDS);
    });

    test(`H24: XSA-343: ${abi}: what is sent while a port is closed or reset reaches nobody who has it next`, async () => {
      const xen = bootTestMachine(true);
      const domains = [1, 2].map((id) => addDomain(xen, id));
      const stage = newStage(xen);
      stage.words[FIFO] = fifo;
      await perform(import.meta.url, stage, ['open and close', 'bind and send']);
      const { words } = stage;
      assert.deepEqual([words[STRAY], words[LEFT_OVER], words[LOST]], [0, 0, 0]);
      recount(domains);
    });
  }

  test('two ends that are closed at the same moment are both closed', async () => {
    const xen = bootTestMachine(true);
    addDomain(xen, 1);
    addDomain(xen, 2);
    const stage = newStage(xen);
    await perform(import.meta.url, stage, ['close 1', 'close 2']);
    assert.equal(stage.words[LEFT_OVER], 0);
  });
} else {
  const stage = myPart();
  if (stage.part === 'ping') bounceEvents(stage, 1, 1, true);
  else if (stage.part === 'pong') bounceEvents(stage, 2, 1, false);
  else if (stage.part === 'answer') answerBoth(stage);
  else if (stage.part === 'open and close') openAndClose(stage);
  else if (stage.part === 'bind and send') bindAndSend(stage);
  else if (stage.part.startsWith('send')) sendAndAwait(stage, Number(stage.part.slice(-1)));
  else closeEnds(stage, Number(stage.part.slice(-1)));
}
