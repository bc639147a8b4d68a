// What every implementation of the port src/xen/xenstore.ts must do, whatever lies between it and the store.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { NodePermission, Xenstore } from '../../src/xen/xenstore.ts';

/** A store with nothing in it yet, and the means to use it as any domain. */
interface XenstoreUnderTest {
  /** The store as this domain sees it; the domain is introduced. */
  as(domain: number): Promise<Xenstore>;
  /** Resolves when everything that is on its way has arrived. */
  settle(): Promise<void>;
}

const refused = (code: string) => ({ name: 'XenstoreError', code });

/** What cannot be tried with an implementation, and why. */
interface XenstoreLimits {
  /** Why the store can only be used as domain 0. */
  readonly domain0Only?: string;
  /** Why the store takes more than is specified, or refuses it in another way. */
  readonly otherRefusals?: string;
}

/** The contract, for one implementation. */
export function xenstoreContract(
  implementation: string,
  make: () => Promise<XenstoreUnderTest>,
  limits: XenstoreLimits = {},
): void {
  const others = { skip: limits.domain0Only ?? false };
  const refusals = { skip: limits.otherRefusals ?? false };
  describe(`the port Xenstore by ${implementation}`, () => {
    nodes(make, others, refusals);
    describe('rights', others, () => rights(make));
    watches(make, others);
    transactions(make, refusals);
  });
}

/** For a test to be left out, and why. */
interface Skip {
  readonly skip: string | boolean;
}

/** Domain 0. */
async function alone(make: () => Promise<XenstoreUnderTest>) {
  const store = await make();
  return { store, control: await store.as(0) };
}

/** Domain 0 and guest 1, whose home it owns and domain 2 may read. */
async function machine(make: () => Promise<XenstoreUnderTest>) {
  const { store, control } = await alone(make);
  const guest = await store.as(1);
  await control.write('/local/domain/1', '');
  await control.setPermissions('/local/domain/1', [
    { domain: 1, access: 'n' },
    { domain: 2, access: 'r' },
  ]);
  return { store, control, guest };
}

function nodes(make: () => Promise<XenstoreUnderTest>, others: Skip, refusals: Skip): void {
  test('a value written is read back, whatever text it is', async () => {
    const { control } = await alone(make);
    for (const value of ['', 'one', 'with\0nul', 'grüße 🦆', '\uFEFFmark', 'x'.repeat(2000)]) {
      await control.write('/a/b', value);
      assert.equal(await control.read('/a/b'), value);
    }
  });

  test('writing makes the parents, empty; directory names the children, sorted', async () => {
    const { control } = await alone(make);
    await control.write('/a/z/1', 'x');
    await control.write('/a/b', 'y');
    assert.deepEqual(await control.directory('/a'), ['b', 'z']);
    assert.equal(await control.read('/a/z'), '');
    assert.deepEqual(await control.directory('/a/b'), []);
  });

  test('a directory whose names do not fit one message is listed whole', refusals, async () => {
    const { control } = await alone(make);
    const names = Array.from({ length: 300 }, (_, i) => `child-with-a-rather-long-name-${i}`).sort();
    for (const name of names) await control.write(`/many/${name}`, '');
    assert.deepEqual(await control.directory('/many'), names);
  });

  test('removing takes everything below; again is no error while the parent is there', async () => {
    const { control } = await alone(make);
    await control.write('/a/b/c', 'x');
    await control.remove('/a/b');
    await control.remove('/a/b');
    assert.deepEqual(await control.directory('/a'), []);
    await assert.rejects(control.read('/a/b/c'), refused('ENOENT'));
    await assert.rejects(control.remove('/a/b/c'), refused('ENOENT'));
  });

  test('a relative path starts at the home of the domain', others, async () => {
    const { control, guest } = await machine(make);
    await guest.write('device/vbd', 'v');
    assert.equal(await control.read('/local/domain/1/device/vbd'), 'v');
    assert.deepEqual(await guest.directory('device'), ['vbd']);
  });

  test('malformed and overlong paths are EINVAL', refusals, async () => {
    const { control } = await alone(make);
    for (const path of ['', '//', '/a/', '/a//b', '/a b', '/é', '@releaseDomain', `/${'a'.repeat(3072)}`])
      await assert.rejects(control.read(path), refused('EINVAL'), path);
    await assert.rejects(control.write('/a\0b', ''), refused('EINVAL'), 'a path ends at no NUL');
    await assert.rejects(control.write('a'.repeat(2049), ''), refused('EINVAL'));
    await control.write(`/${'a'.repeat(3071)}`, 'just fits');
  });

  test('what fits no message is E2BIG', refusals, async () => {
    const { control } = await alone(make);
    await control.write('/a', 'x'.repeat(4096 - 3));
    await assert.rejects(control.write('/a', 'x'.repeat(4096 - 2)), refused('E2BIG'));
    assert.equal((await control.read('/a')).length, 4096 - 3);
  });
}

