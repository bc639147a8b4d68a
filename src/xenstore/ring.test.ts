// The ring page from both ends: bytes arrive whole and in order at every wrap of the indices, and neither
// end can be hurt by what the other writes into the page.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { message, messagesIn, Talk } from '../../test/support/xenstore.ts';
import { type Region, regionOver } from '../abi/region.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import * as xs from '../abi/xenstore.ts';
import { Connection } from './connection.ts';
import { DEFAULT_LIMITS } from './quotas.ts';
import { RingChannel, RingServer } from './ring.ts';
import { SERVER_FEATURES, Store } from './store.ts';

type Field = Parameters<typeof xs.xenstoreDomainInterface.offsetOf>[0];

/** A guest's ring and what each end has signalled; the guest's end is driven by hand. */
class Bench {
  time = 0;
  /** Milliseconds that pass with each look at the clock. */
  tick = 0;
  readonly store = new Store({ now: () => (this.time += this.tick) });
  readonly tools = new Talk(this.store, 0);
  readonly page: Region = regionOver(new SharedArrayBuffer(XEN_PAGE_SIZE));
  notified = 0;
  woken = 0;
  released = 0;
  readonly server: RingServer;

  constructor() {
    this.tools.ask(xs.XS_MKDIR, '/local/domain/1\0');
    this.tools.ask(xs.XS_SET_PERMS, '/local/domain/1\0n1\0');
    this.page.u8.fill(0xff);
    this.server = new RingServer(this.page, this.store, this.store.introduce(1), {
      notify: () => this.notified++,
      wake: () => this.woken++,
      released: () => this.released++,
    });
  }

  get(field: Field): number {
    return this.page.u32[xs.xenstoreDomainInterface.offsetOf(field) / 4]!;
  }

  set(field: Field, value: number): void {
    this.page.u32[xs.xenstoreDomainInterface.offsetOf(field) / 4] = value;
  }

  /** Puts bytes into the queue of requests, as a guest does. */
  put(bytes: Uint8Array): void {
    const producer = this.get('req_prod');
    for (const [i, byte] of bytes.entries()) this.page.u8[(producer + i) % 1024] = byte;
    this.set('req_prod', producer + bytes.length);
  }

  /** Takes everything out of the queue of responses; nothing if its indices are not an honest guest's. */
  take(): Uint8Array {
    const [consumer, producer] = [this.get('rsp_cons'), this.get('rsp_prod')];
    const waiting = (producer - consumer) >>> 0;
    const bytes = Uint8Array.from(
      { length: waiting > 1024 ? 0 : waiting },
      (_, i) => this.page.u8[1024 + ((consumer + i) % 1024)]!,
    );
    this.set('rsp_cons', producer);
    return bytes;
  }

  /** One request, served and answered. */
  ask(type: number, payload: string): string {
    this.put(message(type, payload));
    this.server.poll();
    return messagesIn(this.take())
      .filter((each) => each.type !== xs.XS_WATCH_EVENT)
      .map((each) => each.payload)
      .join('|');
  }

  reconnect(): void {
    this.set('connection', xs.XENSTORE_RECONNECT);
    this.server.poll();
  }
}

test('the store’s end starts with empty queues and says what it offers', () => {
  const bench = new Bench();
  for (const field of ['req_cons', 'req_prod', 'rsp_cons', 'rsp_prod', 'connection', 'error'] as const)
    assert.equal(bench.get(field), 0, field);
  assert.equal(bench.get('server_features'), SERVER_FEATURES);
  assert.equal(bench.ask(xs.XS_WRITE, 'k\0v'), 'OK\0');
  assert.equal(bench.ask(xs.XS_READ, 'k\0'), 'v');
  assert.equal(bench.notified, 2);
  bench.server.poll();
  assert.equal(bench.notified, 2, 'nothing moved');
});

test('a change by somebody else wakes the store’s end, and its poll signals the guest', () => {
  const bench = new Bench();
  bench.ask(xs.XS_WATCH, 'k\0t\0');
  bench.server.poll();
  bench.take();
  const { woken, notified } = bench;
  bench.tools.ask(xs.XS_WRITE, '/local/domain/1/k\0v');
  assert.equal(bench.woken, woken + 1);
  bench.server.poll();
  assert.equal(bench.notified, notified + 1);
  assert.deepEqual(
    messagesIn(bench.take()).map((each) => each.payload),
    ['k\0t\0'],
  );
});

