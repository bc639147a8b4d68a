// Messages between the main thread and a domain's thread: calls with one answer each, and notices.

/** What a thread can be asked to do, by name. Arguments and results are structured clones. */
export interface CallTable {
  readonly [name: string]: (argument: never) => unknown;
}

/** To a domain's thread. */
export interface ToThread {
  readonly id: number;
  readonly name: string;
  readonly argument: unknown;
}

/** From a domain's thread. */
export type FromThread =
  | { readonly kind: 'result'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: number; readonly errorName: string; readonly message: string }
  | { readonly kind: 'notice'; readonly notice: unknown };

/** A call that failed in the other thread, for the reason that the message gives. */
export class CallFailed extends Error {
  /** Name of the error's class there. */
  readonly errorName: string;

  constructor(errorName: string, message: string) {
    super(message);
    this.name = 'CallFailed';
    this.errorName = errorName;
  }
}
