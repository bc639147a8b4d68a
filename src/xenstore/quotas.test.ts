// Quotas: each is enforced, also by way of a transaction; a refusal changes nothing; the accounts are right.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Talk } from '../../test/support/xenstore.ts';
import * as xs from '../abi/xenstore.ts';
import type { QuotaName } from './quotas.ts';
import { Store } from './store.ts';

/** Domain 0 and guest 1, who owns its home, under the given quotas. */
function talks(limits: Partial<Record<QuotaName, number>> = {}, now = () => 0) {
  const store = new Store({ limits, now });
  const tools = new Talk(store, 0);
  const guest = new Talk(store, 1);
  tools.ask(xs.XS_MKDIR, '/local/domain/1\0');
  tools.ask(xs.XS_SET_PERMS, '/local/domain/1\0n1\0');
  return { store, tools, guest, domain: store.domains.find(1)! };
}

function assertAccounts(store: Store): void {
  for (const [domain, counted] of store.recount())
    assert.deepEqual(domain.usage, counted, `domain ${domain.id}`);
}

const start = (talk: Talk) => Number(talk.ask(xs.XS_TRANSACTION_START, '\0').slice(0, -1));

test('X8 nodes: no more than the quota, whether one by one, with parents, or by a transaction', () => {
  const { store, tools, guest, domain } = talks({ nodes: 5 });
  assert.equal(guest.ask(xs.XS_WRITE, 'a/b\0x'), 'OK\0');
  assert.equal(guest.ask(xs.XS_WRITE, 'c/d/e\0x'), 'ENOSPC');
  assert.equal(domain.usage.nodes, 3, 'all or nothing');
  const id = start(guest);
  assert.equal(guest.ask(xs.XS_WRITE, 't1\0x', id), 'OK\0');
  assert.equal(guest.ask(xs.XS_WRITE, 't2\0x', id), 'OK\0');
  assert.equal(guest.ask(xs.XS_WRITE, 't3\0x', id), 'ENOSPC');
  assert.equal(guest.ask(xs.XS_WRITE, 'between\0x'), 'OK\0');
  assert.equal(guest.ask(xs.XS_TRANSACTION_END, 'T\0', id), 'EAGAIN', 'the home has another child');
  const [first, second] = [start(guest), start(guest)];
  assert.equal(guest.ask(xs.XS_WRITE, 'a/x\0x', first), 'OK\0');
  assert.equal(guest.ask(xs.XS_WRITE, 'between/x\0x', second), 'OK\0');
  assert.equal(guest.ask(xs.XS_TRANSACTION_END, 'T\0', first), 'OK\0');
  assert.equal(guest.ask(xs.XS_TRANSACTION_END, 'T\0', second), 'ENOSPC');
  assert.equal(domain.usage.nodes, 5);
  assert.equal(tools.ask(xs.XS_WRITE, '/local/domain/1/by-tools\0x'), 'OK\0', 'domain 0 is exempt');
  assert.equal(guest.ask(xs.XS_RM, 'a\0'), 'OK\0');
  assert.equal(guest.ask(xs.XS_WRITE, 'a\0x'), 'OK\0');
  assertAccounts(store);
});

test('X8 a refused change in a transaction leaves the rest of it usable, and its accounts right', () => {
  const { store, guest, domain } = talks({ nodes: 3 });
  const id = start(guest);
  assert.equal(guest.ask(xs.XS_WRITE, 'a/b/c\0x', id), 'ENOSPC');
  assert.equal(guest.ask(xs.XS_WRITE, 'a/b\0x', id), 'OK\0');
  assert.equal(guest.ask(xs.XS_TRANSACTION_END, 'T\0', id), 'OK\0');
  assert.equal(domain.usage.nodes, 3);
  assertAccounts(store);
});

