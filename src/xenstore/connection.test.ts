// Every message type over the wire: replies, refusals, and what ends a connection.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { message, Talk } from '../../test/support/xenstore.ts';
import * as xs from '../abi/xenstore.ts';
import { ProtocolViolation } from '../errors.ts';
import { SERVER_FEATURES, Store } from './store.ts';

/** Domain 0 and guest 1, who owns its home. */
function talks() {
  const store = new Store({ now: () => 0 });
  const tools = new Talk(store, 0);
  const guest = new Talk(store, 1);
  tools.ask(xs.XS_MKDIR, '/local/domain/1\0');
  tools.ask(xs.XS_SET_PERMS, '/local/domain/1\0n1\0');
  return { store, tools, guest };
}

/** A header alone, with any length. */
function header(type: number, length: number): Uint8Array {
  return xs.xsdSockmsg.make({ type, req_id: 7, tx_id: 0, len: length }).bytes;
}

test('X1 a payload longer than 4096 ends that connection only, as soon as its header is there', () => {
  const { tools, guest } = talks();
  guest.ask(xs.XS_WATCH, 'k\0t\0');
  assert.throws(
    () => guest.connection.receive(header(xs.XS_WRITE, 4097)),
    (error) => error instanceof ProtocolViolation && /4097 bytes, expected at most 4096/.test(error.message),
  );
  guest.connection.close();
  assert.equal(guest.ended, true);
  assert.equal(guest.connection.receive(message(xs.XS_READ, '/\0')), 0);
  assert.equal(tools.ask(xs.XS_WRITE, '/local/domain/1/k\0v'), 'OK\0');
  assert.equal(guest.connection.take().length, 0);
});

test('X1 a header or payload that never ends is half a message: it waits, and goes with the connection', () => {
  const { store, tools, guest } = talks();
  const whole = message(xs.XS_WRITE, 'k\0value');
  for (const length of [1, 15, 16, 17, whole.length - 1]) {
    assert.equal(guest.connection.receive(whole.subarray(0, length)), length);
    assert.equal(guest.connection.take().length, 0);
    guest.connection.reset();
  }
  assert.equal(guest.ask(xs.XS_READ, 'k\0'), 'ENOENT');
  guest.connection.receive(whole.subarray(0, 20));
  store.release(store.domains.find(1)!);
  assert.equal(guest.ended, true);
  assert.equal(tools.ask(xs.XS_READ, '/local/domain/1\0'), 'ENOENT');
});

test('X2 lengths are unsigned: what a signed reader would take for negative is too long', () => {
  for (const length of [0x8000_0000, 0xffff_ffff, 0xffff_f000]) {
    const { guest } = talks();
    assert.throws(() => guest.connection.receive(header(xs.XS_READ, length)), ProtocolViolation);
  }
});

test('X1 types, ids and texts that mean something to us but not to the protocol are refused like any others', () => {
  const { store, tools, guest } = talks();
  for (const name of ['__proto__', 'constructor', 'toString']) {
    assert.equal(guest.ask(xs.XS_WRITE, `${name}/${name}\0v`), 'OK\0');
    assert.equal(guest.ask(xs.XS_WATCH, `${name}\0${name}\0`), 'OK\0');
    assert.deepEqual(guest.events(), [`${name} ${name}`]);
    assert.equal(guest.ask(xs.XS_DIRECTORY, `${name}\0`), `${name}\0`);
    assert.equal(tools.ask(xs.XS_GET_QUOTA, `${name}\0`), 'EINVAL');
    assert.equal(tools.ask(xs.XS_SET_QUOTA, `${name}\x001\0`), 'EINVAL');
    assert.equal(tools.ask(xs.XS_CONTROL, `${name}\0`), 'EINVAL');
    assert.equal(tools.ask(xs.XS_CONTROL, `quota\0set\0${name}\x001\0`), 'EINVAL');
  }
  assert.equal(({} as Record<string, unknown>)['v'], undefined);
  assert.equal(store.domains.find(1)!.usage.nodes, 1 + 6);
});

