// Invariant 24 for the xenstore wire: how a stream is cut does not matter, and any bytes end in messages or
// in the one error that ends a connection.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Message, message, messagesIn } from '../../test/support/xenstore.ts';
import { ProtocolViolation } from '../errors.ts';
import { Connection } from './connection.ts';
import { Store } from './store.ts';
import { MessageReader, MessageWriter, stringsIn, terminated, textOf } from './wire.ts';

/** Cuts `bytes` at the given places. */
function cut(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const at = [...new Set(places.map((each) => each % (bytes.length + 1)))].sort((a, b) => a - b);
  return [...at, bytes.length].map((end, i) => bytes.slice(i === 0 ? 0 : at[i - 1], end));
}

/** The messages of a stream that arrives in pieces, and whether it broke. */
function parse(pieces: readonly Uint8Array[]): { messages: Message[]; broken: boolean } {
  const reader = new MessageReader();
  const messages: Message[] = [];
  try {
    for (const piece of pieces)
      for (let at = 0; at < piece.length; at += reader.taken)
        if (reader.take(piece, at)) {
          const { type, requestId, transactionId, payload } = reader;
          messages.push({ type, requestId, transactionId, payload: textOf(payload) });
        }
  } catch (error) {
    assert.ok(error instanceof ProtocolViolation);
    return { messages, broken: true };
  }
  return { messages, broken: false };
}

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const places = fc.array(fc.nat(20_000), { maxLength: 30 });
const anyMessage = fc
  .tuple(fc.nat(30), fc.uint8Array({ maxLength: 300 }), u32, u32)
  .map(([type, payload, request, transaction]) => message(type, payload, request, transaction));

function joined(parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((each) => [...each]));
}

test('24: messages come out of a stream the same, however it is cut', () => {
  fc.assert(
    fc.property(fc.array(anyMessage, { maxLength: 8 }), places, (sent, where) => {
      const stream = joined(sent);
      const { messages, broken } = parse(cut(stream, where));
      assert.equal(broken, false);
      assert.deepEqual(messages, messagesIn(stream));
      assert.equal(messages.length, sent.length);
    }),
    { seed: 24, numRuns: 1000 },
  );
});

test('24: any bytes end in messages or in a protocol violation, and the cut makes no difference', () => {
  const small = fc.integer({ min: 0, max: 5000 });
  const noise = fc
    .array(fc.tuple(u32, u32, u32, fc.oneof(small, u32), fc.uint8Array({ maxLength: 60 })), { maxLength: 6 })
    .map((parts) =>
      joined(
        parts.map(([type, request, transaction, length, rest]) => {
          const bytes = new Uint8Array(16 + rest.length);
          const view = new DataView(bytes.buffer);
          for (const [i, value] of [type, request, transaction, length].entries())
            view.setUint32(4 * i, value, true);
          bytes.set(rest, 16);
          return bytes;
        }),
      ),
    );
  fc.assert(
    fc.property(fc.oneof(noise, fc.uint8Array({ maxLength: 600 })), places, (stream, where) => {
      assert.deepEqual(parse(cut(stream, where)), parse([stream]));
    }),
    { seed: 24, numRuns: 2000 },
  );
});

test('24: a connection gives the same answers to the same bytes, however they are cut', () => {
  const replies = (pieces: readonly Uint8Array[]): string => {
    const store = new Store({ now: () => 0 });
    const connection = new Connection(
      store,
      store.domains.control,
      () => undefined,
      () => undefined,
    );
    let out = '';
    try {
      for (const piece of pieces) connection.receive(piece);
    } catch (error) {
      assert.ok(error instanceof ProtocolViolation);
      out = 'broken ';
    }
    for (let bytes = connection.take(); bytes.length > 0; bytes = connection.take()) out += textOf(bytes);
    return out;
  };
  const word = fc.constantFrom(
    '/a',
    '/a/b',
    '/',
    'T',
    'token',
    'n0',
    '1',
    'quota',
    '@releaseDomain',
    '',
    '9'.repeat(30),
  );
  const payload = fc.array(word, { maxLength: 4 }).map(terminated);
  const request = fc
    .tuple(fc.nat(28), payload, u32, fc.nat(2))
    .map(([type, text, id, transaction]) => message(type, text, id, transaction));
  fc.assert(
    fc.property(
      fc.array(request, { maxLength: 12 }),
      places,
      fc.uint8Array({ maxLength: 40 }),
      (sent, where, tail) => {
        const stream = joined([...sent, tail]);
        assert.equal(replies(cut(stream, where)), replies([stream]));
      },
    ),
    { seed: 24, numRuns: 600 },
  );
});

test('a writer keeps messages in order while they are taken in pieces of any size', () => {
  fc.assert(
    fc.property(fc.array(anyMessage, { maxLength: 10 }), fc.array(fc.nat(400)), (sent, sizes) => {
      const writer = new MessageWriter();
      const out: number[] = [];
      for (const [i, bytes] of sent.entries()) {
        const [each] = messagesIn(bytes);
        writer.add(each!.type, each!.requestId, each!.transactionId, each!.payload);
        const count = Math.min(sizes[i] ?? 0, writer.length);
        out.push(...writer.peek().subarray(0, count));
        writer.drop(count);
      }
      out.push(...writer.take());
      assert.equal(writer.length, 0);
      assert.deepEqual(Uint8Array.from(out), joined(sent));
    }),
    { seed: 1, numRuns: 300 },
  );
});

test('strings of a payload end with a NUL; what has none is no string', () => {
  const bytes = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0));
  assert.deepEqual(stringsIn(bytes('')), []);
  assert.deepEqual(stringsIn(bytes('a')), []);
  assert.deepEqual(stringsIn(bytes('a\0\0b')), ['a', '']);
  assert.equal(terminated(['a', '', 'b']), 'a\0\0b\0');
});
