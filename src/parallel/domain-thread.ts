// A domain's thread in the hands of the main thread. After call-thread.ts; the other end is domain-loop.ts.

import type { TraceRing } from '../audit/trace-ring.ts';
import type { XenState } from '../hosts/model/state.ts';
import type { Xen } from '../hosts/model/xen.ts';
import type { StoreLink } from '../machine/store-link.ts';
import type { DomainId } from '../xen/ids.ts';
import { CallThread } from './call-thread.ts';
import type { CallTable } from './calls.ts';

/** What a domain's thread is started with. */
export interface ThreadStart {
  readonly state: XenState;
  readonly id: DomainId;
  readonly store: StoreLink;
  readonly trace: TraceRing;
  /** One word that changes with every message, for a thread that sleeps outside its event loop. */
  readonly mail: SharedArrayBuffer;
}

/** Runs `entry`, a file of this folder, as the processor of one domain. */
export class DomainThread<Calls extends CallTable> extends CallThread<Calls> {
  readonly id: DomainId;
  readonly #xen: Xen;
  readonly #mail: Int32Array;

  /** @param namesSources whether stacks of calls in the thread name the sources, not what they compile to */
  constructor(
    entry: string,
    xen: Xen,
    id: DomainId,
    store: StoreLink,
    trace: TraceRing,
    namesSources = false,
  ) {
    const mail = new SharedArrayBuffer(4);
    const workerData: ThreadStart = { state: xen.state, id, store, trace, mail };
    super(entry, { name: `domain ${id}`, workerData, namesSources });
    this.id = id;
    this.#xen = xen;
    this.#mail = new Int32Array(mail);
  }

  protected override posted(): void {
    Atomics.add(this.#mail, 0, 1);
    this.#xen.events.wake(this.#xen.domain(this.id));
  }
}
