// Invariants 12, 27 and 28 while domains come and go: random guests do whatever the wire allows, in and outside
// of transactions, and are released and introduced again under the same ids in between.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { message, Talk } from '../../test/support/xenstore.ts';
import * as xs from '../abi/xenstore.ts';
import type { Domain } from './domains.ts';
import { Store } from './store.ts';

const GUESTS = [1, 2];
const LIMITS = {
  nodes: 8,
  watches: 4,
  transactions: 3,
  'transaction-nodes': 12,
  memory: 9000,
  events: 6,
  outstanding: 4,
};
/** Bytes of the longest message. */
const MESSAGE = xs.xsdSockmsg.size + xs.XENSTORE_PAYLOAD_MAX;

type Step =
  | { readonly kind: 'release' | 'introduce' | 'reconnect' | 'read'; readonly guest: number }
  | { readonly kind: 'quota'; readonly guest: number; readonly nodes: number }
  | {
      readonly kind: 'ask';
      readonly from: number;
      readonly inside: number;
      readonly request: readonly [number, string];
    };

const guest = fc.constantFrom(...GUESTS);
const path = fc.constantFrom(
  '/s',
  '/s/a',
  '/local/domain/1/a',
  '/local/domain/1/a/b',
  '/local/domain/2/a',
  'a',
  'k',
);
const list = fc.constantFrom('n0\0b1\0b2\0', 'n1\0b2\0', 'n2\0r1\0', 'b1\0', 'r0\0w2\0', 'n0\0r32757\0');
const request = fc.oneof(
  fc.tuple(
    fc.constant(xs.XS_WRITE),
    fc.tuple(path, fc.nat(2000)).map(([name, length]) => `${name}\0${'x'.repeat(length)}`),
  ),
  fc.tuple(
    fc.constantFrom(xs.XS_READ, xs.XS_RM, xs.XS_MKDIR),
    path.map((name) => `${name}\0`),
  ),
  fc.tuple(
    fc.constant(xs.XS_SET_PERMS),
    fc.tuple(path, list).map((strings) => strings.join('\0')),
  ),
  fc.tuple(
    fc.constantFrom(xs.XS_WATCH, xs.XS_UNWATCH),
    fc.tuple(path, fc.constantFrom('t', 'u'.repeat(1500))).map(([name, token]) => `${name}\0${token}\0`),
  ),
  fc.constantFrom<[number, string]>(
    [xs.XS_TRANSACTION_START, '\0'],
    [xs.XS_TRANSACTION_END, 'T\0'],
    [xs.XS_TRANSACTION_END, 'F\0'],
    [xs.XS_RESET_WATCHES, '\0'],
  ),
);
const ask: fc.Arbitrary<Step> = fc.record({
  kind: fc.constant('ask'),
  from: fc.constantFrom(0, 1, 1, 2, 2),
  inside: fc.constantFrom(0, 0, 1, 2),
  request,
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: ask },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('read'), guest }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('release', 'introduce', 'reconnect'), guest }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('quota'), guest, nodes: fc.constantFrom(2, 8) }) },
);

/** A store, and a client of each domain that is there. */
class Bench {
  time = 0;
  readonly store = new Store({ limits: LIMITS, now: () => (this.time += 1000) });
  readonly talks = new Map<number, Talk>();
  /** Domains that were released in the middle of a transaction. */
  cutOff = 0;

  constructor() {
    this.talks.set(0, new Talk(this.store, 0));
    this.tools(xs.XS_WRITE, '/s\0');
    this.tools(xs.XS_SET_PERMS, '/s\0b0\0');
    for (const id of GUESTS) this.run({ kind: 'introduce', guest: id });
  }

  tools(type: number, payload: string): string {
    return this.talks.get(0)!.ask(type, payload);
  }

  run(each: Step): void {
    if (each.kind === 'ask') this.ask(each.from, each.inside, each.request);
    else if (each.kind === 'quota') this.tools(xs.XS_SET_QUOTA, `${each.guest}\0nodes\0${each.nodes}\0`);
    else if (each.kind === 'introduce') this.introduce(each.guest);
    else if (each.kind === 'reconnect') this.talks.get(each.guest)?.connection.reset();
    else if (each.kind === 'read') this.talks.get(each.guest)?.read();
    else this.release(each.guest);
  }

  /** What a guest asks is not always read: its replies and events then wait, to a bound. */
  ask(from: number, inside: number, [type, payload]: readonly [number, string]): void {
    const transaction = type === xs.XS_TRANSACTION_START ? 0 : inside;
    if (from === 0) this.talks.get(0)!.ask(type, payload, transaction);
    else this.talks.get(from)?.connection.receive(message(type, payload, 1, transaction));
  }

  introduce(id: number): void {
    if (this.talks.has(id)) return;
    this.talks.set(id, new Talk(this.store, id));
    this.tools(xs.XS_WRITE, `/local/domain/${id}\0`);
    this.tools(xs.XS_SET_PERMS, `/local/domain/${id}\0n${id}\0`);
  }

  release(id: number): void {
    if (!this.talks.delete(id)) return;
    if (this.store.domains.find(id)!.usage.transactions > 0) this.cutOff++;
    assert.equal(this.tools(xs.XS_RELEASE, `${id}\0`), 'OK\0');
  }

  /** Every account is what a count from scratch finds, and nothing refers to who is no more. */
  check(): void {
    const { store } = this;
    const alive = new Set<Domain>(store.domains);
    for (const [domain, counted] of store.recount())
      assert.deepEqual(domain.usage, counted, `domain ${domain.id}`);
    for (const each of store.paths())
      for (const { domain } of store.get(each)!.permissions)
        assert.ok(alive.has(domain), `${each} has an entry for a domain ${domain.id} that has gone`);
    for (const { domain } of store.transactions) assert.ok(alive.has(domain));
    assert.equal([...this.talks.values()].filter((talk) => talk.ended).length, 0);
    for (const id of GUESTS) if (this.talks.has(id)) this.checkBounds(id);
  }

  checkBounds(id: number): void {
    const { usage, limits } = this.store.domains.find(id)!;
    const { connection } = this.talks.get(id)!;
    assert.ok(usage.watches <= limits.watches && usage.transactions <= limits.transactions);
    assert.ok(connection.subscriber.waiting <= limits.events + limits.watches, 'events that wait');
    assert.ok(connection.peek().length <= limits.outstanding * MESSAGE + 2 * MESSAGE, 'bytes that wait');
  }
}

test('12 27 28: while domains come and go the accounts equal a recount, nobody is remembered, all is bounded', () => {
  let cutOff = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 40, maxLength: 150 }), (steps) => {
      const bench = new Bench();
      for (const each of steps) {
        bench.run(each);
        bench.check();
      }
      cutOff += bench.cutOff;
    }),
    { seed: 1227, numRuns: 300 },
  );
  assert.ok(cutOff > 30, `only ${cutOff} domains were released in the middle of a transaction`);
});
