// All devices of `grantio serve` in this process. Its threads take longest to start, so this file loads little: they
// start first, and what else is needed is loaded meanwhile. After serve-call.ts, before serving/vhost-server.ts.

import type { Notice } from '../serving/control.ts';
import { VhostServer } from '../serving/vhost-server.ts';
import type { BackendTrace } from './backend-trace.ts';
import type { Operation } from './operation.ts';
import type { PlannedDevice, ServePlan } from './serve-plan.ts';
import type { Service } from './serve-service.ts';
import type { OpenSocket } from './serve-sockets.ts';

/** A server, as a service. Its threads start with it. */
export class ServerService implements Service {
  readonly ended: Promise<Error | undefined>;
  readonly #server: VhostServer;
  /** Nothing happens before there is a log: devices are added later. */
  #log: (notice: Notice) => void = () => undefined;

  /** Throws NativeUnavailable where the system's C library cannot be called. */
  constructor({ workers, pollMicroseconds, restricted, devices }: ServePlan, trace?: BackendTrace) {
    let over: (failure?: Error) => void;
    this.ended = new Promise((resolve) => {
      over = resolve;
    });
    this.#server = new VhostServer({
      ...{ workers, pollMicroseconds, restricted },
      // Memory that its owner shrinks ends the process: with one guest that is its own loss.
      sealed: devices.length > 1,
      onNotice: (notice) => this.#log(notice),
      ...(trace && { watch: trace.watch }),
      onEnd: (failure) => {
        trace?.close();
        over(failure);
      },
    });
  }

  async operate({ log, measure }: Operation): Promise<void> {
    this.#log = log;
    await measure(() => this.#server.figures);
  }

  add({ name, spec }: PlannedDevice, socket: OpenSocket): Promise<void> {
    return this.#server.add({ name, device: spec, ...socket });
  }

  ping(): Promise<void> {
    return this.#server.ping();
  }

  end(): Promise<void> {
    return this.#server.end();
  }
}