test('X8 memory: values, watches and transactions together', () => {
  const { store, guest, domain } = talks({ memory: 6000, 'node-size': 0 });
  assert.equal(guest.ask(xs.XS_WRITE, `a\0${'x'.repeat(2000)}`), 'OK\0');
  assert.equal(guest.ask(xs.XS_WATCH, `a\0${'t'.repeat(2000)}\0`), 'OK\0');
  assert.equal(guest.ask(xs.XS_WATCH, `a\0${'u'.repeat(2000)}\0`), 'ENOSPC');
  assert.equal(guest.ask(xs.XS_WRITE, `b\0${'x'.repeat(2000)}`), 'ENOSPC');
  assert.equal(guest.ask(xs.XS_WRITE, `a\0${'x'.repeat(2100)}`), 'OK\0');
  const id = start(guest);
  assert.equal(guest.ask(xs.XS_WRITE, `a\0${'x'.repeat(2200)}`, id), 'ENOSPC', 'old and new are both held');
  assert.ok(domain.usage.memory <= 6000);
  assertAccounts(store);
  assert.equal(guest.ask(xs.XS_TRANSACTION_END, 'F\0', id), 'OK\0');
  assert.equal(guest.ask(xs.XS_RESET_WATCHES, '\0'), 'OK\0');
  assert.equal(guest.ask(xs.XS_WRITE, `b\0${'x'.repeat(2000)}`), 'OK\0');
  assertAccounts(store);
});

test('X8 a node is charged to its owner by its path, its value and its permissions', () => {
  const { guest, domain } = talks();
  const charged = (type: number, payload: string) => {
    const before = domain.usage.memory;
    assert.equal(guest.ask(type, payload), 'OK\0');
    return domain.usage.memory - before;
  };
  const empty = charged(xs.XS_WRITE, 'a\0');
  assert.ok(empty > '/local/domain/1/a'.length);
  assert.equal(charged(xs.XS_WRITE, 'a-longer-name\0'), empty + 'a-longer-name'.length - 1);
  assert.equal(charged(xs.XS_WRITE, `a\0${'x'.repeat(50)}`), 50);
  assert.equal(charged(xs.XS_SET_PERMS, 'a\0n1\0r0\0'), 8);
  const watch = charged(xs.XS_WATCH, 'a\0t\0');
  assert.equal(charged(xs.XS_WATCH, 'a\0longer-token\0'), watch + 'longer-token'.length - 1);
});

test('X8 watches, transactions, nodes in a transaction, permissions, size of a value', () => {
  const { store, guest } = talks({
    watches: 2,
    transactions: 2,
    'transaction-nodes': 3,
    permissions: 2,
    'node-size': 10,
  });
  assert.equal(guest.ask(xs.XS_WATCH, 'a\x001\0'), 'OK\0');
  assert.equal(guest.ask(xs.XS_WATCH, 'a\x002\0'), 'OK\0');
  assert.equal(guest.ask(xs.XS_WATCH, 'a\x003\0'), 'ENOSPC');
  const id = start(guest);
  start(guest);
  assert.equal(guest.ask(xs.XS_TRANSACTION_START, '\0'), 'ENOSPC');
  assert.equal(guest.ask(xs.XS_WRITE, 'a\0x', id), 'OK\0', 'looks at the node and its parent');
  assert.equal(guest.ask(xs.XS_READ, '/local/domain/1\0', id), '', 'known already');
  assert.equal(guest.ask(xs.XS_WRITE, 'a/b/c\0x', id), 'ENOSPC');
  assert.equal(guest.ask(xs.XS_SET_PERMS, 'a\0n1\0r0\0r2\0'), 'ENOSPC');
  assert.equal(guest.ask(xs.XS_WRITE, `a\0${'x'.repeat(11)}`), 'ENOSPC');
  assert.equal(guest.ask(xs.XS_WRITE, `a\0${'x'.repeat(10)}`), 'OK\0');
  assertAccounts(store);
});

test('X8 replies that are not read: the quota is served, then nothing more is looked at until all is read', () => {
  const { guest } = talks({ outstanding: 3 });
  const { connection } = guest;
  const request = new Uint8Array(32);
  new DataView(request.buffer).setUint32(0, xs.XS_GET_DOMAIN_PATH, true);
  new DataView(request.buffer).setUint32(12, 16, true);
  request.set(new TextEncoder().encode('1\0'.padEnd(16, '\0')), 16);
  const many = new Uint8Array(32 * 10);
  for (let i = 0; i < 10; i++) many.set(request, 32 * i);
  assert.equal(connection.receive(many), 32 * 3);
  assert.equal(connection.receive(many.subarray(96)), 0);
  connection.sent(1);
  assert.equal(connection.listening, false);
  assert.ok(guest.connection.take().length > 0);
  assert.equal(connection.receive(many.subarray(96)), 96);
});

