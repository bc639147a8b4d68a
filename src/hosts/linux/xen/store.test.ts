import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { xsdSockmsg } from '../../../abi/xenstore.ts';
import { domainId } from '../../../xen/ids.ts';
import { XenstoreClient } from '../../../xenstore/client.ts';
import { Connection } from '../../../xenstore/connection.ts';
import { localXenstore } from '../../../xenstore/local.ts';
import { Store } from '../../../xenstore/store.ts';
import { Epoll, makeNonBlocking } from '../epoll.ts';
import { acceptFrom, connectTo, listenOn } from '../fd-socket.ts';
import type { Libc } from '../libc.ts';
import { arenaOfTest, libcOfTest, native, openDescriptors } from '../native.test.helper.ts';
import { openStoreChannel, ownDomainId } from './store.ts';

const SCRATCH = 8192;

/** Bytes of a message that the kernel's device takes at most. */
const MOST_OF_DEVICE = 4096;

/** The C library where there is no socket but the kernel's device, which leads to the daemon at `path`. */
function withDevice(libc: Libc, path: string): Libc {
  let refused = false;
  return {
    ...libc,
    open: () => connectTo(libc, arenaOfTest(), path),
    write(fd, address, length) {
      refused = length > MOST_OF_DEVICE;
      return refused ? -1 : libc.write(fd, address, length);
    },
    errno: () => (refused ? constants.errno.EINVAL : libc.errno()),
  };
}

/** A store daemon at a socket, and a channel to it; `run` lets both work until a promise is settled. */
function scene(t: TestContext, byDevice = false) {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [libc, arena] = [libcOfTest(), arenaOfTest()];
  const path = join(folder, 'socket');
  const listening = listenOn(libc, arena, path);
  const channel = byDevice
    ? openStoreChannel(withDevice(libc, path), arena, [])
    : openStoreChannel(libc, arena, [join(folder, 'none'), path]);
  const fd = acceptFrom(libc, listening);
  makeNonBlocking(libc, fd);
  const [epoll, scratch] = [new Epoll(libc, arena), arena.take(SCRATCH)];
  epoll.add(channel.fd, 0);
  const store = new Store();
  let waiting = new Uint8Array(0);
  const answer = () => {
    waiting = Buffer.concat([waiting, connection.take()]);
    const piece = waiting.subarray(0, SCRATCH);
    scratch.u8.set(piece);
    const sent = libc.write(fd, scratch.address, piece.length);
    if (sent > 0) waiting = waiting.subarray(sent);
  };
  const connection = new Connection(
    store,
    store.introduce(0),
    () => undefined,
    () => undefined,
  );
  const daemon = () => {
    const length = libc.read(fd, scratch.address, SCRATCH);
    if (length > 0) connection.receive(scratch.u8.slice(0, length));
    answer();
  };
  const run = async <T>(promise: Promise<T>): Promise<T> => {
    let settled = false;
    const done = () => {
      settled = true;
    };
    promise.then(done, done);
    while (!settled) {
      daemon();
      epoll.wait(0, () => channel.poll());
      await new Promise(setImmediate);
    }
    return promise;
  };
  const close = () => {
    for (const each of [listening, fd]) libc.close(each);
    epoll.close();
  };
  return { libc, store, channel, client: new XenstoreClient(channel), run, fd, close };
}

test('requests and their answers go over a socket that nobody blocks on', native, async (t) => {
  const { store, client, run, close } = scene(t);
  const tools = localXenstore(store, domainId(0));
  await tools.write('/local/domain/0/domid', '0');
  assert.equal(await run(ownDomainId(client)), 0);
  await run(client.write('/test/a', 'x'.repeat(3000)));
  assert.equal(await tools.read('/test/a'), 'x'.repeat(3000));
  await assert.rejects(run(client.read('/test/none')), { code: 'ENOENT' });
  close();
});

test('more requests than the socket takes at once all arrive, in order', native, async (t) => {
  const { store, client, run, close } = scene(t);
  const text = 'y'.repeat(3500);
  // Far more than a socket's buffer.
  const writes = Array.from({ length: 200 }, (_, i) => client.write('/test/last', `${i}${text}`));
  await run(Promise.all(writes));
  assert.equal(await localXenstore(store, domainId(0)).read('/test/last'), `199${text}`);
  close();
});

test(
  'what the kernel’s device does not take is a refusal, and the conversation goes on',
  native,
  async (t) => {
    const { store, client, run, close } = scene(t, true);
    const fits = 'z'.repeat(MOST_OF_DEVICE - xsdSockmsg.size - '/test/a\0'.length);
    const writes = [client.write('/test/a', `${fits}z`), client.write('/test/a', fits)];
    const [refused, taken] = await run(Promise.allSettled(writes));
    assert.equal(refused.status === 'rejected' && refused.reason.code, 'EINVAL');
    assert.equal(taken.status, 'fulfilled');
    assert.equal(await localXenstore(store, domainId(0)).read('/test/a'), fits);
    close();
  },
);

test(
  'C4: when the daemon ends, requests are rejected with that reason, and the descriptor is closed',
  native,
  async (t) => {
    const { libc, client, channel, fd } = scene(t);
    const before = openDescriptors();
    const asked = client.read('/a');
    libc.close(fd);
    channel.poll();
    await assert.rejects(asked, /the connection to xenstore (has ended|is broken)/);
    assert.equal(openDescriptors(), before - 2);
    assert.equal(channel.poll(), false);
    client.close();
  },
);

test('O2: where there is no store, one sentence says where it was looked for', native, () => {
  const libc = libcOfTest();
  const fakes = { ...libc, open: () => -1, errno: () => 2 };
  assert.throws(() => openStoreChannel(fakes, arenaOfTest(), ['/nowhere/socket']), {
    name: 'XenUnavailable',
    message: /^xenstore cannot be reached by \/nowhere\/socket \(ENOENT\), \/dev\/xen\/xenbus \(ENOENT\): /,
  });
});

test(
  'a store that does not say which domain this is gets an error that says what to run',
  native,
  async (t) => {
    const { client, run, close } = scene(t);
    await assert.rejects(
      run(ownDomainId(client)),
      /which domain this is \(.*ENOENT\): in dom0, run xen-init-dom0/,
    );
    close();
  },
);
