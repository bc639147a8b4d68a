// Watches: what they hear and what they must not, and that a client which does not listen costs little.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Talk } from '../../test/support/xenstore.ts';
import {
  XS_MKDIR,
  XS_RM,
  XS_SET_PERMS,
  XS_TRANSACTION_END,
  XS_TRANSACTION_START,
  XS_UNWATCH,
  XS_WATCH,
  XS_WRITE,
} from '../abi/xenstore.ts';
import { Store } from './store.ts';
import { STALLED_MS } from './subscriber.ts';

/** Domain 0 and guest 1, who owns its home. */
function talks(options: ConstructorParameters<typeof Store>[0] = {}) {
  const store = new Store(options);
  const tools = new Talk(store, 0);
  const guest = new Talk(store, 1);
  tools.ask(XS_MKDIR, '/local/domain/1\0');
  tools.ask(XS_SET_PERMS, '/local/domain/1\0n1\0');
  return { store, tools, guest };
}

test('a watch is told once when it is registered, whether the path exists or not', () => {
  const { tools } = talks();
  assert.equal(tools.ask(XS_WATCH, '/nowhere\0t\0'), 'OK\0');
  assert.deepEqual(tools.events(), ['/nowhere t']);
});

test('the same path with the same token is EEXIST, with another token it is another watch', () => {
  const { tools } = talks();
  tools.ask(XS_WATCH, '/a\0t\0');
  assert.equal(tools.ask(XS_WATCH, '/a\0t\0'), 'EEXIST');
  assert.equal(tools.ask(XS_WATCH, '/a\0u\0'), 'OK\0');
  tools.events();
  tools.ask(XS_WRITE, '/a\0x');
  assert.deepEqual(tools.events(), ['/a t', '/a u']);
  assert.equal(tools.ask(XS_UNWATCH, '/a\0t\0'), 'OK\0');
  assert.equal(tools.ask(XS_UNWATCH, '/a\0t\0'), 'ENOENT');
  tools.ask(XS_WRITE, '/a\0y');
  assert.deepEqual(tools.events(), ['/a u']);
});

test('depth limits how far below a watch hears; it hears of the nearest node that came into being', () => {
  const { tools } = talks();
  tools.ask(XS_WATCH, '/a\0zero\x000\0');
  tools.ask(XS_WATCH, '/a\0one\x001\0');
  tools.ask(XS_WATCH, '/\0top\x001\0');
  tools.ask(XS_WATCH, '/a\0all\0');
  tools.events();
  tools.ask(XS_WRITE, '/a/b/c\0x');
  assert.deepEqual(tools.events(), ['/a zero', '/a/b one', '/a/b/c all', '/a top']);
  tools.ask(XS_WRITE, '/a/b/c\0y');
  assert.deepEqual(tools.events(), ['/a/b/c all']);
  tools.ask(XS_WRITE, '/a/b\0y');
  assert.deepEqual(tools.events(), ['/a/b one', '/a/b all']);
  assert.equal(tools.ask(XS_WATCH, '/a\0bad\0-1\0'), 'EINVAL');
});

test('a change of permissions is told to who could see the node before and to who can see it after', () => {
  const { tools, guest } = talks();
  tools.ask(XS_WRITE, '/k\0v');
  guest.ask(XS_WATCH, '/k\0t\0');
  guest.events();
  tools.ask(XS_WRITE, '/k\0w');
  assert.deepEqual(guest.events(), []);
  tools.ask(XS_SET_PERMS, '/k\0n0\0r1\0');
  assert.deepEqual(guest.events(), ['/k t']);
  tools.ask(XS_SET_PERMS, '/k\0n0\0');
  assert.deepEqual(guest.events(), ['/k t']);
});

test('the removal of a readable node below an unreadable one is told', () => {
  const { tools, guest } = talks();
  tools.ask(XS_WRITE, '/dir/k\0v');
  tools.ask(XS_SET_PERMS, '/dir/k\0n0\0r1\0');
  guest.ask(XS_WATCH, '/dir/k\0t\0');
  guest.events();
  tools.ask(XS_RM, '/dir\0');
  assert.deepEqual(guest.events(), ['/dir/k t']);
});

