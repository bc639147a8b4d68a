import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import { settled } from '../../test/support/settled.ts';
import { Sender } from './sender.ts';

/** A stream whose other side takes what it is sent when a test says so. */
class Sink extends Duplex {
  taken = '';
  batches = 0;
  #done: (() => void) | undefined;

  override _write(chunk: Uint8Array, _encoding: string, done: () => void): void {
    this._writev([{ chunk }], done);
  }

  override _writev(chunks: { chunk: Uint8Array }[], done: () => void): void {
    this.batches++;
    for (const { chunk } of chunks) this.taken += Buffer.from(chunk).toString();
    this.#done = done;
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    done(error);
    this.release();
  }

  release(): void {
    const done = this.#done;
    this.#done = undefined;
    done?.();
  }
}

const text = (words: string): Uint8Array => Buffer.from(words);

test('messages of one turn leave in order, together, and are reported once each', async () => {
  const sink = new Sink();
  const sender = new Sender(sink);
  const sent: string[] = [];
  sender.send(text('a'), text('1'), () => sent.push('a'));
  sender.send(text('b'), undefined, () => sent.push('b'));
  sender.send(text('c'), text('3'), () => sent.push('c'));
  assert.equal(sender.pending, 3);
  await settled();
  assert.equal(sink.taken, 'a1bc3');
  assert.equal(sink.batches, 1);
  assert.deepEqual(sent, []);
  sink.release();
  await settled();
  assert.deepEqual(sent, ['a', 'b', 'c']);
  assert.deepEqual([sender.pending, sender.completed], [0, 3]);
});

test('a client that takes nothing finds the rest in the queue, not in the socket', async () => {
  const sink = new Sink();
  const sender = new Sender(sink);
  const payload = new Uint8Array(new SharedArrayBuffer(1 << 18));
  for (let i = 0; i < 64; i++) sender.send(text('h'), payload);
  await settled();
  assert.ok(sink.writableLength <= (1 << 20) + (1 << 18) + 2, `${sink.writableLength} bytes in the socket`);
  while (sender.pending > 0) {
    sink.release();
    await settled();
  }
  assert.equal(sink.taken.length, 64 * (payload.length + 1));
});

test('an end waits for everything that was sent before it', async () => {
  const sink = new Sink();
  const sender = new Sender(sink);
  for (let i = 0; i < 16; i++) sender.send(text('h'), new Uint8Array(1 << 18));
  sender.end();
  while (!sink.writableFinished) {
    await settled();
    assert.equal(sink.errored, null);
    sink.release();
  }
  assert.equal(sink.taken.length, 16 * ((1 << 18) + 1));
});

test('when the connection breaks, every message is reported, once', async () => {
  const sink = new Sink();
  sink.on('error', () => undefined);
  const sender = new Sender(sink);
  let sent = 0;
  const payload = new Uint8Array(1 << 19);
  for (let i = 0; i < 10; i++) sender.send(text('h'), payload, () => sent++);
  await settled();
  assert.equal(sent, 0);
  sink.destroy(new Error('broken'));
  await settled();
  sender.send(text('late'), undefined, () => sent++);
  await settled();
  assert.equal(sent, 11);
  assert.equal(sender.pending, 0);
});
