// The tracers of the threads that serve: loaded only where somebody follows what may be reached. After control-thread.ts
// and queue-thread.ts; before traced-rings.ts and audit/need-reporter.ts.

import { NeedReporter } from '../audit/need-reporter.ts';
import { RingTracer, type TraceRing } from '../audit/trace-ring.ts';
import type { NeedTracer } from '../memory/traced-memory.ts';
import { nanoseconds } from '../parallel/clock.ts';
import type { RingRunner } from '../transports/vhost-user/platform.ts';
import { DeviceReach, Handles } from './device-reach.ts';
import { RingNeeds } from './ring-needs.ts';
import { DEVICE, guestAt } from './traced-numbers.ts';
import { TracedRings } from './traced-rings.ts';

/**
 * How long a page may stay mapped after its last use, in nanoseconds: the guest's IOMMU driver takes it away when it has
 * heard that the request is done; Linux, which may collect what is to go, waits no longer than this with it
 * (drivers/iommu/dma-iommu.c, IOVA_DEFAULT_FQ_TIMEOUT).
 */
const STALE_LIMIT = 10e6;

/** Reports, for a worker, what requests of an endpoint's guest have in hand. It never waits. */
export function needsIn(ring: TraceRing): (endpoint: number) => NeedTracer {
  const reporter = new NeedReporter(new RingTracer(ring, nanoseconds, false));
  return (endpoint) => reporter.of(guestAt(endpoint), DEVICE);
}

/** Reports, for the control thread, what the rings of a session at an endpoint can reach. It waits for room. */
export function ringsTracedIn(ring: TraceRing): (endpoint: number, rings: RingRunner) => TracedRings {
  const tracer = new RingTracer(ring, nanoseconds);
  const handles = new Handles();
  return (endpoint, rings) => {
    const guest = guestAt(endpoint);
    tracer.staleLimit(guest, DEVICE, STALE_LIMIT);
    return new TracedRings(rings, new DeviceReach(tracer, handles, guest), new RingNeeds(tracer, guest));
  };
}
