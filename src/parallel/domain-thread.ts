// A domain's thread in the hands of the main thread: calls to it, notices from it, and the domain's
// conversation with xenstore, which lives in the main thread. The other end is domain-loop.ts.

import { Worker } from 'node:worker_threads';
import type { TraceRing } from '../audit/trace-ring.ts';
import { ProtocolViolation } from '../errors.ts';
import type { XenState } from '../hosts/model/state.ts';
import type { Xen } from '../hosts/model/xen.ts';
import type { DomainId } from '../xen/ids.ts';
import { Connection } from '../xenstore/connection.ts';
import type { Store } from '../xenstore/store.ts';
import { CallFailed, type CallTable, type FromThread, type ToThread } from './calls.ts';

/** What a domain's thread is started with. */
export interface ThreadStart {
  readonly state: XenState;
  readonly id: DomainId;
  readonly trace: TraceRing;
  /** One word that changes with every message, for a thread that sleeps outside its event loop. */
  readonly mail: SharedArrayBuffer;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** Runs `entry`, a file of this folder, as the processor of one domain. */
export class DomainThread<Calls extends CallTable> {
  readonly id: DomainId;
  readonly #xen: Xen;
  readonly #worker: Worker;
  readonly #mail: Int32Array;
  readonly #store: Connection;
  readonly #waiting = new Map<number, Waiting>();
  /** Bytes for xenstore that it did not take yet. */
  readonly #unsent: Uint8Array[] = [];
  #lastCall = 0;
  #failure: Error | undefined;
  #stopping = false;
  /** Called for each notice of the thread. */
  onNotice: (notice: unknown) => void = () => undefined;

  constructor(entry: string, xen: Xen, store: Store, id: DomainId, trace: TraceRing) {
    this.id = id;
    this.#xen = xen;
    const mail = new SharedArrayBuffer(4);
    this.#mail = new Int32Array(mail);
    this.#store = new Connection(
      store,
      store.domains.obtain(id),
      () => this.#answerXenstore(),
      () => undefined,
    );
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    const start: ThreadStart = { state: xen.state, id, trace, mail };
    this.#worker = new Worker(new URL(`./${entry}.${extension}`, import.meta.url), { workerData: start });
    this.#worker.on('message', (message: FromThread) => this.#receive(message));
    this.#worker.on('error', (error) => this.#fail(error));
    this.#worker.on('exit', (status) => {
      if (!this.#stopping) this.#fail(new Error(`the thread of domain ${id} ended with status ${status}`));
    });
  }

  /** Calls a function of the thread. Rejects with CallFailed when it throws, or when the thread has died. */
  call<Name extends keyof Calls & string>(
    name: Name,
    argument: Parameters<Calls[Name]>[0],
  ): Promise<Awaited<ReturnType<Calls[Name]>>> {
    if (this.#failure) return Promise.reject(this.#failure);
    const id = ++this.#lastCall;
    const answer = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#post({ kind: 'call', id, name, argument });
    return answer as Promise<Awaited<ReturnType<Calls[Name]>>>;
  }

  /** Ends the thread, whatever it is doing. */
  async terminate(): Promise<void> {
    this.#stopping = true;
    await this.#worker.terminate();
  }

  #post(message: ToThread): void {
    this.#worker.postMessage(message);
    Atomics.add(this.#mail, 0, 1);
    this.#xen.events.wake(this.#xen.domain(this.id));
  }

  #receive(message: FromThread): void {
    switch (message.kind) {
      case 'notice':
        this.onNotice(message.notice);
        return;
      case 'xenstore':
        this.#unsent.push(message.bytes);
        this.#answerXenstore();
        return;
      case 'result':
        this.#take(message.id)?.resolve(message.value);
        return;
      case 'error':
        this.#take(message.id)?.reject(new CallFailed(message.errorName, message.message));
    }
  }

  #take(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }

  /** Gives the store what the domain sent, and the domain what the store has to say. */
  #answerXenstore(): void {
    while (this.#unsent.length > 0 && this.#store.listening) {
      // Taken off first: the store may call back from inside `receive`.
      const bytes = this.#unsent.shift()!;
      const taken = this.#giveXenstore(bytes);
      if (taken < bytes.length) this.#unsent.unshift(bytes.subarray(taken));
    }
    const reply = this.#store.peek();
    if (reply.length === 0) return;
    this.#post({ kind: 'xenstore', bytes: reply.slice() });
    this.#store.sent(reply.length);
    if (this.#unsent.length > 0) queueMicrotask(() => this.#answerXenstore());
  }

  /** Returns how much of `bytes` the store took. A domain that talks nonsense to it has failed. */
  #giveXenstore(bytes: Uint8Array): number {
    try {
      return this.#store.receive(bytes);
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.#fail(
        new Error(`domain ${this.id} broke the xenstore protocol: ${error.message}`, { cause: error }),
      );
      return bytes.length;
    }
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
