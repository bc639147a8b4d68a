// A domain's thread in the hands of the main thread: calls to it, and notices from it. The other end is
// domain-loop.ts.

import { Worker } from 'node:worker_threads';
import type { TraceRing } from '../audit/trace-ring.ts';
import type { XenState } from '../hosts/model/state.ts';
import type { Xen } from '../hosts/model/xen.ts';
import type { StoreLink } from '../machine/store-link.ts';
import type { DomainId } from '../xen/ids.ts';
import { CallFailed, type CallTable, type FromThread, type ToThread } from './calls.ts';

/** What a domain's thread is started with. */
export interface ThreadStart {
  readonly state: XenState;
  readonly id: DomainId;
  readonly store: StoreLink;
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
  readonly #waiting = new Map<number, Waiting>();
  #lastCall = 0;
  #failure: Error | undefined;
  readonly #end = new AbortController();
  #stopping = false;
  /** Called for each notice of the thread. */
  onNotice: (notice: unknown) => void = () => undefined;

  /** @param namesSources whether stacks of calls in the thread name the sources, not what they compile to */
  constructor(
    entry: string,
    xen: Xen,
    id: DomainId,
    store: StoreLink,
    trace: TraceRing,
    namesSources = false,
  ) {
    this.id = id;
    this.#xen = xen;
    const mail = new SharedArrayBuffer(4);
    this.#mail = new Int32Array(mail);
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    const start: ThreadStart = { state: xen.state, id, store, trace, mail };
    this.#worker = new Worker(new URL(`./${entry}.${extension}`, import.meta.url), {
      workerData: start,
      ...(namesSources && { execArgv: [...process.execArgv, '--enable-source-maps'] }),
    });
    this.#worker.on('message', (message: FromThread) => this.#receive(message));
    this.#worker.on('error', (error) => this.#fail(error));
    this.#worker.on('exit', (status) => {
      if (!this.#stopping) this.#fail(new Error(`the thread of domain ${id} ended with status ${status}`));
    });
  }

  /** Aborted when the thread has died or was ended, with the reason. */
  get ended(): AbortSignal {
    return this.#end.signal;
  }

  /** Calls a function of the thread. Rejects with CallFailed when it throws, or when the thread has died. */
  call<Name extends keyof Calls & string>(
    name: Name,
    argument: Parameters<Calls[Name]>[0],
  ): Promise<Awaited<ReturnType<Calls[Name]>>> {
    if (this.#failure) return Promise.reject(this.#failure);
    const id = ++this.#lastCall;
    const answer = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#post({ id, name, argument });
    return answer as Promise<Awaited<ReturnType<Calls[Name]>>>;
  }

  /** Ends the thread, whatever it is doing; calls that it has not answered fail. */
  async terminate(): Promise<void> {
    this.#stopping = true;
    await this.#worker.terminate();
    this.#fail(new CallFailed('DomainEnded', `domain ${this.id} was ended`));
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

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#end.abort(this.#failure);
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
