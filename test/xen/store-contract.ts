// The port Xenstore in the first domain of a real Xen, by both ways to its daemon: the socket, and the kernel's device.
// Used by contract.ts.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Arena } from '../../src/hosts/linux/arena.ts';
import { Epoll } from '../../src/hosts/linux/epoll.ts';
import type { Libc } from '../../src/hosts/linux/libc.ts';
import { openStoreChannel, type StoreChannel } from '../../src/hosts/linux/xen/store.ts';
import { XenstoreClient } from '../../src/xenstore/client.ts';
import { xenstoreContract } from '../contract/xenstore.ts';

/** Where the contract writes, and where it is seen that everything has arrived. */
const NODES = ['/a', '/ab', '/b', '/many', '/n', '/t'];
const SETTLED = '/settled';
const NOBODY = 0x7abc;
/** The protocol allows it; oxenstored and the kernel's device do not. */
const LARGE = 'x'.repeat(4090);
/** Nothing is lost when it passes: others go on meanwhile. */
const LOOK_MILLISECONDS = 1;

/** A client that reads what comes until it is closed. */
export class BusyStore {
  readonly client: XenstoreClient;
  #open = true;
  readonly #reading: Promise<void>;

  /** @param sockets as openStoreChannel has them */
  constructor(libc: Libc, sockets?: readonly string[]) {
    const arena = new Arena(libc, 2 ** 15);
    const channel = openStoreChannel(libc, arena, sockets);
    const epoll = new Epoll(libc, arena);
    epoll.add(channel.fd, 0);
    this.client = new XenstoreClient(channel);
    this.#reading = this.#read(epoll, channel).finally(() => {
      this.client.close();
      epoll.close();
      arena.close();
    });
  }

  async close(): Promise<void> {
    this.#open = false;
    await this.#reading;
  }

  async #read(epoll: Epoll, channel: StoreChannel): Promise<void> {
    for (; this.#open; await turn()) epoll.wait(LOOK_MILLISECONDS, () => channel.poll());
  }
}

/** Both ways. */
export function storeContracts(libc: Libc): void {
  let current: BusyStore | undefined;
  const open = async (sockets?: readonly string[]): Promise<XenstoreClient> => {
    await current?.close();
    current = new BusyStore(libc, sockets);
    return current.client;
  };
  after(() => current?.close());
  for (const [way, sockets] of [['the daemon’s socket'], ['/dev/xen/xenbus', []]] as const) {
    xenstoreContract(`XenstoreClient over ${way}`, async () => emptyStore(await open(sockets)), {
      domain0Only: 'whoever asks here is domain 0',
      otherRefusals: 'oxenstored has limits and error names of its own, and no parts of directories',
    });
    test(`by ${way}: what a backend asks about domains is answered`, async () => {
      const client = await open(sockets);
      await client.watch('@releaseDomain', () => undefined);
      assert.deepEqual([await client.isIntroduced(0), await client.isIntroduced(NOBODY)], [true, false]);
    });
    test(`by ${way}: what is refused is an error, and the next request is answered`, async () => {
      const client = await open(sockets);
      for (const refused of [
        () => client.write(NODES[0], LARGE),
        () => client.watch('/a//b', () => undefined),
        () => client.read('/a/none'),
      ])
        await assert.rejects(refused, { name: 'XenstoreError' });
      assert.equal(await client.read('domid'), '0');
    });
  }
}

async function emptyStore(client: XenstoreClient) {
  for (const path of NODES) await client.remove(path);
  let arrived: () => void = () => undefined;
  const arrival = () =>
    new Promise<void>((resolve) => {
      arrived = resolve;
    });
  const first = arrival();
  await client.watch(SETTLED, () => arrived());
  await first;
  return {
    as: () => Promise.resolve(client),
    // Events come in the order of what they tell of.
    async settle() {
      const last = arrival();
      await client.write(SETTLED, '');
      await last;
    },
  };
}