test('READ, WRITE, MKDIR, RM, DIRECTORY', () => {
  const { tools, guest } = talks();
  assert.equal(tools.ask(xs.XS_WRITE, '/a/b\0va\0lue'), 'OK\0');
  assert.equal(tools.ask(xs.XS_READ, '/a/b\0'), 'va\0lue', 'values are bytes');
  assert.equal(tools.ask(xs.XS_WRITE, '/a\0'), 'OK\0');
  assert.equal(tools.ask(xs.XS_MKDIR, '/a/c\0'), 'OK\0');
  assert.equal(tools.ask(xs.XS_MKDIR, '/a/b\0'), 'OK\0');
  assert.equal(tools.ask(xs.XS_READ, '/a/b\0'), 'va\0lue', 'an existing node is left alone');
  assert.equal(tools.ask(xs.XS_DIRECTORY, '/a\0'), 'b\0c\0');
  assert.equal(tools.ask(xs.XS_RM, '/a\0'), 'OK\0');
  assert.equal(tools.ask(xs.XS_RM, '/a\0'), 'OK\0');
  assert.equal(tools.ask(xs.XS_RM, '/a/b\0'), 'ENOENT');
  assert.equal(tools.ask(xs.XS_DIRECTORY, '/a\0'), 'ENOENT');
  assert.equal(guest.ask(xs.XS_READ, '/a\0'), 'EACCES');
});

test('malformed arguments are EINVAL, unknown types ENOSYS', () => {
  const { tools } = talks();
  for (const type of [xs.XS_READ, xs.XS_DIRECTORY, xs.XS_RM, xs.XS_MKDIR, xs.XS_GET_PERMS, xs.XS_RELEASE])
    for (const payload of ['', '/a', '/a\0b', '/a\0b\0', 'ä\0'])
      assert.equal(tools.ask(type, payload), 'EINVAL', `${type} ${payload}`);
  for (const payload of ['', '/a']) assert.equal(tools.ask(xs.XS_WRITE, payload), 'EINVAL', payload);
  for (const payload of ['', '/a\0', '/a\0x5\0', '/a\0n\0', '/a\0n70000\0', '/a\0n-1\0'])
    assert.equal(tools.ask(xs.XS_SET_PERMS, payload), 'EINVAL', payload);
  for (const payload of ['', '/a\0', '/a\0t'])
    assert.equal(tools.ask(xs.XS_UNWATCH, payload), 'EINVAL', payload);
  for (const payload of ['', '/a\0', '/a\0t\x001\0more\0', '/a\0t\0one\0'])
    assert.equal(tools.ask(xs.XS_WATCH, payload), 'EINVAL', payload);
  for (const type of [xs.XS_WATCH_EVENT, xs.XS_ERROR, 20, 27, xs.XS_INVALID, 0xffff_ffff])
    assert.equal(tools.ask(type, '/\0'), 'ENOSYS', `${type}`);
});

test('GET_PERMS and SET_PERMS', () => {
  const { tools, guest } = talks();
  guest.ask(xs.XS_WRITE, 'k\0v');
  assert.equal(guest.ask(xs.XS_SET_PERMS, 'k\0r1\0b0\0w2\0'), 'OK\0');
  assert.equal(tools.ask(xs.XS_GET_PERMS, '/local/domain/1/k\0'), 'r1\0b0\0', 'domain 2 is not there');
  assert.equal(tools.ask(xs.XS_SET_PERMS, '/local/domain/1/k\0n2\0'), 'OK\0', 'the tools build it');
  assert.equal(tools.ask(xs.XS_GET_PERMS, '/local/domain/1/k\0'), 'n2\0');
  assert.equal(guest.ask(xs.XS_SET_PERMS, 'k\0n1\0'), 'EACCES');
});