function rights(make: () => Promise<XenstoreUnderTest>): void {
  test('a guest reads and writes what it owns, and nothing else', async () => {
    const { control, guest } = await machine(make);
    await control.write('/secret', 's');
    await guest.write('/local/domain/1/data', 'd');
    await assert.rejects(guest.read('/secret'), refused('EACCES'));
    await assert.rejects(guest.write('/secret', 'mine'), refused('EACCES'));
    await assert.rejects(guest.write('/new', 'mine'), refused('EACCES'));
    await assert.rejects(guest.directory('/'), refused('EACCES'));
    await assert.rejects(guest.read('/not-there'), refused('EACCES'), 'existence must not leak');
    assert.equal(await control.read('/secret'), 's');
  });

  test('entries give other domains read, write or both', async () => {
    const { store, control, guest } = await machine(make);
    const other = await store.as(2);
    await guest.write('k', 'v');
    const list: NodePermission[] = [
      { domain: 1, access: 'n' },
      { domain: 2, access: 'w' },
    ];
    await guest.setPermissions('k', list);
    assert.deepEqual(await control.permissions('/local/domain/1/k'), list);
    await assert.rejects(other.read('/local/domain/1/k'), refused('EACCES'));
    await other.write('/local/domain/1/k', 'from 2');
    assert.equal(await guest.read('k'), 'from 2');
  });

  test('a child takes its parent’s list and belongs to the guest that makes it', async () => {
    const { guest } = await machine(make);
    await guest.write('a/b', '');
    const inherited = [
      { domain: 1, access: 'n' },
      { domain: 2, access: 'r' },
    ];
    assert.deepEqual(await guest.permissions('a/b'), inherited);
  });

  test('only the owner changes permissions, and cannot give the node away', async () => {
    const { store, guest } = await machine(make);
    const other = await store.as(2);
    await guest.write('k', 'v');
    await assert.rejects(
      other.setPermissions('/local/domain/1/k', [{ domain: 2, access: 'b' }]),
      refused('EACCES'),
    );
    await assert.rejects(guest.setPermissions('k', [{ domain: 2, access: 'b' }]), refused('EPERM'));
    await assert.rejects(guest.setPermissions('k', []), refused('EINVAL'));
  });
}

