// The tracers of the threads that serve, where somebody follows what may be reached. After control-thread.ts and
// queue-thread.ts; before traced-rings.ts and audit/need-reporter.ts.

import { NeedReporter } from '../audit/need-reporter.ts';
import { RingTracer, type TraceRing } from '../audit/trace-ring.ts';
import type { NeedTracer } from '../memory/traced-memory.ts';
import { nanoseconds } from '../parallel/clock.ts';
import type { RingRunner } from '../transports/vhost-user/platform.ts';
import type { RequestTracer } from '../virtqueue/traced-queue.ts';
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

/** More than there are threads: their requests differ in what is left of their numbers when they are divided by it. */
const MOST_THREADS = 1024;

/** What a worker reports. */
export interface WorkerTracing {
  /** What requests of an endpoint's guest have in hand. */
  needsOf(endpoint: number): NeedTracer;
  /** The requests themselves. */
  requestsOf(endpoint: number): RequestTracer;
}

/** Reports for a worker. It never waits. */
export function workerTracing(ring: TraceRing): WorkerTracing {
  let last = ring.thread;
  const nextId = (): number => {
    last += MOST_THREADS;
    return last;
  };
  const reporter = new NeedReporter(new RingTracer(ring, nanoseconds, false), nextId);
  return {
    needsOf: (endpoint) => reporter.needsOf(guestAt(endpoint), DEVICE),
    requestsOf: (endpoint) => reporter.requestsOf(guestAt(endpoint), DEVICE),
  };
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