test('a list of children that fits no message is E2BIG, and DIRECTORY_PART gives it in parts', () => {
  const { tools } = talks();
  const names = Array.from({ length: 200 }, (_, i) => `a-name-of-some-length-${i}-${'x'.repeat(i % 40)}`);
  for (const name of names) tools.ask(xs.XS_MKDIR, `/d/${name}\0`);
  assert.equal(tools.ask(xs.XS_DIRECTORY, '/d\0'), 'E2BIG');
  const found: string[] = [];
  const generations = new Set<string>();
  for (let offset = 0; ; ) {
    const reply = tools.ask(xs.XS_DIRECTORY_PART, `/d\0${offset}\0`);
    assert.ok(reply.length <= 4096);
    const [generation, ...part] = reply.split('\0').slice(0, -1);
    generations.add(generation!);
    found.push(...part.filter((each) => each !== ''));
    if (part.at(-1) === '') break;
    offset += part.join('\0').length + 1;
  }
  assert.deepEqual(found, names);
  assert.equal(generations.size, 1);
  const [before] = tools.ask(xs.XS_DIRECTORY_PART, '/d\x000\0').split('\0');
  tools.ask(xs.XS_MKDIR, '/d/one-more\0');
  const [after] = tools.ask(xs.XS_DIRECTORY_PART, '/d\x000\0').split('\0');
  assert.notEqual(after, before);
  assert.match(tools.ask(xs.XS_DIRECTORY_PART, '/d\x0099999999\0'), /^\d+\0\0$/, 'behind the end');
  assert.match(tools.ask(xs.XS_DIRECTORY_PART, '/d/one-more\x000\0'), /^\d+\0\0$/, 'no children');
  assert.equal(tools.ask(xs.XS_DIRECTORY_PART, '/d\0'), 'EINVAL');
});

test('DIRECTORY_PART never exceeds a message, whatever the lengths of the names', () => {
  const { tools } = talks();
  for (let length = 2060; length < 2100; length++) {
    const names = ['x'.repeat(2000), 'y'.repeat(length)];
    for (const name of names) assert.equal(tools.ask(xs.XS_MKDIR, `/d${length}/${name}\0`), 'OK\0');
    const first = tools.ask(xs.XS_DIRECTORY_PART, `/d${length}\x000\0`);
    assert.ok(first.length <= 4096 && first.includes(names[0]!), `${first} for ${length}`);
    const complete = first.endsWith('\0\0');
    assert.equal(complete, first.includes(names[1]!));
    if (!complete) assert.match(tools.ask(xs.XS_DIRECTORY_PART, `/d${length}\x002001\0`), /^\d+\0y+\0\0$/);
  }
});

test('transactions: isolated, committed, discarded, in conflict, unknown, nested', () => {
  const { tools } = talks();
  const start = () => Number(tools.ask(xs.XS_TRANSACTION_START, '\0').slice(0, -1));
  const one = start();
  assert.equal(tools.ask(xs.XS_WRITE, '/t/a\x001', one), 'OK\0');
  assert.equal(tools.ask(xs.XS_READ, '/t/a\0', one), '1');
  assert.equal(tools.ask(xs.XS_READ, '/t/a\0'), 'ENOENT');
  assert.equal(tools.ask(xs.XS_TRANSACTION_START, '\0', one), 'EBUSY');
  assert.equal(tools.ask(xs.XS_TRANSACTION_END, 'X\0', one), 'EINVAL');
  assert.equal(tools.ask(xs.XS_TRANSACTION_END, 'T\0', one), 'OK\0');
  assert.equal(tools.ask(xs.XS_READ, '/t/a\0'), '1');
  assert.equal(tools.ask(xs.XS_READ, '/t/a\0', one), 'ENOENT');
  assert.equal(tools.ask(xs.XS_TRANSACTION_END, 'T\0'), 'ENOENT');
  const two = start();
  tools.ask(xs.XS_RM, '/t\0', two);
  assert.equal(tools.ask(xs.XS_TRANSACTION_END, 'F\0', two), 'OK\0');
  const three = start();
  tools.ask(xs.XS_READ, '/t/a\0', three);
  tools.ask(xs.XS_WRITE, '/t/a\x002');
  assert.equal(tools.ask(xs.XS_READ, '/t/a\0', three), '1');
  assert.equal(tools.ask(xs.XS_TRANSACTION_END, 'T\0', three), 'EAGAIN');
  assert.notEqual(two, three);
  assert.equal(tools.ask(xs.XS_WATCH, '/t\0t\0', 999), 'OK\0', 'watches know no transactions');
  assert.equal(tools.ask(xs.XS_UNWATCH, '/t\0t\0', 999), 'OK\0');
});

