// A guest with a window for one device, in plain memory: what the backend of the window has is `shared`.

import { regionOver } from '../abi/region.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { noTrace, type Tracer } from '../trace.ts';
import { domainId } from '../xen/ids.ts';
import { GuestHeap } from './guest-heap.ts';
import { GuestMemory } from './guest-memory.ts';
import { SharedWindow } from './shared-window.ts';
import { WindowDma } from './window-dma.ts';

/** Above 4 GiB, so that both halves of an address matter. */
export const WINDOW_BASE = 0x1_4000_0000;

/** A guest's memory, and the window at its end. */
export interface WindowUnderTest {
  readonly memory: GuestMemory;
  readonly heap: GuestHeap;
  readonly window: SharedWindow;
  readonly dma: WindowDma;
  /** The bytes of the window: all that its backend can reach. */
  readonly shared: Uint8Array;
}

/** A guest of `pages` pages of its own and `windowPages` in its window. */
export function newWindow(pages: number, windowPages: number, tracer: Tracer = noTrace): WindowUnderTest {
  const region = regionOver(new ArrayBuffer((pages + windowPages) * XEN_PAGE_SIZE));
  const memory = new GuestMemory(region, WINDOW_BASE);
  const size = windowPages * XEN_PAGE_SIZE;
  const window = new SharedWindow(memory, size, { domain: domainId(2), device: 0, backend: 1, tracer });
  const shared = region.u8.subarray(pages * XEN_PAGE_SIZE);
  return { memory, heap: new GuestHeap(memory), window, dma: new WindowDma(window), shared };
}
