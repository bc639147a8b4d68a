// 18: no wake-up is lost between a sender and a receiver, in both ABIs, at every place where one of them can be
// interrupted: before each atomic operation of the one, the other does all it has to do.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EventPort } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine } from '../domains.test.helper.ts';

type Step = () => void;
type AtomicName = 'load' | 'store' | 'add' | 'sub' | 'and' | 'or' | 'exchange' | 'compareExchange';
const NAMES: readonly AtomicName[] = [
  'load',
  'store',
  'add',
  'sub',
  'and',
  'or',
  'exchange',
  'compareExchange',
];

/** Runs `action`, and `other` before its atomic operation number `place`. Returns whether it had so many. */
function interrupted(action: Step, place: number, other: Step): boolean {
  const original = NAMES.map((name) => [name, Atomics[name]] as const);
  const restore = () => {
    for (const [name, operation] of original) Object.assign(Atomics, { [name]: operation });
  };
  let operations = 0;
  for (const [name, operation] of original) {
    const counted = (...values: unknown[]): unknown => {
      if (operations++ === place) {
        restore();
        other();
      }
      return Reflect.apply(operation, Atomics, values);
    };
    Object.assign(Atomics, { [name]: counted });
  }
  try {
    action();
  } finally {
    restore();
  }
  return operations >= place + 1;
}

/** Two senders and a receiver that sleeps whenever it has nothing to do. */
function makeScene(fifo: boolean) {
  const xen = bootTestMachine();
  const [one, two, receiver] = [1, 2, 3].map((id) => addDomain(xen, id, { vcpus: id === 3 ? 2 : 1 }));
  const { events, memory } = receiver.ports;
  if (fifo) assert.equal(events.useFifo(memory), 0);
  const work = [0, 0];
  const seen = [0, 0];
  const channels = [one, two].map((sender, index) => {
    const far = events.allocateUnbound(sender.id);
    const near = sender.ports.events.bindInterdomain(receiver.id, far);
    events.onEvent(far, () => {
      seen[index] = work[index];
    });
    return { near, far, sender };
  });
  // In FIFO a queue of each processor, so that a sender that is interrupted holds no lock that the other one needs.
  if (fifo) xen.events.bindVcpu(receiver.record, channels[1].far, 1);
  const send = (index: number) => () => {
    work[index]++;
    assert.equal(channels[index].sender.ports.events.send(channels[index].near as EventPort), 0);
  };
  const poll = () => {
    events.poll();
  };
  const check = (when: string) => {
    while (events.pending) events.poll();
    assert.deepEqual(seen, work, `${when}: everybody sleeps, and work is left`);
  };
  // Each port has found its queue.
  for (const index of [0, 1]) send(index)();
  check('at first');
  return { send, poll, check };
}

/** Interrupts `action` at every place in turn; returns how many there are. */
function everywhere(
  fifo: boolean,
  what: string,
  run: (scene: ReturnType<typeof makeScene>, place: number) => boolean,
): number {
  for (let place = 0; ; place++) {
    const fresh = makeScene(fifo);
    const reached = run(fresh, place);
    fresh.check(`${what}, place ${place}`);
    if (!reached) return place;
  }
}

for (const fifo of [false, true]) {
  const abi = fifo ? 'FIFO' : '2-level';

  test(`18: ${abi}: a receiver that polls in the middle of a send, at each of its places`, () => {
    for (const pendingBefore of [false, true]) {
      const places = everywhere(fifo, 'poll during send', ({ send, poll }, place) => {
        if (pendingBefore) send(1)();
        return interrupted(send(0), place, poll);
      });
      assert.ok(places >= 8, `${places} places`);
    }
  });

  test(`18: ${abi}: a sender that sends in the middle of a poll, at each of its places, once or twice`, () => {
    for (const sender of [0, 1]) {
      const places = everywhere(fifo, 'send during poll', ({ send, poll }, place) => {
        send(0)();
        return interrupted(poll, place, () => {
          send(sender)();
          send(1 - sender)();
        });
      });
      assert.ok(places >= 5, `${places} places`);
    }
  });

  test(`18: ${abi}: a send interrupted by a poll that is interrupted by another send, at every pair of places`, () => {
    let pairs = 0;
    for (let outer = 0, more = true; more; outer++) {
      for (let inner = 0, deeper = true; deeper; inner++) {
        const { send, poll, check } = makeScene(fifo);
        deeper = false;
        more = interrupted(send(0), outer, () => {
          deeper = interrupted(poll, inner, send(1));
        });
        check(`places ${outer} and ${inner}`);
        pairs++;
      }
    }
    assert.ok(pairs >= 20, `${pairs} pairs`);
  });
}
