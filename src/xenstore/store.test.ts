// The store as such: domains that come and go, trees as deep as paths allow, the root like any node.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Talk } from '../../test/support/xenstore.ts';
import fc from 'fast-check';
import {
  XS_RM,
  XS_SET_PERMS,
  XS_TRANSACTION_END,
  XS_TRANSACTION_START,
  XS_WATCH,
  XS_WRITE,
} from '../abi/xenstore.ts';
import { XenstoreError } from '../xen/xenstore.ts';
import { describe, rightsOf } from './permissions.ts';
import { Store } from './store.ts';
import { Subscriber } from './subscriber.ts';
import { Transaction } from './transactions.ts';

const none = new Uint8Array(0);
const bytes = (text: string) => new TextEncoder().encode(text);
const refused = (code: string) => (error: unknown) => error instanceof XenstoreError && error.code === code;

/** A store in which each guest owns its home, and the operations of domain 0 and of the guests. */
function storeWith(...guests: number[]) {
  const store = new Store();
  const tools = store.access(store.domains.control);
  for (const id of guests) addGuest(store, id);
  return { store, tools, guest: (id: number) => store.access(store.domains.find(id)!) };
}

function addGuest(store: Store, id: number): void {
  const tools = store.access(store.domains.control);
  store.introduce(id);
  tools.makeDirectory(`/local/domain/${id}`);
  tools.setPermissions(`/local/domain/${id}`, [{ domain: id, access: 'n' }]);
}

function assertAccounts(store: Store): void {
  for (const [domain, counted] of store.recount())
    assert.deepEqual(domain.usage, counted, `domain ${domain.id}`);
}

test('domain 0 is there from the start', () => {
  assert.equal(new Store().domains.control.introduced, true);
});

test('X10 a domain that takes a used id finds nothing of its predecessor: no nodes, no rights, no watches', () => {
  const { store, tools, guest } = storeWith(1, 2);
  guest(1).write('mine', bytes('1'));
  guest(1).setPermissions('mine', [
    { domain: 1, access: 'n' },
    { domain: 2, access: 'b' },
  ]);
  tools.write('/shared', bytes('s'));
  tools.setPermissions('/shared', [
    { domain: 0, access: 'n' },
    { domain: 2, access: 'b' },
  ]);
  tools.write('/given', none);
  tools.setPermissions('/given', [{ domain: 2, access: 'n' }]);
  const before = store.domains.find(2)!;
  const talk = new Talk(store, 2);
  talk.ask(XS_WATCH, '/shared\0t\0');

  store.release(before);
  addGuest(store, 2);

  assert.notEqual(store.domains.find(2), before);
  assert.ok(store.domains.find(2)!.generation > before.generation);
  assert.throws(() => guest(2).read('/local/domain/1/mine'), refused('EACCES'));
  assert.throws(() => guest(2).write('/shared', none), refused('EACCES'));
  assert.throws(() => tools.read('/given'), refused('ENOENT'));
  assert.deepEqual(describe(tools.permissions('/shared').permissions), [{ domain: 0, access: 'n' }]);
  assert.deepEqual(store.domains.find(2)!.usage, store.recount().get(store.domains.find(2)!));
  assert.equal(talk.ended, true);
  assert.equal(store.watches.size, 0);
  assertAccounts(store);
});

test('12 X10 whatever happened before, the next holder of an id can do what a domain that never was could', () => {
  const path = fc.constantFrom(
    '/a',
    '/a/b',
    '/local/domain/1',
    '/local/domain/1/k',
    '/local/domain/2',
    '/local/domain/2/k',
  );
  const list = fc.constantFrom('n0\0b2\0', 'n2\0r1\0', 'n1\0r2\0', 'b1\0', 'r0\0w2\0b1\0');
  const request = fc.oneof(
    fc.tuple(
      fc.constant(XS_WRITE),
      path.map((each) => `${each}\0value`),
    ),
    fc.tuple(
      fc.constant(XS_RM),
      path.map((each) => `${each}\0`),
    ),
    fc.tuple(
      fc.constant(XS_SET_PERMS),
      fc.tuple(path, list).map((each) => each.join('\0')),
    ),
    fc.tuple(
      fc.constant(XS_WATCH),
      path.map((each) => `${each}\0token\0`),
    ),
    fc.tuple(fc.constant(XS_TRANSACTION_START), fc.constant('\0')),
  );
  const step = fc.record({ from: fc.constantFrom(0, 0, 1, 2), inside: fc.constantFrom(0, 0, 1), request });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), fc.array(step, { maxLength: 8 }), (before, between) => {
      const store = new Store({ now: () => 0 });
      const talks = [0, 1, 2].map((id) => new Talk(store, id));
      for (const id of [1, 2]) addGuest(store, id);
      const run = ({ from, inside, request: [type, payload] }: (typeof before)[number]) =>
        talks[from]!.ask(type, payload, type === XS_TRANSACTION_START ? 0 : inside);
      for (const each of before) run(each);
      store.release(store.domains.find(2)!);
      for (const each of between) if (each.from === 1) run(each);
      for (const talk of talks.slice(0, 2)) talk.ask(XS_TRANSACTION_END, 'T\0', 1);
      const [reborn, never] = [store.introduce(2), store.introduce(9)];
      for (const each of store.paths()) {
        const { permissions } = store.get(each)!;
        assert.equal(rightsOf(reborn, permissions), rightsOf(never, permissions), each);
      }
      assert.deepEqual(reborn.usage, never.usage);
      assert.equal(reborn.clients.size, 0);
      assertAccounts(store);
    }),
    { seed: 12, numRuns: 500 },
  );
});

