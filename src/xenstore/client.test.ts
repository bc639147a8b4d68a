// The client against a store that does not keep to the protocol: it ends the conversation, rejects what
// waits, and neither hangs nor throws into the channel.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Message, message, messagesIn } from '../../test/support/xenstore.ts';
import * as xs from '../abi/xenstore.ts';
import { ProtocolViolation } from '../errors.ts';
import { type ByteReceiver, XenstoreClient } from './client.ts';

/** A client, and the store's end of its channel played by hand. */
function clientWith(respond: (request: Message) => Uint8Array[] = () => []) {
  let receiver: ByteReceiver | undefined;
  const requests: Message[] = [];
  const state = { closed: false };
  const client = new XenstoreClient({
    attach: (to) => {
      receiver = to;
    },
    send: (bytes) => {
      for (const request of messagesIn(bytes)) {
        requests.push(request);
        for (const reply of respond(request)) queueMicrotask(() => receiver!.received(reply));
      }
    },
    close: () => {
      state.closed = true;
    },
  });
  return {
    client,
    requests,
    state,
    receive: (bytes: Uint8Array) => receiver!.received(bytes),
    receiver: receiver!,
  };
}

const violation = (error: unknown) => error instanceof ProtocolViolation;

test('a reply of another type, to nobody, or in another transaction is a violation', async () => {
  for (const respond of [
    ({ requestId }: Message) => [message(xs.XS_WRITE, 'OK\0', requestId)],
    ({ requestId }: Message) => [message(xs.XS_READ, 'v', requestId + 1)],
    ({ requestId }: Message) => [message(xs.XS_READ, 'v', requestId, 9)],
    () => [message(xs.XS_WATCH_EVENT, 'no token', 0)],
    () => [xs.xsdSockmsg.make({ type: xs.XS_READ, len: 5000 }).bytes],
  ]) {
    const { client, state } = clientWith(respond);
    await assert.rejects(client.read('/a'), violation);
    assert.equal(state.closed, true);
    await assert.rejects(client.read('/a'), violation, 'and so is everything later');
  }
});

test('everything that waits is rejected when the channel ends', async () => {
  const { client, receiver } = clientWith();
  const waiting = [client.read('/a'), client.write('/b', ''), client.watch('/c', () => undefined)];
  receiver.closed(new Error('cable pulled'));
  for (const each of waiting) await assert.rejects(each, /cable pulled/);
  await assert.rejects(client.directory('/'), /cable pulled/);
});

test('replies may come in any order', async () => {
  const { client, requests, receive } = clientWith();
  const both = [client.read('/a'), client.read('/b')];
  for (const { requestId, payload } of [...requests].reverse())
    receive(message(xs.XS_READ, payload.slice(0, -1), requestId));
  assert.deepEqual(await Promise.all(both), ['/a', '/b']);
});

test('an error that the protocol does not have is EIO', async () => {
  const { client } = clientWith(({ requestId }) => [message(xs.XS_ERROR, 'ESTRANGE\0', requestId)]);
  await assert.rejects(client.read('/a'), {
    name: 'XenstoreError',
    code: 'EIO',
    message: 'xenstore: read /a: EIO',
  });
});

test('a list of children without end, or one that always changes, is given up', async () => {
  for (const generation of [
    () => '1',
    (() => {
      let n = 0;
      return () => `${n++}`;
    })(),
  ]) {
    const { client } = clientWith(({ type, requestId }) => [
      type === xs.XS_DIRECTORY
        ? message(xs.XS_ERROR, 'E2BIG\0', requestId)
        : message(type, `${generation()}\0child\0`, requestId),
    ]);
    await assert.rejects(client.directory('/'), violation);
  }
});

test('a watch that was refused hears nothing', async () => {
  const { client, receive } = clientWith(({ requestId }) => [message(xs.XS_ERROR, 'ENOSPC\0', requestId)]);
  await assert.rejects(
    client.watch('/a', () => assert.fail('heard something')),
    { code: 'ENOSPC' },
  );
  receive(message(xs.XS_WATCH_EVENT, '/a\x001\0', 0));
  await Promise.resolve();
});

test('unwatching asks the store once, however often it is called', async () => {
  const { client, requests } = clientWith(({ type, requestId }) => [message(type, 'OK\0', requestId)]);
  const stop = await client.watch('/a', () => undefined);
  await stop();
  await stop();
  assert.deepEqual(
    requests.map(({ type, payload }) => [type, payload]),
    [
      [xs.XS_WATCH, '/a\x001\0'],
      [xs.XS_UNWATCH, '/a\x001\0'],
    ],
  );
});

test('a transaction id or a permission that is none is a violation', async () => {
  for (const id of ['', '0\0', '-1\0', '4294967296\0', 'x\0', '1.5\0']) {
    const { client } = clientWith(({ type, requestId }) => [message(type, id, requestId)]);
    await assert.rejects(
      client.transaction(async () => undefined),
      violation,
      id,
    );
  }
  const { client } = clientWith(({ type, requestId }) => [message(type, 'q7\0', requestId)]);
  await assert.rejects(client.permissions('/a'), violation);
});

test('the error of a body survives a store that is gone', async () => {
  const { client, receiver } = clientWith(({ type, requestId }) =>
    type === xs.XS_TRANSACTION_START ? [message(type, '3\0', requestId)] : [],
  );
  const failing = client.transaction(async () => {
    receiver.closed(new Error('gone'));
    throw new Error('the body’s own');
  });
  await assert.rejects(failing, /the body’s own/);
});

test('events for watches that nobody has are ignored; close() rejects with EIO', async () => {
  const { client, receive } = clientWith();
  receive(message(xs.XS_WATCH_EVENT, '/a\0unknown\0', 0));
  const waiting = client.read('/a');
  client.close();
  await assert.rejects(waiting, { code: 'EIO' });
});

test('24: any bytes from the store end in replies or in a closed channel, never in an exception', async () => {
  const anything = fc.oneof(
    fc.uint8Array({ maxLength: 100 }),
    fc
      .tuple(fc.nat(30), fc.uint8Array({ maxLength: 40 }), fc.nat(4), fc.nat(1))
      .map(([type, payload, request, transaction]) => message(type, payload, request, transaction)),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(anything, { maxLength: 12 }), async (pieces) => {
      const { client, receive, receiver } = clientWith();
      const waiting = [client.read('/a'), client.directory('/'), client.permissions('/a')];
      for (const piece of pieces) receive(piece);
      receiver.closed(new Error('end'));
      await Promise.allSettled(waiting);
    }),
    { seed: 24, numRuns: 500 },
  );
});
