// Counts what one device of a driver domain does: its queues as everywhere, and beside them its driver, which comes and
// goes with its queues, and what is mapped of the guest's. Made by xen-loop.ts; after device-counters.ts.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { ServedMeter } from '../machine/backend-domain.ts';
import type { QueueMeter } from '../virtqueue/queue-meter.ts';
import type { RequestTracer } from '../virtqueue/traced-queue.ts';
import { CONTROL_BLOCK, controlBlock, queueBlock } from './counter-blocks.ts';
import { DeviceCounters } from './device-counters.ts';

const { at } = CONTROL_BLOCK;

/** The counters of one device, all of them written by this thread. */
export class XenCounters extends DeviceCounters implements ServedMeter {
  readonly #control: Float64Array;

  /**
   * @param counters for one worker (counter-blocks.ts)
   * @param kind of device
   * @param requests told of its requests; nobody is unless given
   */
  constructor(counters: SharedArrayBuffer, kind: string, requests?: RequestTracer) {
    super(queueBlock(counters, 0), kind, requests);
    this.#control = controlBlock(counters);
  }

  override queue(index: number, size: number): QueueMeter {
    if (this.enabledQueues === 0) {
      this.#control[at.sessions]++;
      this.#control[at.connectedSince] = Date.now() / 1000;
      this.#control[at.connected] = 1;
    }
    return super.queue(index, size);
  }

  mapped(pages: number): void {
    this.#control[at.mappings] += pages;
    this.#control[at.mappedBytes] += pages * XEN_PAGE_SIZE;
    // It reaches what it has mapped, and nothing else.
    this.exposed(this.#control[at.mappedBytes]);
  }

  protected override queueClosed(): void {
    super.queueClosed();
    if (this.enabledQueues === 0) this.#control[at.connected] = 0;
  }
}