test('X8 quotas by GET_QUOTA and SET_QUOTA: names, defaults for new domains, one domain, no limit', () => {
  const { store, tools, guest } = talks();
  const names = tools.ask(xs.XS_GET_QUOTA).slice(0, -1).split(' ');
  for (const name of ['nodes', 'watches', 'transactions', 'node-size', 'permissions'])
    assert.ok(names.includes(name), name);
  assert.equal(tools.ask(xs.XS_GET_QUOTA, 'nodes\0'), '1000\0');
  assert.equal(tools.ask(xs.XS_SET_QUOTA, 'nodes\x007\0'), 'OK\0');
  assert.equal(tools.ask(xs.XS_GET_QUOTA, '1\0nodes\0'), '1000\0', 'not for those that exist');
  store.introduce(2);
  assert.equal(tools.ask(xs.XS_GET_QUOTA, '2\0nodes\0'), '7\0');
  assert.equal(tools.ask(xs.XS_SET_QUOTA, '1\0nodes\x001\0'), 'OK\0');
  assert.equal(guest.ask(xs.XS_WRITE, 'a\0'), 'ENOSPC');
  assert.equal(tools.ask(xs.XS_SET_QUOTA, '1\0nodes\x000\0'), 'OK\0');
  for (let i = 0; i < 20; i++) assert.equal(guest.ask(xs.XS_WRITE, `k${i}\0`), 'OK\0');
  assert.equal(tools.ask(xs.XS_GET_QUOTA, 'no-such\0'), 'EINVAL');
  assert.equal(tools.ask(xs.XS_SET_QUOTA, '1\0nodes\0many\0'), 'EINVAL');
  assert.equal(guest.ask(xs.XS_GET_QUOTA), 'EACCES');
  assert.equal(guest.ask(xs.XS_SET_QUOTA, 'nodes\x009\0'), 'EACCES');
});

test('X11 made and removed in one transaction, or refused in the end: nothing is left, the accounts are right', () => {
  const { store, tools, guest, domain } = talks();
  const before = { ...domain.usage };
  const id = start(guest);
  guest.ask(xs.XS_WRITE, 'a/b/c\0x', id);
  guest.ask(xs.XS_RM, 'a\0', id);
  assert.equal(guest.ask(xs.XS_TRANSACTION_END, 'T\0', id), 'OK\0');
  assert.deepEqual(domain.usage, before);
  assert.equal(guest.ask(xs.XS_READ, 'a\0'), 'ENOENT');

  tools.ask(xs.XS_WRITE, '/local/domain/1/seen\0x');
  const usage = { ...domain.usage };
  const failing = start(guest);
  guest.ask(xs.XS_READ, 'seen\0', failing);
  for (let i = 0; i < 10; i++) guest.ask(xs.XS_WRITE, `n${i}\0x`, failing);
  guest.ask(xs.XS_RM, 'seen\0', failing);
  tools.ask(xs.XS_WRITE, '/local/domain/1/seen\0y');
  assert.equal(guest.ask(xs.XS_TRANSACTION_END, 'T\0', failing), 'EAGAIN');
  assert.equal(guest.ask(xs.XS_TRANSACTION_END, 'T\0', failing), 'ENOENT', 'it is gone');
  assert.deepEqual(domain.usage, usage);
  assert.equal(guest.ask(xs.XS_DIRECTORY, '/local/domain/1\0'), 'seen\0');
  assertAccounts(store);
});

