// A thread in the hands of the main thread: calls to it, and notices from it. The other end is call-answers.ts.

import type { Worker } from 'node:worker_threads';
import { startThread, type ThreadOptions } from '../hosts/linux/thread.ts';
import { CallFailed, type CallTable, type FromThread, type ToThread } from './calls.ts';

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** What a thread is started with. */
export interface CallThreadOptions extends ThreadOptions {
  /** What messages about it call it. */
  readonly name: string;
}

/** Runs `entry`, a file of this folder, in a thread. */
export class CallThread<Calls extends CallTable> {
  readonly #name: string;
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #lastCall = 0;
  #failure: Error | undefined;
  readonly #end = new AbortController();
  #stopping = false;
  /** Called for each notice of the thread. */
  onNotice: (notice: unknown) => void = () => undefined;

  constructor(entry: string, { name, ...options }: CallThreadOptions) {
    this.#name = name;
    this.#worker = startThread(entry, import.meta.url, options);
    this.#worker.on('message', (message: FromThread) => this.#receive(message));
    this.#worker.on('error', (error) => this.#fail(error));
    this.#worker.on('exit', (status) => {
      if (!this.#stopping) this.#fail(new Error(`the thread of ${name} ended with status ${status}`));
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
    this.#worker.postMessage({ id, name, argument } satisfies ToThread);
    this.posted();
    return answer as Promise<Awaited<ReturnType<Calls[Name]>>>;
  }

  /** Ends the thread, whatever it is doing; calls that it has not answered fail. */
  async terminate(): Promise<void> {
    this.#stopping = true;
    await this.#worker.terminate();
    this.#fail(new CallFailed('DomainEnded', `${this.#name} was ended`));
  }

  /** A message is on its way: wakes a thread that sleeps outside its event loop. */
  protected posted(): void {
    // The event loop wakes by itself.
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