test('X1 indices that cannot be close the ring with error 2; the store and the other clients live', () => {
  for (const spoil of [
    (bench: Bench) => bench.set('req_prod', bench.get('req_cons') + 1025),
    (bench: Bench) => bench.set('req_prod', bench.get('req_cons') - 1),
    (bench: Bench) => bench.set('rsp_cons', bench.get('rsp_prod') + 1),
    (bench: Bench) => bench.set('rsp_cons', bench.get('rsp_prod') - 1025),
    (bench: Bench) => bench.set('req_prod', 0x8000_0000),
  ]) {
    const bench = new Bench();
    bench.ask(xs.XS_WATCH, 'k\0t\0');
    bench.server.poll();
    bench.take();
    spoil(bench);
    const { notified } = bench;
    assert.equal(bench.server.poll(), undefined);
    assert.equal(bench.get('error'), xs.XENSTORE_ERROR_RINGIDX);
    assert.equal(bench.notified, notified + 1, 'the guest is told');
    assert.equal(bench.store.watches.size, 0);
    assert.equal(bench.tools.ask(xs.XS_WRITE, '/local/domain/1/k\0v'), 'OK\0');
    const before = Uint8Array.from(bench.page.u8);
    assert.equal(bench.server.poll(), undefined, 'a closed ring is left alone');
    assert.deepEqual(Uint8Array.from(bench.page.u8), before);
  }
});

test('X1 a payload too long closes the ring with error 3', () => {
  const bench = new Bench();
  bench.put(xs.xsdSockmsg.make({ type: xs.XS_WRITE, len: 4097 }).bytes);
  bench.server.poll();
  assert.equal(bench.get('error'), xs.XENSTORE_ERROR_PROTO);
  assert.equal(bench.tools.ask(xs.XS_CONTROL, 'check\0'), 'OK\0');
});

test('X1 a message that stops in the middle keeps nobody waiting, and goes when the guest reconnects', () => {
  const bench = new Bench();
  const whole = message(xs.XS_WRITE, 'k\0value');
  for (let length = 1; length < whole.length; length++) {
    bench.put(whole.subarray(0, length));
    assert.equal(bench.server.poll(), undefined);
    assert.equal(bench.take().length, 0);
    assert.equal(bench.tools.ask(xs.XS_READ, '/local/domain/1/k\0'), 'ENOENT');
    bench.reconnect();
    assert.equal(bench.ask(xs.XS_READ, 'k\0'), 'ENOENT\0');
  }
});

test('X2 a length that a signed reader would take for negative closes the ring with error 3', () => {
  for (const len of [0x8000_0000, 0xffff_ffff, 0xffff_f000]) {
    const bench = new Bench();
    bench.put(xs.xsdSockmsg.make({ type: xs.XS_WRITE, len }).bytes);
    assert.equal(bench.server.poll(), undefined);
    assert.equal(bench.get('error'), xs.XENSTORE_ERROR_PROTO);
  }
});

test('X1 without the features the error field is not the store’s to write, nor the connection field to obey', () => {
  const store = new Store();
  store.domains.obtain(1).features = 0;
  const page = regionOver(new ArrayBuffer(XEN_PAGE_SIZE));
  const signals = { notify: () => undefined, wake: () => undefined, released: () => undefined };
  const server = new RingServer(page, store, store.introduce(1), signals);
  page.u32[xs.xenstoreDomainInterface.offsetOf('req_prod') / 4] = 5000;
  page.u32[xs.xenstoreDomainInterface.offsetOf('connection') / 4] = xs.XENSTORE_RECONNECT;
  server.poll();
  assert.equal(page.u32[xs.xenstoreDomainInterface.offsetOf('error') / 4], 0);
  assert.equal(page.u32[xs.xenstoreDomainInterface.offsetOf('req_prod') / 4], 5000);
});