test('X8 X11 whatever guests do, no quota is exceeded and the accounts equal a recount', () => {
  const limits = {
    nodes: 6,
    watches: 2,
    transactions: 2,
    'transaction-nodes': 5,
    memory: 2000,
    permissions: 2,
  };
  const path = fc.constantFrom('a', 'a/b', 'a/b/c', 'd', '/local/domain/1', '/local/domain/2/a');
  const request = fc.oneof(
    fc.record({
      type: fc.constantFrom(xs.XS_READ, xs.XS_MKDIR, xs.XS_RM),
      payload: path.map((p) => `${p}\0`),
    }),
    fc.record({
      type: fc.constant(xs.XS_WRITE),
      payload: fc.tuple(path, fc.nat(400)).map(([p, n]) => `${p}\0${'x'.repeat(n)}`),
    }),
    fc.record({
      type: fc.constant(xs.XS_SET_PERMS),
      payload: fc.tuple(path, fc.constantFrom('n1\0', 'n1\0b2\0', 'n2\0b1\0')).map(([p, l]) => `${p}\0${l}`),
    }),
    fc.record({ type: fc.constant(xs.XS_WATCH), payload: path.map((p) => `${p}\0${p}\0`) }),
    fc.record({ type: fc.constant(xs.XS_UNWATCH), payload: path.map((p) => `${p}\0${p}\0`) }),
    fc.record({ type: fc.constant(xs.XS_TRANSACTION_START), payload: fc.constant('\0') }),
    fc.record({ type: fc.constant(xs.XS_TRANSACTION_END), payload: fc.constantFrom('T\0', 'T\0', 'F\0') }),
    fc.record({ type: fc.constant(xs.XS_RESET_WATCHES), payload: fc.constant('\0') }),
  );
  const step = fc.record({
    request,
    from: fc.constantFrom(0, 1, 1),
    transaction: fc.constantFrom(0, 0, 1, 2, 3, 4),
  });
  fc.assert(
    fc.property(fc.array(step, { minLength: 10, maxLength: 60 }), (steps) => {
      let time = 0;
      const { store, tools, guest: one } = talks(limits, () => (time += 1000));
      const two = new Talk(store, 2);
      tools.ask(xs.XS_MKDIR, '/local/domain/2\0');
      tools.ask(xs.XS_SET_PERMS, '/local/domain/2\0n2\0b1\0');
      for (const { request, from, transaction } of steps) {
        const { type, payload } = request;
        [one, two][from]!.ask(type, payload, type === xs.XS_TRANSACTION_START ? 0 : transaction);
        assertAccounts(store);
        for (const id of [1, 2]) {
          const { usage } = store.domains.find(id)!;
          assert.ok(usage.nodes <= limits.nodes && usage.watches <= limits.watches);
          assert.ok(usage.memory <= limits.memory && usage.transactions <= limits.transactions);
        }
      }
    }),
    { seed: 8, numRuns: 400 },
  );
});

test('X15 a guest that keeps writing is slowed down while a transaction of somebody else is open', () => {
  let time = 0;
  const { tools, guest } = talks({}, () => time);
  for (let i = 0; i < 100; i++) guest.ask(xs.XS_WRITE, 'k\0x');
  assert.equal(guest.connection.listening, true, 'nobody is disturbed');
  const id = start(tools);
  let writes = 0;
  while (guest.connection.listening && writes < 100) {
    guest.ask(xs.XS_WRITE, 'k\0x');
    writes++;
  }
  assert.equal(writes, 11);
  assert.equal(guest.connection.receive(new Uint8Array(16)), 0, 'not listened to');
  assert.equal(tools.ask(xs.XS_READ, '/local/domain/1/k\0', id), 'x', 'others are');
  for (let i = 0; i < 20; i++) tools.ask(xs.XS_WRITE, '/k\0x');
  assert.equal(tools.connection.delay, 0, 'nor is domain 0 ever slowed down');
  time += guest.connection.delay;
  assert.equal(guest.connection.listening, true);
  guest.ask(xs.XS_WRITE, 'k\0x');
  assert.equal(guest.connection.listening, false);
});

test('X15 commits count as changes, and all guests share the rate', () => {
  let time = 0;
  const { store, tools, guest } = talks({}, () => time);
  start(tools);
  for (let commits = 0; guest.connection.listening && commits < 100; commits++) {
    const id = start(guest);
    guest.ask(xs.XS_WRITE, 'k\0x', id);
    guest.ask(xs.XS_TRANSACTION_END, 'T\0', id);
  }
  const alone = guest.connection.delay;
  assert.ok(alone > 0);
  for (let id = 2; id <= 4; id++) store.introduce(id);
  assert.equal(guest.connection.delay, 4 * alone);
  time += 3600_000;
  assert.equal(guest.connection.delay, 0);
  let burst = 0;
  for (; guest.connection.listening && burst < 100; burst++) guest.ask(xs.XS_WRITE, 'k\0x');
  assert.equal(burst, 11, 'credit is not hoarded');
});
