// `grantio xen-backend` at work: until a signal, or until the guests have gone to which it was attached.
// After xen-backend.ts, before serving/xen-server.ts.

import { loadLibc } from '../hosts/linux/libc.ts';
import { ProcessCounters } from '../serving/process-counters.ts';
import { XenServer } from '../serving/xen-server.ts';
import type { BackendTrace } from './backend-trace.ts';
import { startOperation } from './operation.ts';
import { Readiness } from './readiness.ts';
import { onInterrupt } from './signals.ts';
import type { XenPlan } from './xen-backend-plan.ts';

/** Serves what is planned. Resolves with the exit status. Rejects when it cannot be served. */
export async function runXenBackend({ work, folder, operation: wanted, json }: XenPlan): Promise<number> {
  const ending = folder === undefined ? 'closing the devices' : 'leaving the devices to a successor';
  const libc = loadLibc('grantio xen-backend');
  const readiness = new Readiness(libc);
  const operation = await startOperation(wanted);
  // The last of what may fail before something has to be ended: its file is to have an end.
  const trace = wanted.trace === undefined ? undefined : await followed(wanted.trace, work);
  const interruption = onInterrupt(ending);
  const watch = trace?.watch;
  const counters = new ProcessCounters(1, watch);
  try {
    await operation.measure(() => counters.figures);
    const server = new XenServer({ work, folder, watch, counters, onNotice: operation.log });
    interruption.onSignal(() => {
      readiness.stopping(ending);
      void server.end();
    });
    // A signal may come before there is anything to serve.
    const domain = await Promise.race([server.serving, server.ended.then(() => undefined)]);
    if (domain !== undefined) {
      const what = 'watch' in work ? 'watching xenstore' : `serving ${work.attach.length} devices`;
      operation.log({ level: 'info', device: '', message: `${what}, in domain ${domain}` });
      readiness.ready(what, () => server.ping());
      if (json) process.stdout.write(`${JSON.stringify(servedJson(work, domain))}\n`);
    }
    const failure = await server.ended;
    if (failure !== undefined) throw failure;
    return 0;
  } finally {
    readiness.close();
    trace?.close();
    await operation.close();
    interruption.release();
  }
}

/** What is loaded only for --trace. */
async function followed(path: string, work: XenPlan['work']): Promise<BackendTrace> {
  const { xenTrace } = await import('./xen-backend-trace.ts');
  return xenTrace(path, work);
}

function servedJson(work: XenPlan['work'], domain: number): unknown {
  if ('watch' in work) return { domain, watching: `/local/domain/${domain}/backend` };
  const devices = work.attach.map(({ name, spec, guest, base, irq, access }) => ({
    ...{ name, type: spec.kind, guest },
    ...{ base: `0x${base.toString(16)}`, irq, grants: access !== 'plain' },
  }));
  return { domain, devices };
}