test('one client’s transaction is none of another client’s business', () => {
  const { store, tools } = talks();
  const other = new Talk(store, 0);
  const id = Number(tools.ask(xs.XS_TRANSACTION_START, '\0').slice(0, -1));
  assert.equal(other.ask(xs.XS_WRITE, '/x\0x', id), 'ENOENT');
  tools.connection.close();
  assert.equal(store.transactions.size, 0);
  assert.equal(store.domains.control.usage.transactions, 0);
});

test('INTRODUCE, IS_DOMAIN_INTRODUCED, GET_DOMAIN_PATH, RESUME, RELEASE', () => {
  const { store, tools, guest } = talks();
  assert.equal(tools.ask(xs.XS_IS_DOMAIN_INTRODUCED, '0\0'), 'T\0');
  assert.equal(tools.ask(xs.XS_IS_DOMAIN_INTRODUCED, '5\0'), 'F\0');
  assert.equal(tools.ask(xs.XS_INTRODUCE, '5\x00-1\x003\0'), 'OK\0');
  assert.equal(tools.ask(xs.XS_IS_DOMAIN_INTRODUCED, '5\0'), 'T\0');
  assert.equal(tools.ask(xs.XS_IS_DOMAIN_INTRODUCED, '32752\0'), 'T\0', 'DOMID_SELF');
  assert.equal(guest.ask(xs.XS_GET_DOMAIN_PATH, '5\0'), '/local/domain/5\0');
  tools.ask(xs.XS_WATCH, '@releaseDomain\0t\0');
  tools.events();
  const five = store.domains.find(5)!;
  store.announceShutdown(five);
  assert.deepEqual(tools.events(), ['@releaseDomain t']);
  assert.equal(tools.ask(xs.XS_RESUME, '5\0'), 'OK\0');
  store.announceShutdown(five);
  assert.deepEqual(tools.events(), ['@releaseDomain t']);
  assert.equal(tools.ask(xs.XS_RELEASE, '5\0'), 'OK\0');
  assert.deepEqual(tools.events(), ['@releaseDomain t']);
  assert.equal(tools.ask(xs.XS_RELEASE, '5\0'), 'ENOENT');
  assert.equal(tools.ask(xs.XS_RESUME, '5\0'), 'ENOENT');
  for (const payload of [
    '0\x001\x001\0',
    '32752\x001\x001\0',
    '6\0x\x001\0',
    '6\x001\x000\0',
    '6\x001\0',
    'six\x001\x001\0',
  ])
    assert.equal(tools.ask(xs.XS_INTRODUCE, payload), 'EINVAL', payload);
  assert.equal(tools.ask(xs.XS_RELEASE, '0\0'), 'EINVAL');
  for (const type of [xs.XS_INTRODUCE, xs.XS_RELEASE, xs.XS_RESUME, xs.XS_IS_DOMAIN_INTRODUCED])
    assert.equal(guest.ask(type, '5\x001\x001\0'), 'EACCES');
});

test('X10 RELEASE, then INTRODUCE of the same id: another domain, which finds nothing of the first', () => {
  const { store, tools, guest } = talks();
  tools.ask(xs.XS_WRITE, '/shared\0v');
  tools.ask(xs.XS_SET_PERMS, '/shared\0n0\0b1\0');
  guest.ask(xs.XS_WATCH, '/shared\0t\0');
  const id = Number(guest.ask(xs.XS_TRANSACTION_START, '\0').slice(0, -1));
  assert.equal(guest.ask(xs.XS_WRITE, '/shared\0old', id), 'OK\0');
  assert.equal(tools.ask(xs.XS_SET_QUOTA, '1\0nodes\x0099\0'), 'OK\0');
  assert.equal(tools.ask(xs.XS_RELEASE, '1\0'), 'OK\0');
  assert.equal(guest.ended, true);
  assert.equal(tools.ask(xs.XS_INTRODUCE, '1\x00-1\x003\0'), 'OK\0');
  const next = new Talk(store, 1);
  assert.equal(next.ask(xs.XS_READ, '/shared\0'), 'EACCES');
  assert.equal(next.ask(xs.XS_READ, '/shared\0', id), 'ENOENT');
  assert.equal(next.ask(xs.XS_UNWATCH, '/shared\0t\0'), 'ENOENT');
  assert.equal(tools.ask(xs.XS_READ, '/local/domain/1\0'), 'ENOENT');
  assert.equal(tools.ask(xs.XS_GET_PERMS, '/shared\0'), 'n0\0');
  assert.equal(tools.ask(xs.XS_GET_QUOTA, '1\0nodes\0'), '1000\0', 'nor its quotas');
  assert.equal(tools.ask(xs.XS_WRITE, '/shared\0w'), 'OK\0');
  assert.deepEqual(next.events(), []);
  assert.equal(tools.ask(xs.XS_CONTROL, 'check\0'), 'OK\0');
});