function watches(make: () => Promise<XenstoreUnderTest>, others: Skip): void {
  test('a watch fires at once, then for changes at and below its path, never beside it', async () => {
    const { store, control } = await alone(make);
    const heard: string[] = [];
    await control.write('/a/b', '');
    await control.watch('/a', (path) => heard.push(path));
    await store.settle();
    await control.write('/a/b/c', '1');
    await control.write('/ab', '1');
    await store.settle();
    await control.remove('/a/b');
    await store.settle();
    assert.deepEqual(heard, ['/a', '/a/b/c', '/a/b']);
  });

  test('removing a node above tells a watch its own path', async () => {
    const { store, control } = await alone(make);
    const heard: string[] = [];
    await control.write('/a/b/c', '');
    await control.watch('/a/b', (path) => heard.push(path));
    await store.settle();
    await control.remove('/a');
    await store.settle();
    assert.deepEqual(heard, ['/a/b', '/a/b']);
  });

  test('a relative watch hears relative paths', others, async () => {
    const { store, guest } = await machine(make);
    const heard: string[] = [];
    await guest.watch('device', (path) => heard.push(path));
    await guest.write('/local/domain/1/device/vif', '');
    await store.settle();
    assert.deepEqual(heard, ['device', 'device/vif']);
  });

  test('a watch that was stopped is silent, and its siblings are not', async () => {
    const { store, control } = await alone(make);
    const heard: string[] = [];
    const stop = await control.watch('/a', () => heard.push('first'));
    await control.watch('/a', () => heard.push('second'));
    await store.settle();
    await stop();
    await stop();
    await control.write('/a', '');
    await store.settle();
    assert.deepEqual(heard, ['first', 'second', 'second']);
  });

  test('X5 a watcher hears nothing of what it may not read', others, async () => {
    const { store, control, guest } = await machine(make);
    const heard: string[] = [];
    await guest.watch('/', (path) => heard.push(path));
    await guest.watch('@releaseDomain', (path) => heard.push(path));
    await control.write('/secret/a', 'x');
    await control.write('/local/domain/2/x', '');
    await control.remove('/secret');
    await guest.write('mine', '');
    await store.settle();
    assert.deepEqual(heard.sort(), ['/', '/local/domain/1/mine', '@releaseDomain']);
  });
}

function transactions(make: () => Promise<XenstoreUnderTest>, refusals: Skip): void {
  test('a transaction’s changes appear all at once, with its events', async () => {
    const { store, control } = await alone(make);
    const heard: string[] = [];
    await control.watch('/t', (path) => heard.push(path));
    await store.settle();
    const result = await control.transaction(async (inside) => {
      await inside.write('/t/a', '1');
      await inside.write('/t/b', '2');
      assert.equal(await inside.read('/t/a'), '1');
      assert.deepEqual(await inside.directory('/t'), ['a', 'b']);
      await assert.rejects(control.read('/t/a'), refused('ENOENT'));
      await store.settle();
      assert.deepEqual(heard, ['/t']);
      return 'done';
    });
    await store.settle();
    assert.equal(result, 'done');
    assert.equal(await control.read('/t/b'), '2');
    assert.deepEqual(heard.sort(), ['/t', '/t/a', '/t/b']);
  });

  test('a body that fails changes nothing, and its error comes out', async () => {
    const { control } = await alone(make);
    const failing = control.transaction(async (inside) => {
      await inside.write('/t', '1');
      throw new Error('changed my mind');
    });
    await assert.rejects(failing, /changed my mind/);
    await assert.rejects(control.read('/t'), refused('ENOENT'));
  });

  test('a body is run again when another change got in its way', async () => {
    const { control } = await alone(make);
    await control.write('/n', '1');
    let runs = 0;
    await control.transaction(async (inside) => {
      const n = Number(await inside.read('/n'));
      if (++runs === 1) await control.write('/n', '10');
      assert.equal(await inside.read('/n'), `${n}`, 'reads repeat');
      await inside.write('/n', `${n + 1}`);
    });
    assert.equal(runs, 2);
    assert.equal(await control.read('/n'), '11');
  });

  test('changes elsewhere do not disturb a transaction', async () => {
    const { control } = await alone(make);
    let runs = 0;
    await control.write('/a', '');
    await control.write('/b', '');
    await control.transaction(async (inside) => {
      runs++;
      await inside.write('/a', '1');
      await control.write('/b', '1');
    });
    assert.equal(runs, 1);
  });

  test('conflicts without end are EAGAIN', refusals, async () => {
    const { control } = await alone(make);
    await control.write('/n', '');
    const hopeless = control.transaction(async (inside) => {
      await inside.read('/n');
      await control.write('/n', '');
    });
    await assert.rejects(hopeless, refused('EAGAIN'));
  });

  test('the operations of a transaction that has ended are refused', refusals, async () => {
    const { control } = await alone(make);
    const kept = await control.transaction(async (inside) => inside);
    await assert.rejects(kept.read('/'), refused('ENOENT'));
  });
}
