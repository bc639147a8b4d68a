// What every implementation of the port src/xen/event-channels.ts must do, whoever joins the ends.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { EventChannels } from '../../src/xen/event-channels.ts';
import type { DomainId, EventPort } from '../../src/xen/ids.ts';

/** One side. */
export interface Side {
  readonly id: DomainId;
  readonly events: EventChannels;
  /** Handles the events that are pending. Returns whether there were any. */
  poll(): boolean;
}

/** Two sides that can reach each other; they may be one domain. */
export interface ChannelsUnderTest {
  readonly one: Side;
  readonly other: Side;
  /** An id that no domain has. */
  readonly nobody: DomainId;
  /** Gives back what it was made of. */
  close?(): void;
}

/** Handles all there is: binding may have raised an event that nobody has sent. */
function drain(...sides: Side[]): void {
  while (sides.some((side) => side.poll()));
}

/** A channel between the two, with the events that each end has had. */
function join({ one, other }: ChannelsUnderTest) {
  const port = one.events.allocateUnbound(other.id);
  assert.ok(port > 0, `a port, not ${port}`);
  const remote = other.events.bindInterdomain(one.id, port);
  assert.ok(remote > 0, `a port, not ${remote}`);
  const count = { one: 0, other: 0 };
  one.events.onEvent(port, () => count.one++);
  other.events.onEvent(remote, () => count.other++);
  drain(one, other);
  count.one = count.other = 0;
  return { port, remote, count };
}

/** Runs the contract. */
export function eventChannelsContract(name: string, make: () => ChannelsUnderTest): void {
  const using = (run: (made: ChannelsUnderTest) => void) => () => {
    const made = make();
    try {
      run(made);
    } finally {
      made.close?.();
    }
  };

  describe(`${name} sends as the port promises`, () => {
    test(
      'an event reaches the other end, and only that, in both directions',
      using((made) => {
        const { one, other } = made;
        const { port, remote, count } = join(made);
        assert.equal(one.events.send(port), 0);
        drain(one, other);
        assert.deepEqual(count, { one: 0, other: 1 });
        assert.equal(other.events.send(remote), 0);
        drain(one, other);
        assert.deepEqual(count, { one: 1, other: 1 });
      }),
    );

    test(
      'events that nobody has handled yet are one',
      using((made) => {
        const { one, other } = made;
        const { port, count } = join(made);
        for (let i = 0; i < 3; i++) one.events.send(port);
        drain(other);
        assert.ok(count.other >= 1 && count.other <= 2, `${count.other} events of three`);
        assert.equal(other.poll(), false);
      }),
    );

    test(
      'an event that is sent while its handler runs is not lost',
      using((made) => {
        const { one, other } = made;
        const { port, remote } = join(made);
        let left = 5;
        let handled = 0;
        other.events.onEvent(remote, () => {
          handled++;
          if (left-- > 0) one.events.send(port);
        });
        one.events.send(port);
        drain(other);
        assert.equal(handled, 6);
      }),
    );

    test(
      'channels are told apart',
      using((made) => {
        const channels = Array.from({ length: 5 }, () => join(made));
        for (const i of [3, 0]) made.one.events.send(channels[i].port);
        drain(made.one, made.other);
        assert.deepEqual(
          channels.map(({ count }) => count.other),
          [1, 0, 0, 1, 0],
        );
      }),
    );

    test(
      'without a handler nothing is called',
      using((made) => {
        const { one, other } = made;
        const { port, remote, count } = join(made);
        other.events.onEvent(remote, undefined);
        one.events.send(port);
        drain(other);
        assert.equal(count.other, 0);
      }),
    );

    test(
      'a port that is closed sends nothing and gets nothing, and the other end lives on',
      using((made) => {
        const { one, other } = made;
        const { port, remote, count } = join(made);
        assert.equal(one.events.close(port), 0);
        assert.ok(one.events.send(port) < 0);
        assert.ok(one.events.close(port) < 0);
        other.events.send(remote);
        drain(one, other);
        assert.equal(count.one, 0);
        assert.equal(other.events.close(remote), 0);
      }),
    );

    test(
      'H23: ports that do not exist, and domains that do not exist, are refused',
      using((made) => {
        const { one, other, nobody } = made;
        assert.ok(other.events.bindInterdomain(one.id, 4000 as EventPort) < 0);
        assert.ok(other.events.bindInterdomain(nobody, 1 as EventPort) < 0);
        assert.ok(one.events.send(4001 as EventPort) < 0);
        const { port } = join(made);
        assert.ok(other.events.bindInterdomain(one.id, port) < 0, 'a port that is bound already');
      }),
    );
  });
}
