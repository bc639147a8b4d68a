// Every implementation of the port Xenstore runs the contract: on the store itself, and over the wire by a
// plain stream cut into small pieces and by a guest's ring page. (Over a Unix socket every client is domain 0,
// so that way has tests of its own: src/cli/xenstored.test.ts, test/peers.)

import { regionOver } from '../../src/abi/region.ts';
import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import { domainId } from '../../src/xen/ids.ts';
import { type ByteReceiver, XenstoreClient } from '../../src/xenstore/client.ts';
import { Connection } from '../../src/xenstore/connection.ts';
import { localXenstore } from '../../src/xenstore/local.ts';
import { RingChannel, RingServer } from '../../src/xenstore/ring.ts';
import { Store } from '../../src/xenstore/store.ts';
import { xenstoreContract } from './xenstore.ts';

xenstoreContract('localXenstore', async () => {
  const store = new Store();
  const soon: Array<() => void> = [];
  return {
    as: async (domain) => {
      store.introduce(domain);
      return localXenstore(store, domainId(domain), (run) => soon.push(run));
    },
    settle: async () => {
      for (let run = soon.shift(); run !== undefined; run = soon.shift()) run();
    },
  };
});

/** Resolves when no microtask is left: everything below moves in microtasks only. */
const quiet = () => new Promise<void>((resolve) => setImmediate(resolve));

xenstoreContract('XenstoreClient over a stream', async () => {
  const store = new Store();
  return { as: async (domain) => overStream(store, domain), settle: quiet };
});

/** A client whose bytes arrive seven at a time. */
function overStream(store: Store, domain: number): XenstoreClient {
  let receiver: ByteReceiver | undefined;
  const deliver = () => {
    const bytes = connection.take();
    for (let at = 0; at < bytes.length; at += 7) receiver!.received(bytes.subarray(at, at + 7));
    if (bytes.length > 0) queueMicrotask(deliver);
  };
  const connection = new Connection(store, store.introduce(domain), () => queueMicrotask(deliver), deliver);
  return new XenstoreClient({
    attach: (to) => {
      receiver = to;
    },
    send: (bytes) => {
      for (let at = 0; at < bytes.length; at += 7) connection.receive(bytes.slice(at, at + 7));
      queueMicrotask(deliver);
    },
    close: () => connection.close(),
  });
}

xenstoreContract('XenstoreClient over a ring page', async () => {
  // Guests write faster here than the store allows while transactions are open; the clock does not stand still.
  let time = 0;
  const store = new Store({ now: () => (time += 100) });
  return {
    as: async (domain) => {
      const page = regionOver(new SharedArrayBuffer(XEN_PAGE_SIZE));
      const serve = () => queueMicrotask(() => server.poll());
      const server: RingServer = new RingServer(page, store, store.introduce(domain), {
        notify: () => queueMicrotask(() => channel.poll()),
        wake: serve,
        released: () => undefined,
      });
      const channel = new RingChannel(page, serve);
      return new XenstoreClient(channel);
    },
    settle: quiet,
  };
});
