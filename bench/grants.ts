// What a frontend pays for granting and revoking a page.

import type { DmaOperations } from '../src/dma/dma.ts';
import { DmaDebug } from '../src/dma/dma-debug.ts';
import { DmaDebugLog } from '../src/dma/dma-debug-log.ts';
import { type ExposureMode, grantDma } from '../src/dma/exposure-modes.ts';
import { Grants } from '../src/dma/grants.ts';
import { Machine } from '../src/machine/machine.ts';
import { DMA_FROM_DEVICE } from '../src/trace.ts';
import { type Figure, measure } from './figures.ts';

const TIMES = 100_000;
/** Debugging takes that much longer. */
const TIMES_DEBUGGED = TIMES / 20;
const ROUNDS = 9;
const PAGE = 4096;
const GROUP = 'one 4 KiB page, one thread';

function perCall(step: () => void, times = TIMES): number {
  const start = process.hrtime.bigint();
  for (let i = 0; i < times; i++) step();
  return Number(process.hrtime.bigint() - start) / times;
}

/** One page of a guest, and a backend's domain to share it with. */
function scene(mode: ExposureMode) {
  const machine = new Machine({ seed: 1, architecture: 'x86' });
  const backend = machine.createBackend(1).ports;
  const guest = machine.createGuest(2);
  // The only one whose entries grant parts of pages.
  if (mode === 'copy') guest.ports.grantTable.setVersion(2);
  const address = guest.ports.memory.allocatePages(1)!;
  return { backend, guest, address, grants: new Grants(guest.dma.granting, backend.id) };
}

/** map and unmap of a 4 KiB buffer as the frontend does it, without a backend; and the same under DMA debugging. */
export function benchMapping(mode: ExposureMode): Promise<Figure[]> {
  const { address, grants, guest } = scene(mode);
  const dma = grantDma(mode, grants, 0);
  const device = { driver: 'bench', device: 'virtio0', number: 0, restricted: true };
  const debug = new DmaDebug(dma, new DmaDebugLog(guest.dma.granting), device);
  const mapped = { low: 0, high: 0 };
  const round = (dma: DmaOperations, times: number) =>
    perCall(() => {
      dma.map(address, PAGE, DMA_FROM_DEVICE, mapped);
      dma.unmap(mapped.low, mapped.high, PAGE, DMA_FROM_DEVICE);
    }, times);
  const candidates = [
    { name: `frontend: map + unmap, ${mode}`, round: () => round(dma, TIMES) },
    { name: `the same with DMA debugging, ${mode}`, round: () => round(debug, TIMES_DEBUGGED) },
  ];
  return measure(GROUP, 'ns', candidates, ROUNDS);
}