test('X10 rights given in a transaction to a domain that ends before the commit are not given to the next', () => {
  const { store, tools } = storeWith(2);
  const transaction = new Transaction(store, store.domains.control);
  transaction.nodes.write('/new', bytes('secret'));
  transaction.nodes.setPermissions('/new', [
    { domain: 0, access: 'n' },
    { domain: 2, access: 'r' },
  ]);
  store.release(store.domains.find(2)!);
  addGuest(store, 2);
  assert.equal(transaction.commit(), false);
  assert.throws(() => tools.read('/new'), refused('ENOENT'));
  assertAccounts(store);
});

test('X10 a guest cannot prepare rights for a domain that is not there yet', () => {
  const { store, tools, guest } = storeWith(1);
  guest(1).write('trap', none);
  guest(1).setPermissions('trap', [
    { domain: 1, access: 'n' },
    { domain: 9, access: 'r' },
  ]);
  addGuest(store, 9);
  assert.throws(() => guest(9).read('/local/domain/1/trap'), refused('EACCES'));
  tools.write('/ready', none);
  tools.setPermissions('/ready', [
    { domain: 0, access: 'n' },
    { domain: 10, access: 'r' },
  ]);
  addGuest(store, 10);
  assert.equal(guest(10).read('/ready').value.length, 0, 'the tools may: that is how guests are built');
});

test('X8 a guest cannot give its node to another domain, which would be charged for it', () => {
  const { store, guest } = storeWith(1, 2);
  guest(1).write('mine', bytes('1'));
  for (const taker of [0, 2])
    assert.throws(
      () =>
        guest(1).setPermissions('mine', [
          { domain: taker, access: 'n' },
          { domain: 1, access: 'b' },
        ]),
      refused('EPERM'),
    );
  assert.deepEqual(describe(guest(1).permissions('mine').permissions), [{ domain: 1, access: 'n' }]);
  assertAccounts(store);
});

test('X10 a device model loses the rights of its guest when the guest ends', () => {
  const { store, guest } = storeWith(1, 2);
  store.domains.find(2)!.target = store.domains.find(1);
  guest(2).write('/local/domain/1/by-2', none);
  store.release(store.domains.find(1)!);
  addGuest(store, 1);
  assert.throws(() => guest(2).write('/local/domain/1/again', none), refused('EACCES'));
});

test('releasing a domain removes its nodes with all below them, tells the watchers, keeps the root', () => {
  const { store, tools, guest } = storeWith(1, 2);
  for (const path of ['/', '@releaseDomain']) tools.setPermissions(path, [{ domain: 1, access: 'r' }]);
  guest(1).write('dir/child', none);
  const watcher = new Subscriber(store.domains.control, store.now, () => undefined);
  store.watches.add(watcher, '/local/domain/1', 'home');
  store.watches.add(watcher, '@releaseDomain', 'gone');
  watcher.clear();
  store.release(store.domains.find(1)!);
  const heard = [watcher.take(), watcher.take(), watcher.take()].map((event) => event?.path);
  assert.deepEqual(heard, ['/local/domain/1', '@releaseDomain', undefined]);
  assert.deepEqual(tools.read('/local/domain').children.all(), ['2']);
  for (const path of ['/', '@releaseDomain']) assert.equal(store.get(path)!.permissions[0].domain.id, 0);
  assertAccounts(store);
});

