// Calls from the control thread to a queue worker, which answers each before the next comes. The caller waits, because
// what a session asks for (stop this ring, forget that memory) must have happened when it goes on.
// Between control-thread.ts and queue-worker.ts.

import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { ProtocolViolation } from '../errors.ts';

/** Words of the memory that both sides share: calls made, answers given. */
const CALLS = 0;
const ANSWERS = 1;
/** The descriptor of a peer's that the worker is writing to, which might not return; -1 for none. */
const WRITING = 2;
const WORDS = 3;
/** A worker that does not answer for so long is stuck in a system call, or lost. Milliseconds. */
const PATIENCE = 30_000;
/** After so long it may be that a peer keeps it from answering. Milliseconds. */
const SUSPICION = 250;

/** A worker has not answered: it is stuck in a system call, or lost. It is not asked any more. */
export class WorkerStuck extends Error {
  constructor(seconds: number) {
    super(
      `a queue worker has not answered for ${seconds} s: it hangs in a system call, as with a disk that hangs`,
    );
    this.name = 'WorkerStuck';
  }
}

/** What two threads need to call each other; it can be sent to a thread. */
export interface MailboxEnds {
  readonly words: Int32Array;
  readonly port: MessagePort;
  /** Eventfd that wakes the one who is called. */
  readonly wake: number;
}

/** Makes the words of a mailbox. */
export function mailboxWords(): Int32Array {
  const words = new Int32Array(new SharedArrayBuffer(WORDS * 4));
  words[WRITING] = -1;
  return words;
}

type Answer =
  | { readonly value: unknown }
  | { readonly violation: { readonly clause: string; readonly detail: string } }
  | { readonly failure: string; readonly stack: string | undefined };

/** The end that asks. */
export class MailboxCaller {
  readonly #ends: MailboxEnds;
  readonly #ring: (fd: number) => void;
  readonly #drain: (fd: number) => void;
  /** Why it is not asked any more. */
  #lost: WorkerStuck | undefined;
  /** Nobody waits for an answer beyond this time, in milliseconds of the monotonic clock. */
  #end = Number.POSITIVE_INFINITY;

  /**
   * @param ring adds one to an eventfd
   * @param drain takes what an eventfd has counted, without waiting: a worker goes on that waits for room in it
   */
  constructor(ends: MailboxEnds, ring: (fd: number) => void, drain: (fd: number) => void) {
    this.#ends = ends;
    this.#ring = ring;
    this.#drain = drain;
  }

  /** Whether it is not asked any more. */
  get isLost(): boolean {
    return this.#lost !== undefined;
  }

  /** Has all answers that are still to come come within `milliseconds`, counted from now: the process is to end. */
  hurry(milliseconds: number): void {
    this.#end = performance.now() + milliseconds;
  }

  /** Returns what the worker answers. Throws the ProtocolViolation that it met, an error of its own, or WorkerStuck. */
  call(command: unknown): unknown {
    if (this.#lost !== undefined) throw this.#lost;
    const { words, port, wake } = this.#ends;
    const answered = Atomics.load(words, ANSWERS);
    port.postMessage(command);
    Atomics.add(words, CALLS, 1);
    this.#ring(wake);
    const asked = performance.now();
    if (!this.#awaitAnswer(answered)) {
      // Its answer may still come, and would be taken for that of the next call.
      this.#lost = new WorkerStuck(Math.round((performance.now() - asked) / 1000));
      throw this.#lost;
    }
    const answer = receiveMessageOnPort(port)?.message as Answer;
    if ('violation' in answer) throw new ProtocolViolation(answer.violation.clause, answer.violation.detail);
    if ('failure' in answer) throw failed(answer);
    return answer.value;
  }

  /** Returns false when none came. The wake of the answer before may come as late as now, and is none. */
  #awaitAnswer(answered: number): boolean {
    const { words } = this.#ends;
    const limit = Math.min(performance.now() + PATIENCE, this.#end);
    while (Atomics.load(words, ANSWERS) === answered) {
      const left = limit - performance.now();
      if (left <= 0) return false;
      if (Atomics.wait(words, ANSWERS, answered, Math.min(left, SUSPICION)) !== 'timed-out') continue;
      const fd = Atomics.load(words, WRITING);
      if (fd >= 0) this.#drain(fd);
    }
    return true;
  }
}

/** The error that a worker met, with the stack of where it did. */
function failed({ failure, stack }: { failure: string; stack: string | undefined }): Error {
  const error = new Error(failure);
  if (stack !== undefined) error.stack = stack;
  return error;
}

/** The end that is asked. */
export class MailboxServer {
  readonly #ends: MailboxEnds;
  #served = 0;

  constructor(ends: MailboxEnds) {
    this.#ends = ends;
  }

  /** Eventfd that is rung for each call. */
  get wake(): number {
    return this.#ends.wake;
  }

  /** Whether somebody waits: cheap enough to ask in every turn. */
  get isWaiting(): boolean {
    return Atomics.load(this.#ends.words, CALLS) !== this.#served;
  }

  /** The worker writes to a descriptor of a peer's, -1 for no longer. Plain, for it costs each interrupt. */
  set writing(fd: number) {
    this.#ends.words[WRITING] = fd;
  }

  /** Answers the call that is waiting with what `serve` makes of it. */
  answer(serve: (command: unknown) => unknown): void {
    const { words, port } = this.#ends;
    const received = receiveMessageOnPort(port);
    if (received === undefined) return;
    this.#served = (this.#served + 1) | 0;
    port.postMessage(outcome(() => serve(received.message)));
    Atomics.add(words, ANSWERS, 1);
    Atomics.notify(words, ANSWERS);
  }
}

function outcome(step: () => unknown): Answer {
  try {
    return { value: step() };
  } catch (error) {
    if (error instanceof ProtocolViolation)
      return { violation: { clause: error.clause, detail: error.detail } };
    if (error instanceof Error) return { failure: error.message, stack: error.stack };
    return { failure: String(error), stack: undefined };
  }
}