test('the guest cannot move the store’s own indices', () => {
  const bench = new Bench();
  bench.ask(xs.XS_WRITE, 'k\0v');
  const consumed = bench.get('req_cons');
  bench.set('req_cons', 0);
  bench.put(message(xs.XS_READ, 'k\0'));
  bench.server.poll();
  assert.deepEqual(
    messagesIn(bench.take()).map((each) => each.payload),
    ['v'],
  );
  assert.ok(bench.get('req_cons') > consumed);
});

test('X6 a guest that reads no replies is not served any further, and is again when it reads', () => {
  const bench = new Bench();
  bench.ask(xs.XS_WRITE, `k\0${'v'.repeat(100)}`);
  const request = message(xs.XS_READ, 'k\0');
  let sent = 0;
  const room = () => 1024 - (bench.get('req_prod') - bench.get('req_cons'));
  for (let before = -1; before !== sent; ) {
    before = sent;
    for (; room() >= request.length; sent++) bench.put(request);
    bench.server.poll();
  }
  const waiting = 1024 / request.length;
  assert.ok(sent >= 20 + Math.floor(waiting) && sent <= 20 + Math.ceil(waiting), `${sent} sent`);
  const replies: number[] = [];
  for (let bytes = bench.take(); bytes.length > 0; bytes = bench.take()) {
    replies.push(...bytes);
    bench.server.poll();
  }
  assert.equal(messagesIn(Uint8Array.from(replies)).length, sent);
});

test('X7 a guest that never looks at its page costs the store its quota of events, however much happens', () => {
  const bench = new Bench();
  bench.ask(xs.XS_WATCH, '/local/domain/1\0t\0');
  const [client] = bench.store.domains.find(1)!.clients;
  assert.ok(client instanceof Connection);
  for (let i = 0; i < 5000; i++) {
    bench.tools.ask(xs.XS_WRITE, `/local/domain/1/k${i}\0v`);
    bench.server.poll();
  }
  assert.equal(client.subscriber.waiting, DEFAULT_LIMITS.events + 1);
  assert.ok(client.peek().length <= 2 * 4096);
});

test('one poll serves a bounded amount and asks to be called again', () => {
  const bench = new Bench();
  let rounds = 0;
  const { notified } = bench;
  // A guest on another processor that refills and empties the page as fast as the store looks at it.
  const load = Atomics.load;
  Atomics.load = ((array: Int32Array, index: number) => {
    if (index === xs.xenstoreDomainInterface.offsetOf('req_prod') / 4 && rounds++ < 1000) {
      bench.set('rsp_cons', bench.get('rsp_prod'));
      bench.put(message(xs.XS_GET_DOMAIN_PATH, '1\0'));
    }
    return load(array, index);
  }) as typeof Atomics.load;
  try {
    assert.equal(bench.server.poll(), 0);
  } finally {
    Atomics.load = load;
  }
  assert.ok(rounds <= 16);
  assert.equal(bench.notified, notified + 1, 'one signal for all of it');
});

test('X15 a guest that writes too fast is told about by a delay, and served after it', () => {
  const bench = new Bench();
  bench.tools.ask(xs.XS_TRANSACTION_START, '\0');
  let delay: number | undefined;
  for (let i = 0; i < 20 && delay === undefined; i++) {
    bench.put(message(xs.XS_WRITE, 'k\0v'));
    delay = bench.server.poll();
    bench.take();
  }
  assert.ok(delay !== undefined && delay > 0);
  assert.equal(bench.ask(xs.XS_READ, 'k\0'), '');
  bench.time += delay;
  bench.server.poll();
  assert.deepEqual(
    messagesIn(bench.take()).map((each) => each.payload),
    ['v'],
  );
});

test('X15 a guest whose time comes while the store looks at it is not forgotten', () => {
  for (let tick = 0.5; tick < 8; tick += 0.5) {
    const bench = new Bench();
    bench.tools.ask(xs.XS_TRANSACTION_START, '\0');
    bench.tick = tick;
    for (let i = 0; i < 40; i++) bench.put(message(xs.XS_WRITE, `k\0${i % 10}`));
    const answered: number[] = [];
    for (let delay: number | undefined = 0; delay !== undefined; ) {
      bench.time += delay;
      delay = bench.server.poll();
      answered.push(...bench.take());
    }
    assert.equal(messagesIn(Uint8Array.from(answered)).length, 40, `${tick} ms for each look`);
  }
});