test('X12 a tree as deep as a path can be is made, walked, released and removed without recursion', () => {
  const { store, tools } = storeWith(1);
  store.domains.find(1)!.limits.nodes = 0;
  store.domains.find(1)!.limits.memory = 0;
  const deep = `/local/domain/1${'/d'.repeat(1500)}`;
  store.access(store.domains.find(1)!).write(deep, bytes('bottom'));
  assert.equal(store.recount().get(store.domains.find(1)!)!.nodes, 1501);
  store.release(store.domains.find(1)!);
  assert.throws(() => tools.read('/local/domain/1'), refused('ENOENT'));

  tools.write(`/x${'/d'.repeat(1500)}`, none);
  const transaction = new Transaction(store, store.domains.control);
  transaction.nodes.remove('/x');
  assert.equal(transaction.commit(), true);
  assertAccounts(store);
  assert.deepEqual([...store.paths()].sort(), [
    '/',
    '/local',
    '/local/domain',
    '@introduceDomain',
    '@releaseDomain',
  ]);
});

test('X14 the root is protected like any node, and nobody removes it', () => {
  const { store, tools, guest } = storeWith(1);
  assert.throws(() => guest(1).remove('/'), refused('EACCES'));
  assert.throws(() => guest(1).setPermissions('/', [{ domain: 1, access: 'b' }]), refused('EACCES'));
  assert.throws(() => guest(1).write('/', none), refused('EACCES'));
  assert.throws(() => tools.remove('/'), refused('EINVAL'));
  tools.setPermissions('/', [
    { domain: 0, access: 'n' },
    { domain: 1, access: 'w' },
  ]);
  assert.throws(() => guest(1).remove('/'), refused('EINVAL'));
  assertAccounts(store);
});

test('X16 a frontend cannot write what its backend or the toolstack owns, as libxl sets permissions', () => {
  const { store, tools, guest } = storeWith(1, 2);
  const backend = '/local/domain/2/backend/virtio/1/0';
  const frontend = '/local/domain/1/device/virtio/0';
  tools.write(`${backend}/frontend-id`, bytes('1'));
  tools.write(`${frontend}/backend-id`, bytes('2'));
  tools.write('/libxl/1/device/virtio/0/backend', bytes(backend));
  for (const [path, owner, peer] of [
    [backend, 2, 1],
    [`${backend}/frontend-id`, 2, 1],
    [frontend, 1, 2],
    [`${frontend}/backend-id`, 1, 2],
  ] as const)
    tools.setPermissions(path, [
      { domain: owner, access: 'n' },
      { domain: peer, access: 'r' },
    ]);
  assert.deepEqual(guest(1).read(`${backend}/frontend-id`).value, bytes('1'));
  assert.throws(() => guest(1).write(`${backend}/frontend-id`, bytes('0')), refused('EACCES'));
  assert.throws(() => guest(1).write(`${backend}/new`, none), refused('EACCES'));
  assert.throws(() => guest(1).remove(backend), refused('EACCES'));
  assert.throws(
    () => guest(1).setPermissions(`${backend}/frontend-id`, [{ domain: 1, access: 'b' }]),
    refused('EACCES'),
  );
  assert.throws(() => guest(2).write(`${frontend}/backend-id`, bytes('9')), refused('EACCES'));
  // What the frontend owns it may change to anything: so the toolstack has a copy where it may not even look.
  guest(1).write(`${frontend}/backend-id`, bytes('0'));
  assert.throws(() => guest(1).read('/libxl/1/device/virtio/0/backend'), refused('EACCES'));
  assert.deepEqual(tools.read('/libxl/1/device/virtio/0/backend').value, bytes(backend));
  assertAccounts(store);
});

test('an entry for any domain stands for those without an earlier one', () => {
  const { tools, guest } = storeWith(1, 2);
  tools.write('/public', bytes('p'));
  tools.setPermissions('/public', [
    { domain: 0, access: 'n' },
    { domain: 1, access: 'n' },
    { domain: 0x7ff5, access: 'r' },
  ]);
  assert.throws(() => guest(1).read('/public'), refused('EACCES'));
  assert.deepEqual(guest(2).read('/public').value, bytes('p'));
  assert.throws(() => tools.setPermissions('/public', [{ domain: 0x7ff5, access: 'r' }]), refused('EINVAL'));
  assert.throws(() => tools.setPermissions('/public', [{ domain: 0x7ff1, access: 'r' }]), refused('EINVAL'));
});

test('special names have permissions and nothing else', () => {
  const { tools, guest } = storeWith(1);
  assert.deepEqual(describe(tools.permissions('@releaseDomain').permissions), [{ domain: 0, access: 'n' }]);
  assert.throws(() => guest(1).permissions('@releaseDomain'), refused('EACCES'));
  for (const act of [
    () => tools.read('@releaseDomain'),
    () => tools.write('@releaseDomain', none),
    () => tools.makeDirectory('@mine'),
    () => tools.remove('@releaseDomain'),
  ])
    assert.throws(act, refused('EINVAL'));
  assert.throws(() => tools.setPermissions('@other', [{ domain: 0, access: 'r' }]), refused('ENOENT'));
});
