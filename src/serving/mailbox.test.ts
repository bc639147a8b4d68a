import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { MessageChannel, Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { ProtocolViolation } from '../errors.ts';
import { MailboxCaller, MailboxServer, mailboxWords, WorkerStuck } from './mailbox.ts';
import type { TestCall } from './mailbox-thread.test.helper.ts';

/** A caller whose calls are answered in another thread, which looks for them all the time. */
function callThread(t: TestContext): (call: Partial<TestCall>) => unknown {
  const caller = callerOf(t);
  return (call) => caller.call({ ...ECHO, ...call });
}

const ECHO: TestCall = { kind: 'echo', value: undefined, falseAlarms: 0 };

function callerOf(t: TestContext): MailboxCaller {
  const { port1, port2 } = new MessageChannel();
  const words = mailboxWords();
  const worker = new Worker(new URL('./mailbox-thread.test.helper.js', import.meta.url), {
    workerData: { words, port: port2, wake: -1 },
    transferList: [port2],
  });
  t.after(async () => {
    port1.close();
    await worker.terminate();
  });
  return new MailboxCaller(
    { words, port: port1, wake: -1 },
    () => undefined,
    () => undefined,
  );
}

test('a call returns what the worker answers', (t) => {
  const call = callThread(t);
  fc.assert(
    fc.property(fc.anything({ withBigInt: true, withTypedArray: true }), (value) => {
      assert.deepEqual(call({ value }), structuredClone(value));
    }),
    { seed: 61, numRuns: 200 },
  );
});

test('a call throws what the worker met, with its clause or its stack', (t) => {
  const call = callThread(t);
  assert.throws(
    () => call({ kind: 'violation', value: 'a lie' }),
    (error) => error instanceof ProtocolViolation && error.clause === '§0' && error.detail === 'a lie',
  );
  assert.throws(
    () => call({ kind: 'failure', value: 'no room' }),
    (error) =>
      error instanceof Error && error.message === 'no room' && error.stack?.includes('test.helper') === true,
  );
  assert.equal(call({ value: 'goes on' }), 'goes on');
});

test('whoever is woken without an answer, as by the answer before, waits on', (t) => {
  const call = callThread(t);
  for (let value = 0; value < 20; value++) assert.equal(call({ value, falseAlarms: 3 }), value);
});

test('nobody is waiting before a call, and nothing is answered twice', () => {
  const { port1, port2 } = new MessageChannel();
  const words = mailboxWords();
  const server = new MailboxServer({ words, port: port2, wake: 7 });
  assert.equal(server.wake, 7);
  assert.equal(server.isWaiting, false);
  server.answer(() => assert.fail('there is no call'));
  const caller = new MailboxCaller(
    { words, port: port1, wake: 7 },
    (fd) => {
      assert.equal(fd, 7);
      assert.equal(server.isWaiting, true);
      server.answer((command) => [command]);
      assert.equal(server.isWaiting, false);
      server.answer(() => assert.fail('it has been answered'));
    },
    () => undefined,
  );
  assert.deepEqual(caller.call('a'), ['a']);
  assert.deepEqual(caller.call('b'), ['b']);
  port1.close();
});

test('a worker that hangs is waited for until the end that was set, and is not asked again', (t) => {
  const caller = callerOf(t);
  assert.equal(caller.call({ ...ECHO, value: 1 }), 1);
  caller.hurry(20);
  assert.throws(() => caller.call({ ...ECHO, kind: 'hang' }), WorkerStuck);
  assert.ok(caller.isLost);
  assert.throws(() => caller.call(ECHO), WorkerStuck);
});
