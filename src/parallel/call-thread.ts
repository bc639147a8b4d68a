// A thread in the hands of the main thread: calls to it, and notices from it. The other end is call-answers.ts.

import { Worker } from 'node:worker_threads';
import { threadFile } from '../hosts/linux/thread-file.ts';
import { CallFailed, type CallTable, type FromThread, type ToThread } from './calls.ts';

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** What a thread is started with. */
export interface ThreadOptions {
  /** What messages about it call it. */
  readonly name: string;
  readonly workerData: unknown;
  /** Whether stacks of calls in the thread name the sources, not what they compile to. */
  readonly namesSources?: boolean;
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

  constructor(entry: string, { name, workerData, namesSources = false }: ThreadOptions) {
    this.#name = name;
    this.#worker = new Worker(threadFile(entry, import.meta.url, namesSources), {
      workerData,
      ...(namesSources && { execArgv: [...process.execArgv, '--enable-source-maps'] }),
    });
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

  /**
   * Ends the thread, whatever it is doing; calls that it has not answered fail.
   *
   * In Node 20 there is a moment in the end of each thread in which V8 may still allocate for it in the background,
   * where Node does not know it any more: should that ask for a collection, Node ends the process (node_platform.cc,
   * ForIsolate; nodejs/node pull 30909). A thread that ends by itself or by process.exit() is no better off, and one that
   * ends by itself may wait for ever (nodejs/node issue 54918). Node 24 has neither.
   */
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
