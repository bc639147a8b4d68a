// What the local implementation has beyond the port's contract: when watches are reported, and what becomes
// of it when its domain ends.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { domainId } from '../xen/ids.ts';
import { localXenstore } from './local.ts';
import { Store } from './store.ts';

const released = { name: 'XenstoreError', code: 'EIO' };

test('watches are reported by microtasks unless a scheduler is given, never from inside a call', async () => {
  const store = localXenstore(new Store(), domainId(0));
  const heard: string[] = [];
  await store.watch('/a', (path) => heard.push(path));
  const written = store.write('/a/b', '');
  assert.ok(!heard.includes('/a/b'));
  await written;
  await Promise.resolve();
  assert.deepEqual(heard, ['/a', '/a/b']);
});

test('the scheduler decides when; a callback that throws costs the others nothing', async () => {
  const soon: Array<() => void> = [];
  const store = localXenstore(new Store(), domainId(0), (run) => soon.push(run));
  const heard: string[] = [];
  await store.watch('/a', (path) => {
    heard.push(path);
    throw new Error('a bug of the callback');
  });
  await store.write('/a/1', '');
  await store.write('/a/2', '');
  assert.deepEqual(heard, []);
  for (let run = soon.shift(); run !== undefined; run = soon.shift()) assert.throws(run, /a bug of/);
  assert.deepEqual(heard, ['/a', '/a/1', '/a/2']);
});

test('X10 when the domain is released everything rejects with EIO, and the next domain does not inherit it', async () => {
  const store = new Store();
  store.introduce(1);
  const tools = localXenstore(store, domainId(0));
  await tools.write('/local/domain/1', '');
  await tools.setPermissions('/local/domain/1', [{ domain: 1, access: 'n' }]);
  const guest = localXenstore(store, domainId(1));
  const heard: string[] = [];
  const stop = await guest.watch('k', (path) => heard.push(path));
  const inside = guest.transaction(async (nodes) => {
    await nodes.write('k', '');
    store.release(store.domains.find(1)!);
    await nodes.write('k', '2');
  });
  await assert.rejects(inside, { code: 'ENOENT' });
  store.introduce(1);
  await tools.write('/local/domain/1/k', '');
  await assert.rejects(guest.read('k'), released);
  await assert.rejects(guest.write('k', ''), released);
  await assert.rejects(
    guest.watch('k', () => undefined),
    released,
  );
  await assert.rejects(
    guest.transaction(async () => undefined),
    released,
  );
  await stop();
  assert.deepEqual(heard, ['k']);
  assert.equal(store.watches.size, 0);
  assert.equal(store.transactions.size, 0);
});

test('a body that goes on after its transaction has ended is refused', async () => {
  const store = localXenstore(new Store(), domainId(0));
  let late: Promise<string> | undefined;
  await store.transaction(async (nodes) => {
    late = Promise.resolve()
      .then(() => Promise.resolve())
      .then(() => nodes.read('/'));
    late.catch(() => undefined);
  });
  await assert.rejects(late!, { code: 'ENOENT' });
});