test('special events: with their own permissions, by depth with the domain, for one domain only', () => {
  const { store, tools, guest } = talks();
  tools.ask(XS_WATCH, '@releaseDomain\0plain\0');
  tools.ask(XS_WATCH, '@releaseDomain\0named\x001\0');
  tools.ask(XS_WATCH, '@releaseDomain/5\0five\0');
  tools.ask(XS_WATCH, '@introduceDomain\0intro\0');
  tools.ask(XS_WATCH, '/\0tree\x000\0');
  guest.ask(XS_WATCH, '@introduceDomain\0intro\0');
  tools.events();
  guest.events();
  store.introduce(5);
  assert.deepEqual(tools.events(), ['@introduceDomain intro']);
  assert.deepEqual(guest.events(), []);
  store.announceShutdown(store.domains.find(5)!);
  store.announceShutdown(store.domains.find(5)!);
  assert.deepEqual(tools.events(), [
    '@releaseDomain plain',
    '@releaseDomain/5 named',
    '@releaseDomain/5 five',
  ]);
  store.release(store.introduce(6));
  assert.deepEqual(tools.events(), [
    '@introduceDomain intro',
    '@releaseDomain plain',
    '@releaseDomain/6 named',
  ]);
  tools.ask(XS_SET_PERMS, '@introduceDomain\0n0\0r1\0');
  tools.events();
  guest.events();
  store.introduce(7);
  assert.deepEqual(guest.events(), ['@introduceDomain intro']);
});

test('X4 an event too long for a message is dropped, the others are not', () => {
  const { tools } = talks();
  const token = 't'.repeat(4096 - '/a\0\0'.length);
  assert.equal(tools.ask(XS_WATCH, `/a\0${token}\0`), 'OK\0');
  assert.deepEqual(tools.events(), [`/a ${token}`]);
  tools.ask(XS_WRITE, '/a/b\0x');
  assert.deepEqual(tools.events(), []);
  tools.ask(XS_WRITE, '/a\0x');
  assert.deepEqual(tools.events(), [`/a ${token}`]);
});

test('X5 a guest hears nothing of nodes it may not read, nor of domains that come and go', () => {
  const { store, tools, guest } = talks();
  for (const path of ['/', '/secret', '/local/domain/2', '@releaseDomain', '@introduceDomain'])
    assert.equal(guest.ask(XS_WATCH, `${path}\0t\0`), 'OK\0');
  guest.events();
  tools.ask(XS_WRITE, '/secret/a\0x');
  tools.ask(XS_WRITE, '/secret/a\0y');
  tools.ask(XS_WRITE, '/local/domain/2/k\0x');
  tools.ask(XS_RM, '/secret\0');
  store.release(store.introduce(2));
  assert.deepEqual(guest.events(), []);
  // In a directory that it may list it learns that a child came, never what happens to that child's value.
  tools.ask(XS_MKDIR, '/local/domain/1/toolstack\0');
  tools.ask(XS_SET_PERMS, '/local/domain/1/toolstack\0n0\0');
  guest.events();
  tools.ask(XS_WRITE, '/local/domain/1/toolstack\0secret');
  assert.deepEqual(guest.events(), []);
  tools.ask(XS_RM, '/local/domain/1/toolstack\0');
  assert.deepEqual(guest.events(), ['/local/domain/1/toolstack t']);
});

test('X5 a transaction tells a guest of what it may read, and of nothing else that changed with it', () => {
  const { tools, guest } = talks();
  tools.ask(XS_WRITE, '/public\0v');
  tools.ask(XS_SET_PERMS, '/public\0r0\0');
  guest.ask(XS_WATCH, '/\0t\0');
  guest.events();
  const id = Number(tools.ask(XS_TRANSACTION_START, '\0').slice(0, -1));
  tools.ask(XS_WRITE, '/secret/a\0v', id);
  tools.ask(XS_WRITE, '/public\0w', id);
  tools.ask(XS_WRITE, '/made-and-removed\0w', id);
  tools.ask(XS_RM, '/made-and-removed\0', id);
  assert.deepEqual(guest.events(), [], 'nothing before the commit');
  assert.equal(tools.ask(XS_TRANSACTION_END, 'T\0', id), 'OK\0');
  assert.deepEqual(guest.events(), ['/public t']);
});

