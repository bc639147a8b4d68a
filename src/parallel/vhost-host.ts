// A guest whose disk another program serves over vhost-user, in the hands of the main thread. After cli/; the thread
// is vhost-thread.ts.

import { CallThread } from './call-thread.ts';
import type { CopyResult } from './copy-job.ts';
import type { VhostGuestOptions } from './vhost-guest.ts';
import type { VhostCalls, VhostDisk, VhostProgress, VhostReport } from './vhost-thread.ts';

/** One guest, connected to its backend. */
export class VhostHost {
  readonly disk: VhostDisk;
  readonly #thread: CallThread<VhostCalls>;
  /** Called while the disk is copied. */
  onProgress: (progress: VhostProgress) => void = () => undefined;

  private constructor(thread: CallThread<VhostCalls>, disk: VhostDisk) {
    this.#thread = thread;
    this.disk = disk;
    thread.onNotice = (notice) => this.onProgress(notice as VhostProgress);
  }

  /**
   * Connects a guest with its backend and starts the disk.
   *
   * @throws CallFailed when that cannot be: `errorName` says whether this machine cannot call the C library
   *   (NativeUnavailable), nobody listens (SystemError), or the backend is of no use (DeviceRefused)
   */
  static async start(options: VhostGuestOptions): Promise<VhostHost> {
    const thread = new CallThread<VhostCalls>('vhost-thread', { name: 'the guest', workerData: null });
    try {
      return new VhostHost(thread, await thread.call('open', options));
    } catch (error) {
      await thread.terminate();
      throw error;
    }
  }

  /** Reads all of the disk and compares it with `image`; with what it held before, where there is none. */
  copy(image: string | undefined): Promise<CopyResult> {
    return this.#thread.call('copy', { image });
  }

  /** Ends a copy that is under way. */
  cancel(): Promise<void> {
    return this.#thread.call('cancel', undefined);
  }

  /** Serves the disk over NBD; returns its URIs. */
  openNbd(address: string, name: string): Promise<string[]> {
    return this.#thread.call('openNbd', { address, name });
  }

  /** Finishes what NBD clients have asked for, flushes, stops the guest and ends its thread. */
  async stop(): Promise<VhostReport> {
    try {
      return await this.#thread.call('stop', undefined);
    } finally {
      await this.#thread.terminate();
    }
  }
}
