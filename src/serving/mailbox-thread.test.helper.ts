// The worker's side of a mailbox, in a thread of its own: answers as the calls themselves ask for it.

import { workerData } from 'node:worker_threads';
import { ProtocolViolation } from '../errors.ts';
import { type MailboxEnds, MailboxServer } from './mailbox.ts';

/** What a call of the tests asks for. */
export interface TestCall {
  readonly kind: 'echo' | 'violation' | 'failure' | 'hang' | 'end';
  readonly value: unknown;
  /** So often the caller is woken without an answer before it gets one. */
  readonly falseAlarms: number;
}

/** Index of the word of answers, by which a caller waits. */
const ANSWERS = 1;

function serve({ kind, value, falseAlarms }: TestCall, words: Int32Array): unknown {
  // A wake counts when there was somebody who waited.
  for (let woken = 0; woken < falseAlarms; ) woken += Atomics.notify(words, ANSWERS);
  if (kind === 'hang') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  if (kind === 'violation') throw new ProtocolViolation('§0', String(value));
  if (kind === 'failure') throw new RangeError(String(value));
  return value;
}

function run(ends: MailboxEnds): void {
  const server = new MailboxServer(ends);
  for (let open = true; open; ) {
    if (!server.isWaiting) continue;
    server.answer((command) => {
      const call = command as TestCall;
      if (call.kind === 'end') open = false;
      return serve(call, ends.words);
    });
  }
}

run(workerData as MailboxEnds);