test('X11 a commit that fails tells nobody anything', () => {
  const { tools, guest } = talks({ limits: { nodes: 3 } });
  tools.ask(XS_WATCH, '/local\0t\0');
  guest.ask(XS_WATCH, '/local/domain/1\0t\0');
  const start = () => Number(guest.ask(XS_TRANSACTION_START, '\0').slice(0, -1));
  const [conflict, aborted] = [start(), start()];
  for (const id of [conflict, aborted]) guest.ask(XS_WRITE, 'a\0v', id);
  guest.ask(XS_WRITE, 'b\0v');
  tools.events();
  guest.events();
  assert.equal(guest.ask(XS_TRANSACTION_END, 'T\0', conflict), 'EAGAIN');
  assert.equal(guest.ask(XS_TRANSACTION_END, 'F\0', aborted), 'OK\0');
  const [one, two] = [start(), start()];
  guest.ask(XS_WRITE, 'b/one\0v', one);
  guest.ask(XS_WRITE, 'b/two\0v', two);
  assert.equal(guest.ask(XS_TRANSACTION_END, 'F\0', one), 'OK\0');
  assert.equal(guest.ask(XS_WRITE, 'c\0v'), 'OK\0');
  tools.events();
  guest.events();
  assert.equal(guest.ask(XS_TRANSACTION_END, 'T\0', two), 'ENOSPC');
  assert.deepEqual([...tools.events(), ...guest.events()], []);
});

test('X6 events that say the same are merged while they wait', () => {
  const { tools, guest } = talks();
  guest.ask(XS_WATCH, '/local/domain/1\0t\0');
  guest.events();
  const { woken } = guest;
  for (let i = 0; i < 100; i++) tools.ask(XS_WRITE, `/local/domain/1/k\0${i}`);
  assert.equal(guest.connection.subscriber.waiting, 1);
  assert.equal(guest.woken - woken, 1);
  assert.deepEqual(guest.events(), ['/local/domain/1/k t']);
});

test('X6 after 20 seconds without reading, a client’s events become one for each of its watches', () => {
  let time = 0;
  const { tools, guest } = talks({ now: () => time });
  guest.ask(XS_WATCH, '/local/domain/1\0outer\0');
  guest.ask(XS_WATCH, 'dir\0inner\0');
  guest.ask(XS_WATCH, 'other\0other\0');
  guest.events();
  for (let i = 0; i < 10; i++) tools.ask(XS_WRITE, `/local/domain/1/dir/k${i}\0x`);
  tools.ask(XS_WRITE, '/local/domain/1/other/k\0x');
  assert.equal(guest.connection.subscriber.waiting, 22);
  time += STALLED_MS + 1;
  tools.ask(XS_WRITE, '/local/domain/1/dir/last\0x');
  tools.ask(XS_WRITE, '/local/domain/1/dir/last2\0x');
  assert.deepEqual(guest.events(), ['dir inner', '/local/domain/1 outer', 'other other']);
  tools.ask(XS_WRITE, '/local/domain/1/dir/k0\0y');
  assert.deepEqual(guest.events(), ['dir/k0 inner', '/local/domain/1/dir/k0 outer']);
});

test('X7 a flood of changes cannot fill a watcher’s queue: beyond its quota it hears that something changed', () => {
  const { tools, guest } = talks({ limits: { events: 8 } });
  guest.ask(XS_WATCH, '/local/domain/1\0one\0');
  guest.ask(XS_WATCH, '/local/domain/1/d\0two\0');
  guest.events();
  for (let i = 0; i < 1000; i++) tools.ask(XS_WRITE, `/local/domain/1/d/k${i}\0x`);
  assert.equal(guest.connection.subscriber.waiting, 8 + 2);
  const events = guest.events();
  assert.deepEqual(events.slice(8), ['/local/domain/1/d two', '/local/domain/1 one']);
  tools.ask(XS_WRITE, '/local/domain/1/d/k\0x');
  assert.deepEqual(guest.events(), ['/local/domain/1/d/k two', '/local/domain/1/d/k one']);
});

test('X7 domain 0 is not flooded without bound either', () => {
  const { tools } = talks();
  const reader = new Talk(tools.connection.store, 0);
  reader.ask(XS_WATCH, '/\0t\0');
  reader.events();
  for (let i = 0; i < 6000; i++) tools.ask(XS_WRITE, `/d/k${i}\0x`);
  assert.equal(reader.connection.subscriber.waiting, 4096 + 1);
});
