// `grantio serve` at work: devices served in this process until a signal, with systemd told how it goes.
// After serve-call.ts, before serve-service.ts.

import { loadLibc } from '../hosts/linux/libc.ts';
import type { ServePlan } from './serve-plan.ts';
import type { Service } from './serve-service.ts';
import { type Operation, startOperation } from './operation.ts';
import { Readiness } from './readiness.ts';
import { ServeSockets } from './serve-sockets.ts';
import { type Interruption, onInterrupt } from './signals.ts';

/** Serves what is planned by `service`, until a signal. Resolves with the exit status. Rejects when it cannot be served. */
export async function runServe(plan: ServePlan, service: Service): Promise<number> {
  const libc = loadLibc('grantio serve');
  const interruption = onInterrupt('ending the connections');
  const sockets = new ServeSockets(libc);
  let operation: Operation | undefined;
  try {
    const readiness = new Readiness(libc);
    operation = await startOperation(plan.operation);
    await service.operate(operation);
    for (const device of plan.devices) await sockets.open(device, (socket) => service.add(device, socket));
    readiness.ready(`serving ${plan.devices.map(({ name }) => name).join(', ')}`, () => service.ping());
    // A supervisor says it for this process.
    if (process.send !== undefined) process.send('ready');
    else sayServed(plan, operation.log);
    endOnRequest(interruption, service, readiness);
    const failure = await service.ended;
    readiness.close();
    if (failure !== undefined) throw failure;
    return 0;
  } finally {
    await service.end();
    await sockets.remove();
    await operation?.close();
    interruption.release();
    // The channel to a supervisor would keep this process.
    if (process.connected) process.disconnect();
  }
}

function sayServed({ devices, json }: ServePlan, log: Operation['log']): void {
  for (const { name, place } of devices) {
    const where =
      'path' in place ? place.path : 'fd' in place ? `descriptor ${place.fd}` : "systemd's socket";
    log({ level: 'info', device: name, message: `served at ${where}` });
  }
  if (!json) return;
  const served = devices.map(({ name, spec, place }) => ({ name, type: spec.kind, ...place }));
  process.stdout.write(`${JSON.stringify({ devices: served })}\n`);
}

/** A signal ends the service, and so does the end of a process that supervises this one. */
function endOnRequest(interruption: Interruption, service: Service, readiness: Readiness): void {
  const end = () => {
    readiness.stopping('ending the connections');
    void service.end();
  };
  interruption.onSignal(end);
  if (process.send !== undefined) process.once('disconnect', end);
}
