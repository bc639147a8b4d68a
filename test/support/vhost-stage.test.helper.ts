// A stage for a frontend that lies: a backend in this process, a neighbour whom it serves as well, and a count of what
// is open, to which all must come back.

import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { firstByte, openThings, TestBackend } from './vhost-backend.test.helper.ts';
import { DiskGuest } from './vhost-guest.test.helper.ts';

/** Everything that stands round a liar. */
export class Stage {
  readonly backend: TestBackend;
  readonly t: TestContext;
  readonly #neighbour: DiskGuest;
  readonly #before: Record<string, number>;

  private constructor(t: TestContext, backend: TestBackend, neighbour: DiskGuest) {
    this.t = t;
    this.backend = backend;
    this.#neighbour = neighbour;
    this.#before = openThings();
  }

  static async set(t: TestContext, sealed = false): Promise<Stage> {
    const backend = await TestBackend.start(t, { disks: 2, queues: 2, sealed });
    const neighbour = backend.guest(t, 'disk1');
    assert.equal(neighbour.read(0)[0], firstByte(0));
    await backend.assertServes(t);
    return new Stage(t, backend, neighbour);
  }

  /** A session of two rings as far as `steps` messages of its beginning; all of them when left out. */
  liar(steps = Number.POSITIVE_INFINITY): DiskGuest {
    const guest = new DiskGuest(this.backend.connect(this.t), { queues: 2 });
    for (const [request, payload, fds] of guest.beginning().slice(0, steps))
      guest.frontend.send(request, payload, fds);
    return guest;
  }

  /** The backend has ended the connection, for that reason, and all is as it was before. */
  async assertSentAway(guest: DiskGuest, reason: RegExp, what: string): Promise<void> {
    assert.ok(guest.frontend.isClosed());
    const notice = await this.backend.sessionEnds();
    assert.match(notice.message, reason, what);
    assert.equal(notice.level, 'warn', what);
    guest.close();
    this.#assertUntouched(what);
  }

  /** The guest goes by itself, and all is as it was before. */
  async assertGone(guest: DiskGuest, what: string): Promise<void> {
    guest.close();
    const notice = await this.backend.sessionEnds();
    assert.match(notice.message, /has gone/, what);
    this.#assertUntouched(what);
  }

  #assertUntouched(what: string): void {
    assert.deepEqual(openThings(), this.#before, what);
    this.assertNeighbourServed(what);
  }

  /** The neighbour is served one request more. */
  assertNeighbourServed(what?: string): void {
    assert.equal(this.#neighbour.read(5)[0], firstByte(5), what);
  }
}
