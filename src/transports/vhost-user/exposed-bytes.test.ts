// What a meter is told of the memory that the backend can reach: all that the frontend gave, or what its IOMMU maps.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { regionOver } from '../../abi/region.ts';
import { RngDevice } from '../../devices/rng.ts';
import { LocalRings } from './local-rings.ts';

const MEMORY = 2 ** 20;
const PAGE = 4096;
const regions = [{ guest: 0, user: 0x1000_0000, size: MEMORY, memory: regionOver(new ArrayBuffer(MEMORY)) }];
const ignore = (): undefined => undefined;

/** Rings, and the number of bytes that their meter heard last. */
function meteredRings(): { readonly rings: LocalRings; readonly heard: { bytes: number } } {
  const heard = { bytes: 0 };
  const queue = {
    ...{ turn: ignore, taken: ignore, refused: ignore, completed: ignore },
    ...{ interrupted: ignore, closed: ignore },
  };
  const meter = {
    queue: () => queue,
    notified: ignore,
    exposed: (bytes: number) => {
      heard.bytes = bytes;
    },
  };
  const events = { interrupt: ignore, failed: ignore, miss: ignore, configChanged: ignore };
  return { rings: new LocalRings(new RngDevice(ignore), events, ignore, meter), heard };
}

test('without an IOMMU all of the memory is exposed, and nothing when it is taken away', () => {
  const { rings, heard } = meteredRings();
  rings.setMemory({ regions, translated: false, log: undefined });
  assert.equal(heard.bytes, MEMORY);
  rings.setMemory({ regions: [], translated: false, log: undefined });
  assert.equal(heard.bytes, 0);
});

test('behind an IOMMU what is translated is exposed, until it is invalidated', () => {
  const { rings, heard } = meteredRings();
  rings.setMemory({ regions, translated: true, log: undefined });
  assert.equal(heard.bytes, 0);
  rings.translate({ iova: 0x5000, user: 0x1000_0000, size: 3 * PAGE, right: 3 });
  rings.translate({ iova: 0x9_0000, user: 0x1000_4000, size: PAGE, right: 1 });
  assert.equal(heard.bytes, 4 * PAGE);
  rings.invalidate(0x5000, PAGE);
  assert.equal(heard.bytes, PAGE);
});
