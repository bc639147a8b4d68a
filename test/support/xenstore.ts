// A client of the store that speaks raw messages, for tests of the wire protocol.

import assert from 'node:assert/strict';
import { XS_ERROR, XS_WATCH_EVENT } from '../../src/abi/xenstore.ts';
import { Connection } from '../../src/xenstore/connection.ts';
import type { Store } from '../../src/xenstore/store.ts';
import { MessageReader, MessageWriter, stringsIn, textOf } from '../../src/xenstore/wire.ts';

/** A message as it was found in a stream. */
export interface Message {
  readonly type: number;
  readonly requestId: number;
  readonly transactionId: number;
  /** One character for each byte. */
  readonly payload: string;
}

/** The bytes of one message. */
export function message(
  type: number,
  payload: string | Uint8Array,
  requestId = 1,
  transactionId = 0,
): Uint8Array {
  const writer = new MessageWriter();
  writer.add(type, requestId, transactionId, payload);
  return writer.take();
}

/** Every whole message in `bytes`. */
export function messagesIn(bytes: Uint8Array): Message[] {
  const reader = new MessageReader();
  const found: Message[] = [];
  for (let at = 0; at < bytes.length; at += reader.taken)
    if (reader.take(bytes, at)) {
      const { type, requestId, transactionId, payload } = reader;
      found.push({ type, requestId, transactionId, payload: textOf(payload) });
    }
  return found;
}

/** One domain's conversation with the store. */
export class Talk {
  readonly connection: Connection;
  /** How often the connection asked to be looked at though nothing was received. */
  woken = 0;
  ended = false;
  readonly #events: string[][] = [];
  #lastRequest = 100;

  constructor(store: Store, domain: number) {
    this.connection = new Connection(
      store,
      store.introduce(domain),
      () => this.woken++,
      () => {
        this.ended = true;
      },
    );
  }

  /** Sends a request, reads everything, and returns the reply's payload, or the error's name. */
  ask(type: number, payload: string | Uint8Array = '', transactionId = 0): string {
    const requestId = ++this.#lastRequest;
    const bytes = message(type, payload, requestId, transactionId);
    assert.equal(this.connection.receive(bytes), bytes.length, 'the store does not listen');
    let reply: Message | undefined;
    for (const each of this.read()) {
      assert.equal(reply, undefined, 'one reply for one request');
      reply = each;
    }
    assert.ok(reply, 'a reply');
    assert.deepEqual([reply.requestId, reply.transactionId], [requestId, transactionId]);
    assert.ok(reply.type === type || reply.type === XS_ERROR, `reply of type ${reply.type}`);
    return reply.type === XS_ERROR ? reply.payload.slice(0, -1) : reply.payload;
  }

  /** Reads everything that waits; returns the replies and keeps the events. */
  read(): Message[] {
    const replies: Message[] = [];
    for (let bytes = this.connection.take(); bytes.length > 0; bytes = this.connection.take())
      for (const each of messagesIn(bytes)) {
        if (each.type !== XS_WATCH_EVENT) replies.push(each);
        else {
          assert.deepEqual([each.requestId, each.transactionId], [0, 0]);
          this.#events.push(stringsIn(Uint8Array.from(each.payload, (c) => c.charCodeAt(0))));
        }
      }
    return replies;
  }

  /** The events since the last call, as "path token". */
  events(): string[] {
    this.read();
    return this.#events.splice(0).map((each) => each.join(' '));
  }
}
