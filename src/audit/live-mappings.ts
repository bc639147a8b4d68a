// The mappings that domains have now, out of the trace: those of a domain that dies end with it, without an unmap of its
// own. Used by parallel/virtual-host.ts.

import type { Tracer } from '../trace.ts';
import type { TraceConsumer, TraceEvent } from './events.ts';

/** Follows the mappings of all domains. */
export class LiveMappings implements TraceConsumer {
  /** By mapper and handle. */
  readonly #live = new Map<number, Map<number, { readonly owner: number; readonly ref: number }>>();

  consume(event: TraceEvent): void {
    if (event.kind === 'map')
      this.#of(event.mapper).set(event.handle, { owner: event.owner, ref: event.ref });
    else if (event.kind === 'unmap') this.#of(event.mapper).delete(event.handle);
  }

  /** Reports that all mappings of `mapper` are over, when the hypervisor has taken it apart. */
  end(mapper: number, tracer: Tracer): void {
    for (const [handle, { owner, ref }] of this.#of(mapper)) tracer.unmap(mapper, owner, ref, handle);
  }

  #of(mapper: number) {
    const known = this.#live.get(mapper) ?? new Map<number, { owner: number; ref: number }>();
    this.#live.set(mapper, known);
    return known;
  }
}