test('X17 reconnecting again and again leaves one clean connection: nothing of the ones before', () => {
  const bench = new Bench();
  bench.ask(xs.XS_WRITE, 'k\0v');
  for (let i = 0; i < 50; i++) {
    bench.ask(xs.XS_WATCH, `k\0${i}\0`);
    bench.ask(xs.XS_TRANSACTION_START, '\0');
    bench.put(message(xs.XS_READ, 'k\0').subarray(0, (i % 18) + 1));
    if (i % 3 === 0) bench.server.poll();
    if (i % 5 === 0) bench.set('req_prod', 0x7000_0000);
    if (i % 5 === 0) bench.server.poll();
    const { notified } = bench;
    bench.reconnect();
    assert.ok(bench.notified > notified, 'the guest waits for this');
    assert.equal(bench.get('connection'), xs.XENSTORE_CONNECTED);
    assert.equal(bench.get('error'), xs.XENSTORE_ERROR_NONE);
    assert.equal(bench.get('rsp_prod'), 0);
  }
  assert.equal(bench.store.watches.size, 0);
  assert.equal(bench.store.transactions.size, 0);
  assert.equal(bench.store.domains.find(1)!.clients.size, 1);
  bench.tools.ask(xs.XS_WRITE, '/local/domain/1/k\0w');
  assert.equal(bench.ask(xs.XS_READ, 'k\0'), 'w');
  assert.equal(bench.tools.ask(xs.XS_CONTROL, 'check\0'), 'OK\0');
});

test('X17 toggling a device’s state fast: the backend hears in order, at most one event waits, the last state counts', () => {
  const bench = new Bench();
  bench.tools.ask(xs.XS_WATCH, '/local/domain/1/device/virtio/0/state\0t\0');
  bench.tools.events();
  let heard = 0;
  for (let i = 0; i < 200; i++) {
    const state = i % 2 === 0 ? xs.XenbusStateConnected : xs.XenbusStateClosed;
    assert.equal(bench.ask(xs.XS_WRITE, `device/virtio/0/state\0${state}`), 'OK\0');
    assert.ok(bench.tools.connection.subscriber.waiting <= 1);
    if (i % 7 === 0) heard += bench.tools.events().length;
  }
  heard += bench.tools.events().length;
  assert.equal(heard, Math.ceil(200 / 7) + 1);
  assert.equal(
    bench.tools.ask(xs.XS_READ, '/local/domain/1/device/virtio/0/state\0'),
    `${xs.XenbusStateClosed}`,
  );
});

test('a released domain’s ring is left alone for good', () => {
  const bench = new Bench();
  bench.reconnect();
  assert.equal(bench.released, 0);
  bench.store.release(bench.store.domains.find(1)!);
  assert.equal(bench.released, 1, 'whoever mapped the page is told');
  const before = Uint8Array.from(bench.page.u8);
  bench.set('connection', xs.XENSTORE_RECONNECT);
  assert.equal(bench.server.poll(), undefined);
  bench.set('connection', xs.XENSTORE_CONNECTED);
  assert.deepEqual(Uint8Array.from(bench.page.u8), before);
});

test('24: whatever a guest writes into the page, polls end, the store is whole, a reconnection brings service back', () => {
  const word = fc.oneof(fc.nat(3000), fc.integer({ min: 0, max: 0xffff_ffff }));
  const field = fc.constantFrom<Field>('req_cons', 'req_prod', 'rsp_cons', 'rsp_prod', 'connection', 'error');
  const scribble = fc.oneof(
    fc.record({ field, value: word }),
    fc.record({ at: fc.nat(1023), bytes: fc.uint8Array({ minLength: 1, maxLength: 64 }) }),
    fc.record({ type: fc.nat(28), payload: fc.constantFrom('/\0', 'k\0t\0', '\0', 'k\0v', 'T\0') }),
  );
  fc.assert(
    fc.property(fc.array(scribble, { maxLength: 40 }), (scribbles) => {
      const bench = new Bench();
      for (const each of scribbles) {
        if ('field' in each) bench.set(each.field, each.value);
        else if ('at' in each) bench.page.u8.set(each.bytes.subarray(0, 1024 - each.at), each.at);
        else bench.put(message(each.type, each.payload));
        bench.time += 1000;
        bench.server.poll();
        bench.take();
      }
      assert.equal(bench.tools.ask(xs.XS_CONTROL, 'check\0'), 'OK\0');
      bench.reconnect();
      assert.equal(bench.ask(xs.XS_GET_DOMAIN_PATH, '1\0'), '/local/domain/1\0');
    }),
    { seed: 24, numRuns: 300 },
  );
});

