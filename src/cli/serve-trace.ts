// What follows the devices of `grantio serve`. Loaded only where somebody wants to know. After serve-call.ts, before
// backend-trace.ts.

import { DEVICE, guestAt } from '../serving/traced-numbers.ts';
import { BackendTrace } from './backend-trace.ts';
import { SERVED_KINDS } from './serve-kinds.ts';
import type { ServePlan } from './serve-plan.ts';

/** Throws UsageError when the file of --trace cannot be written. */
export function serveTrace({ operation, devices, restricted, workers }: ServePlan): BackendTrace {
  const traced = devices.map(({ name, spec }, endpoint) => ({
    domain: guestAt(endpoint),
    device: DEVICE,
    name,
    type: SERVED_KINDS[spec.kind].virtioId,
  }));
  return new BackendTrace(
    operation.trace,
    { mode: restricted ? 'iommu' : 'plain', devices: traced },
    workers,
  );
}
