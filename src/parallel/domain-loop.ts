// What every domain's thread starts with: its ports of the embedded Xen, its xenstore, its tracer, and the
// calls of the main thread. The other end is domain-thread.ts.

import { parentPort, workerData } from 'node:worker_threads';
import { RingTracer } from '../audit/trace-ring.ts';
import { assert } from '../errors.ts';
import { sleepWhile } from '../hosts/model/waiting.ts';
import { type DomainPorts, Xen } from '../hosts/model/xen.ts';
import { openXenstore } from '../machine/store-link.ts';
import type { Xenstore } from '../xen/xenstore.ts';
import { answer } from './call-answers.ts';
import type { CallTable, FromThread, ToThread } from './calls.ts';
import { nanoseconds } from './clock.ts';
import type { ThreadStart } from './domain-thread.ts';

/** A domain's thread from the inside. */
export interface DomainLoop {
  readonly ports: DomainPorts;
  /** Moves whenever the domain polls its events. */
  readonly xenstore: Xenstore;
  /**
   * Whether something waits for a turn of the event loop: messages that only it delivers, calls under way, or
   * code that the store has answered.
   */
  hasMail(): boolean;
  /** Tells the main thread something that it did not ask for. */
  notify(notice: unknown): void;
}

/**
 * Takes up the domain that this thread was started for.
 *
 * @param calls what the main thread may ask of it, made once the domain's ports exist
 */
export function startDomain(calls: (loop: DomainLoop) => CallTable): DomainLoop {
  const port = parentPort;
  assert(port !== null, 'a domain runs in a thread of its own');
  const start = workerData as ThreadStart;
  const mail = new Int32Array(start.mail);
  const ports = new Xen(start.state).ports(start.id, sleepWhile, new RingTracer(start.trace, nanoseconds));
  let seenMail = 0;
  let running = 0;
  let answered = false;
  const loop: DomainLoop = {
    ports,
    xenstore: openXenstore(ports, start.store, () => {
      answered = true;
      setImmediate(() => {
        answered = false;
      });
    }),
    hasMail: () => running > 0 || answered || Atomics.load(mail, 0) !== seenMail,
    notify: (notice) => port.postMessage({ kind: 'notice', notice } satisfies FromThread),
  };
  const table = calls(loop);
  port.on('message', (message: ToThread) => {
    seenMail++;
    running++;
    void answer(table, message).then((reply) => {
      running--;
      port.postMessage(reply);
    });
  });
  return loop;
}
