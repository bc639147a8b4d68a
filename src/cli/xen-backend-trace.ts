// What follows the devices of `grantio xen-backend`. Loaded only where somebody wants to know. After
// xen-backend-run.ts, before backend-trace.ts.

import type { XenWork } from '../serving/xen-thread.ts';
import { BackendTrace } from './backend-trace.ts';
import { SERVED_KINDS } from './serve-kinds.ts';

/**
 * @param path of the file
 * @throws UsageError when it cannot be written
 */
export function xenTrace(path: string, work: XenWork): BackendTrace {
  // Devices that xenstore announces are not known yet: they have numbers only.
  const attached = 'watch' in work ? [] : work.attach;
  const devices = attached.map(({ name, spec, guest }, device) => ({
    ...{ domain: guest, device, name },
    type: SERVED_KINDS[spec.kind].virtioId,
  }));
  const isPlain = attached.length > 0 && attached.every(({ access }) => access === 'plain');
  return new BackendTrace(path, { mode: isPlain ? 'plain' : 'grants', devices }, 0);
}