test('X14 the root over the wire: nobody removes it, and a guest needs rights to it as to any node', () => {
  const { tools, guest } = talks();
  assert.equal(guest.ask(xs.XS_RM, '/\0'), 'EACCES');
  assert.equal(guest.ask(xs.XS_SET_PERMS, '/\0b1\0'), 'EACCES');
  assert.equal(guest.ask(xs.XS_WRITE, '/\0v'), 'EACCES');
  assert.equal(guest.ask(xs.XS_MKDIR, '/\0'), 'EACCES');
  assert.equal(tools.ask(xs.XS_RM, '/\0'), 'EINVAL');
  const id = Number(tools.ask(xs.XS_TRANSACTION_START, '\0').slice(0, -1));
  assert.equal(tools.ask(xs.XS_RM, '/\0', id), 'EINVAL');
  assert.equal(tools.ask(xs.XS_SET_PERMS, '/\0r0\0', id), 'OK\0');
  assert.equal(guest.ask(xs.XS_DIRECTORY, '/\0'), 'EACCES');
  assert.equal(tools.ask(xs.XS_TRANSACTION_END, 'T\0', id), 'OK\0');
  assert.equal(guest.ask(xs.XS_DIRECTORY, '/\0'), 'local\0');
  assert.equal(guest.ask(xs.XS_RM, '/\0'), 'EACCES', 'reading is not writing');
});

test('a domain introduced again starts with a clean connection', () => {
  const { tools, guest } = talks();
  guest.ask(xs.XS_WATCH, 'k\0t\0');
  guest.connection.receive(message(xs.XS_READ, 'k\0').subarray(0, 10));
  assert.equal(tools.ask(xs.XS_INTRODUCE, '1\x001\x001\0'), 'OK\0');
  assert.equal(guest.ask(xs.XS_WATCH, 'k\0t\0'), 'OK\0', 'the watch was gone, and half a message with it');
});

test('SET_TARGET gives a device model the rights of its guest', () => {
  const { store, tools, guest } = talks();
  const model = new Talk(store, 2);
  guest.ask(xs.XS_WRITE, 'k\0v');
  assert.equal(model.ask(xs.XS_READ, '/local/domain/1/k\0'), 'EACCES');
  assert.equal(tools.ask(xs.XS_SET_TARGET, '2\x001\0'), 'OK\0');
  assert.equal(model.ask(xs.XS_WRITE, '/local/domain/1/k\0w'), 'OK\0');
  assert.equal(guest.ask(xs.XS_WRITE, '/local/domain/2/k\0w'), 'EACCES');
  assert.equal(tools.ask(xs.XS_SET_TARGET, '2\x009\0'), 'ENOENT');
  assert.equal(guest.ask(xs.XS_SET_TARGET, '1\x002\0'), 'EACCES');
});

test('RESET_WATCHES drops watches and transactions', () => {
  const { tools, guest } = talks();
  guest.ask(xs.XS_WATCH, 'k\0t\0');
  const id = Number(guest.ask(xs.XS_TRANSACTION_START, '\0').slice(0, -1));
  assert.equal(guest.ask(xs.XS_RESET_WATCHES, '\0'), 'OK\0');
  assert.equal(guest.ask(xs.XS_READ, 'k\0', id), 'ENOENT');
  guest.events();
  tools.ask(xs.XS_WRITE, '/local/domain/1/k\0v');
  assert.deepEqual(guest.events(), []);
});

