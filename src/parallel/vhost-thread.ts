// The thread of a guest whose disk is served by another program over vhost-user: copies the disk, or serves it to NBD
// clients, and accounts for what the backend could reach. Started by vhost-host.ts; after it vhost-guest.ts.

import { parentPort, workerData } from 'node:worker_threads';
import type { TraceConsumer } from '../audit/events.ts';
import { DirectTracer } from '../audit/event-tracer.ts';
import { Exposure, type TotalExposure } from '../audit/exposure.ts';
import { Throughput } from '../audit/throughput.ts';
import type { BlkDriver } from '../drivers/blk.ts';
import { DiskError } from '../drivers/disk.ts';
import { assert } from '../errors.ts';
import { loadLibc } from '../hosts/linux/libc.ts';
import { parseNbdAddress } from '../nbd/address.ts';
import { NbdServer } from '../nbd/server.ts';
import { answer } from './call-answers.ts';
import type { CallTable, FromThread, ToThread } from './calls.ts';
import { nanoseconds } from './clock.ts';
import { CopyJob, type CopyResult } from './copy-job.ts';
import { type ExpectedContent, ImageContent, SeenContent } from './expected-content.ts';
import { GuestRunner } from './guest-runner.ts';
import { VhostGuest, type VhostGuestOptions } from './vhost-guest.ts';

/** What there is to know of the disk when it works. */
export interface VhostDisk {
  /** Bytes. */
  readonly capacity: number;
  readonly readOnly: boolean;
}

/** What a run has come to. */
export interface VhostReport {
  readonly exposure: TotalExposure;
  /** What was done, all of it. */
  readonly work: Throughput['total'];
  /** Most bytes of buffers and rings that were in the window at a time. */
  readonly mostLiveBytes: number;
  /** How often the disk was reset because something was wrong, and how often its backend was replaced. */
  readonly resets: number;
  readonly reconnections: number;
  /** Why what clients wrote last may be lost, if it may. */
  readonly unflushed: string | undefined;
}

/** What the main thread may ask, `open` first. */
export type VhostCalls = {
  open(options: VhostGuestOptions): VhostDisk;
  /** Reads the disk and compares it with `image`, or with itself where there is none. Notices tell of the progress. */
  copy(argument: { image: string | undefined }): Promise<CopyResult>;
  /** Ends a copy early. */
  cancel(argument: undefined): void;
  /** Serves the disk over NBD; returns its URIs. */
  openNbd(argument: { address: string; name: string }): Promise<string[]>;
  /** Finishes what NBD clients have asked for, flushes the disk, stops the guest, and says what there is to say. */
  stop(argument: undefined): Promise<VhostReport>;
};

/** Bytes that a copy has read so far. */
export interface VhostProgress {
  readonly bytes: number;
}

/** How many bytes drivers had shared at most at a time. */
class MostLive implements TraceConsumer {
  most = 0;
  readonly #exposure: Exposure;

  constructor(exposure: Exposure) {
    this.#exposure = exposure;
  }

  consume(): void {
    this.most = Math.max(this.most, this.#exposure.neededBytes);
  }
}

/** The calls of one thread. */
function calls(notify: (notice: VhostProgress) => void): VhostCalls & CallTable {
  const exposure = new Exposure();
  const live = new MostLive(exposure);
  const throughput = new Throughput();
  let guest: VhostGuest | undefined;
  let runner: GuestRunner | undefined;
  let job: CopyJob | undefined;
  let cancelled = false;
  let server: NbdServer | undefined;

  const opened = () => {
    assert(guest !== undefined && runner !== undefined, 'a guest is opened before it is used');
    return { guest, runner };
  };

  /** Reads all of the disk once. */
  const readAll = async (content: ExpectedContent, before: number) => {
    const own = opened();
    job = new CopyJob(own.guest, own.guest.disk);
    job.cancelled = cancelled;
    return own.runner.pausedWhile(job.run(content, (bytes) => notify({ bytes: before + bytes })));
  };

  return {
    open(options) {
      guest = new VhostGuest(
        loadLibc('vhost-user'),
        options,
        new DirectTracer([exposure, live, throughput], nanoseconds),
      );
      runner = new GuestRunner(guest);
      void runner.run();
      return { capacity: guest.disk.capacity, readOnly: guest.disk.readOnly };
    },
    async copy({ image }) {
      const content = image === undefined ? new SeenContent() : new ImageContent(image);
      try {
        const first = await readAll(content, 0);
        if (image !== undefined || !first.identical) return first;
        return together(first, await readAll(content, first.bytes));
      } finally {
        content.close();
      }
    },
    cancel() {
      cancelled = true;
      guest?.stopWaiting();
      if (job !== undefined) job.cancelled = true;
    },
    async openNbd({ address, name }) {
      server = new NbdServer([{ name, disk: opened().guest.disk }]);
      return server.listen(parseNbdAddress(address));
    },
    async stop() {
      const own = opened().guest;
      own.stopWaiting();
      await server?.close();
      const unflushed = server === undefined ? undefined : await flush(own.disk);
      const { disk, reconnections } = own;
      const { resets } = disk;
      own.close();
      const { total: work } = throughput;
      return { exposure: exposure.total(), work, mostLiveBytes: live.most, resets, reconnections, unflushed };
    },
  };
}

/** Flushes a disk that clients may have written to. Returns why that was not done. */
async function flush(disk: BlkDriver): Promise<string | undefined> {
  if (disk.readOnly) return undefined;
  try {
    await disk.flush();
    return undefined;
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    return error.message;
  }
}

/** One result of two readings. */
function together(first: CopyResult, second: CopyResult): CopyResult {
  return {
    ...second,
    bytes: first.bytes + second.bytes,
    requests: first.requests + second.requests,
    nanoseconds: first.nanoseconds + second.nanoseconds,
  };
}

const port = parentPort;
assert(port !== null && workerData === null, 'a guest runs in a thread of its own');
const table = calls((notice) => port.postMessage({ kind: 'notice', notice } satisfies FromThread));
port.on(
  'message',
  (message: ToThread) => void answer(table, message).then((reply) => port.postMessage(reply)),
);
