// A domain's thread for tests: a guest that writes to the store as fast as it can.

import { setImmediate as turn } from 'node:timers/promises';
import { startDomain } from './domain-loop.ts';

/** What the test may ask. */
export type WriterCalls = {
  /** Writes so often; resolves when the store has answered all of it. */
  write(times: number): Promise<void>;
};

const loop = startDomain(
  ({ xenstore }) =>
    ({
      async write(times: number) {
        const writes = Array.from({ length: times }, (_, i) => xenstore.write('device/k', `${i}`));
        await Promise.all(writes);
      },
    }) satisfies WriterCalls,
);

async function run(): Promise<void> {
  for (;;) {
    if (loop.hasMail()) await turn();
    if (!loop.ports.events.poll()) loop.ports.events.sleep(1000, loop.hasMail);
  }
}

void run();