test('RESET_WATCHES inside a transaction ends that one too, once', () => {
  const { store, guest } = talks();
  const id = Number(guest.ask(xs.XS_TRANSACTION_START, '\0').slice(0, -1));
  assert.equal(guest.ask(xs.XS_WRITE, 'k\0v', id), 'OK\0');
  assert.equal(guest.ask(xs.XS_RESET_WATCHES, '\0', id), 'OK\0');
  assert.equal(guest.ask(xs.XS_TRANSACTION_END, 'T\0', id), 'ENOENT');
  assert.equal(guest.ask(xs.XS_READ, 'k\0'), 'ENOENT');
  for (const [domain, counted] of store.recount()) assert.deepEqual(domain.usage, counted);
});

test('GET_FEATURE and SET_FEATURE: before the domain is introduced, and only what there is', () => {
  const { store, tools, guest } = talks();
  assert.equal(guest.ask(xs.XS_GET_FEATURE), `${SERVER_FEATURES}\0`);
  assert.equal(guest.ask(xs.XS_GET_FEATURE, '1\0'), 'EACCES');
  assert.equal(tools.ask(xs.XS_SET_FEATURE, '1\x000\0'), 'EBUSY');
  assert.equal(tools.ask(xs.XS_SET_FEATURE, '3\x0016\0'), 'EINVAL');
  assert.equal(tools.ask(xs.XS_SET_FEATURE, '3\x002\0'), 'OK\0');
  assert.equal(tools.ask(xs.XS_GET_FEATURE, '3\0'), '2\0');
  const three = new Talk(store, 3);
  assert.equal(three.ask(xs.XS_WATCH, '/\0t\x001\0'), 'EINVAL', 'no depth without the feature');
  tools.ask(xs.XS_MKDIR, '/local/domain/3\0');
  tools.ask(xs.XS_SET_PERMS, '/local/domain/3\0n3\0');
  assert.equal(three.ask(xs.XS_SET_PERMS, '/local/domain/3\0n3\0r32757\0'), 'OK\0');
  assert.equal(tools.ask(xs.XS_GET_PERMS, '/local/domain/3\0'), 'n3\0', 'nor entries for any domain');
});

test('CONTROL: help, check, quota; for domain 0 only', () => {
  const { store, tools, guest } = talks();
  assert.match(
    tools.ask(xs.XS_CONTROL, 'help\0'),
    /^check +\nhelp +\nquota +\[set <name> <val>\|<domid>\]\n\0$/,
  );
  assert.equal(tools.ask(xs.XS_CONTROL, 'check\0'), 'OK\0');
  assert.match(tools.ask(xs.XS_CONTROL, 'quota\0'), /nodes +: +1000\n/);
  assert.match(tools.ask(xs.XS_CONTROL, 'quota\x001\0'), /^Domain 1:\nnodes +: +1\n/);
  assert.equal(tools.ask(xs.XS_CONTROL, 'quota\0set\0nodes\x0055\0'), 'OK\0');
  assert.equal(tools.ask(xs.XS_GET_QUOTA, 'nodes\0'), '55\0');
  for (const payload of [
    '',
    'live-update\0',
    'quota\0set\0nodes\0',
    'quota\0set\0nodes\x000\0',
    'quota\0me\0',
  ])
    assert.equal(tools.ask(xs.XS_CONTROL, payload), 'EINVAL', payload);
  assert.equal(tools.ask(xs.XS_CONTROL, 'quota\x0077\0'), 'ENOENT');
  assert.equal(guest.ask(xs.XS_CONTROL, 'help\0'), 'EACCES');
  store.domains.find(1)!.usage.nodes++;
  assert.equal(tools.ask(xs.XS_CONTROL, 'check\0'), 'domain 1: nodes 2, counted 1\n\0');
});

test('domain 0 is not served either while it leaves a megabyte unread', () => {
  const { tools } = talks();
  tools.ask(xs.XS_WRITE, `/k\0${'x'.repeat(4000)}`);
  const request = message(xs.XS_READ, '/k\0');
  let served = 0;
  while (tools.connection.receive(request) > 0) served++;
  assert.equal(served, Math.ceil((1 << 20) / 4016));
  tools.read();
  assert.equal(tools.connection.listening, true);
});