test('bytes arrive whole and in order over a ring whose indices wrap at 2^32', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(3000), { minLength: 1, maxLength: 8 }), fc.nat(2000), (sizes, before) => {
      const page = regionOver(new SharedArrayBuffer(XEN_PAGE_SIZE));
      const start = (0x1_0000_0000 - before) >>> 0;
      const at = (field: Field) => xs.xenstoreDomainInterface.offsetOf(field) / 4;
      for (const field of ['req_cons', 'req_prod', 'rsp_cons', 'rsp_prod'] as const)
        page.u32[at(field)] = start;
      const channel = new RingChannel(page, () => undefined);
      const received: number[] = [];
      channel.attach({
        received: (bytes) => received.push(...bytes),
        closed: (reason) => assert.fail(reason.message),
      });
      // The other end is an echo: what comes as a request goes back as a response.
      const sent: number[] = [];
      for (const [i, size] of sizes.entries()) {
        const bytes = Uint8Array.from({ length: size }, (_, j) => (i * 7 + j) & 0xff);
        sent.push(...bytes);
        channel.send(bytes);
        for (let round = 0; round < 8; round++) {
          let [from, to] = [page.u32[at('req_cons')]!, page.u32[at('rsp_prod')]!];
          while (from !== page.u32[at('req_prod')]!) {
            page.u8[1024 + (to % 1024)] = page.u8[from % 1024]!;
            from = (from + 1) >>> 0;
            to = (to + 1) >>> 0;
          }
          page.u32[at('req_cons')] = from;
          page.u32[at('rsp_prod')] = to;
          channel.poll();
        }
      }
      assert.deepEqual(received, sent);
    }),
    { seed: 32, numRuns: 60 },
  );
});

test('a guest’s channel ends when the store’s indices cannot be, or the store gives the ring up', () => {
  for (const [field, value] of [
    ['rsp_prod', 1025],
    ['req_cons', 0xffff_0000],
    ['error', xs.XENSTORE_ERROR_COMM],
  ] as const) {
    const page = regionOver(new ArrayBuffer(XEN_PAGE_SIZE));
    page.u32[xs.xenstoreDomainInterface.offsetOf('server_features') / 4] = SERVER_FEATURES;
    let reason: Error | undefined;
    const channel = new RingChannel(page, () => undefined);
    channel.attach({
      received: () => assert.fail('nothing to receive'),
      closed: (why) => {
        reason = why;
      },
    });
    page.u32[xs.xenstoreDomainInterface.offsetOf(field) / 4] = value;
    channel.send(new Uint8Array(4));
    channel.poll();
    assert.ok(reason, field);
    channel.send(new Uint8Array(4));
    channel.poll();
  }
});

test('a guest’s channel waits for the store to confirm a reconnection before it looks at anything else', () => {
  const page = regionOver(new ArrayBuffer(XEN_PAGE_SIZE));
  const at = (field: Field) => xs.xenstoreDomainInterface.offsetOf(field) / 4;
  page.u32.fill(0x5555_5555);
  page.u32[at('connection')] = xs.XENSTORE_RECONNECT;
  let notified = 0;
  const channel = new RingChannel(page, () => notified++);
  channel.attach({
    received: () => assert.fail('too early'),
    closed: (reason) => assert.fail(reason.message),
  });
  channel.send(new Uint8Array(4));
  channel.poll();
  const store = new Store();
  const signals = { notify: () => undefined, wake: () => undefined, released: () => undefined };
  new RingServer(page, store, store.introduce(1), signals);
  channel.poll();
  assert.equal(page.u32[at('req_prod')], 4);
  assert.equal(notified, 1);
  channel.poll();
  assert.equal(notified, 1, 'nothing moved');
});
