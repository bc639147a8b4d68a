// What single steps cost: granting and revoking a page, and the hypercalls that map and unmap it.

import { BounceDma } from '../src/dma/bounce-dma.ts';
import { DirectDma } from '../src/dma/direct-dma.ts';
import type { DmaOperations } from '../src/dma/dma.ts';
import { Grants } from '../src/dma/grants.ts';
import { Machine } from '../src/machine/machine.ts';
import { DMA_FROM_DEVICE } from '../src/trace.ts';
import { type Figure, measure } from './figures.ts';

const TIMES = 100_000;
const ROUNDS = 9;
const PAGE = 4096;

function perCall(step: () => void): number {
  const start = process.hrtime.bigint();
  for (let i = 0; i < TIMES; i++) step();
  return Number(process.hrtime.bigint() - start) / TIMES;
}

/** map and unmap of a 4 KiB buffer as the frontend does it, without a backend. */
function benchDma(dma: DmaOperations, address: number): () => number {
  const mapped = { low: 0, high: 0 };
  return () =>
    perCall(() => {
      dma.map(address, PAGE, DMA_FROM_DEVICE, mapped);
      dma.unmap(mapped.low, mapped.high, PAGE, DMA_FROM_DEVICE);
    });
}

export async function benchGrants(): Promise<Figure[]> {
  const machine = new Machine({ seed: 1 });
  const backend = machine.createBackend(1).ports;
  const guest = machine.createGuest(2);
  const address = guest.ports.memory.allocatePages(1)!;
  const grants = () => new Grants(guest.granting, backend.id);
  const shared = grants();
  const ref = shared.share(address / PAGE, 1, false);
  const candidates = [
    { name: 'frontend map + unmap, direct', round: benchDma(new DirectDma(grants(), 0), address) },
    { name: 'frontend map + unmap, bounce', round: benchDma(new BounceDma(grants(), 1), address) },
    {
      name: 'hypervisor map + unmap',
      round: () =>
        perCall(() => backend.grantMapper.unmap(backend.grantMapper.map(guest.ports.id, ref, false))),
    },
  ];
  const figures = await measure('one page, one thread', 'ns', candidates, ROUNDS);
  shared.unshare(ref, 1);
  return figures;
}
