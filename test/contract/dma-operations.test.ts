// All implementations of the port DmaOperations run the contract: each exposure mode, DMA without grants, and
// DMA debugging around each.

import assert from 'node:assert/strict';
import { grantAddressRef } from '../../src/abi/grant-address.ts';
import type { DmaAddress, DmaOperations } from '../../src/dma/dma.ts';
import { DmaDebug } from '../../src/dma/dma-debug.ts';
import { DmaDebugLog } from '../../src/dma/dma-debug-log.ts';
import { EXPOSURE_MODES, grantDma } from '../../src/dma/exposure-modes.ts';
import { PlainDma } from '../../src/dma/plain-dma.ts';
import { checkNothingShared, newSharing, type Sharing } from '../../src/dma/sharing.test.helper.ts';
import { type DmaUnderTest, dmaOperationsContract } from './dma-operations.ts';

/** Enough for the longest mapping twice, the caller's and a copy. */
const PAGES = 640;

type Device = DmaUnderTest['device'];

/** A backend that maps what it uses. */
function mappingDevice({ backend }: Sharing): Device {
  return {
    read: (at, size) => backend.readAt(at, size),
    write: (at, bytes) => backend.writeAt(at, bytes),
    mayWrite({ low, high }) {
      const handle = backend.map(grantAddressRef(low, high));
      if (handle >= 0) backend.unmap(handle);
      return handle >= 0;
    },
    hold({ low, high }) {
      const handle = backend.map(grantAddressRef(low, high));
      assert.ok(handle >= 0);
      return () => backend.unmap(handle);
    },
  };
}

/** A backend that may reach all of the memory. */
function plainDevice({ domain }: Sharing): Device {
  const place = ({ low, high }: DmaAddress, size: number) => domain.memory.bytes(high * 2 ** 32 + low, size);
  return {
    read: (at, size) => Uint8Array.from(place(at, size)),
    write: (at, bytes) => place(at, bytes.length).set(bytes),
    mayWrite: () => undefined,
    hold: () => () => undefined,
  };
}

function leaveReferences({ domain }: Sharing, count: number): () => void {
  const { references } = domain;
  const taken = Array.from({ length: references.free - count }, () => references.allocate(1));
  return () => {
    for (const ref of taken) references.release(ref, 1);
  };
}

function make(
  grants: boolean,
  operations: (sharing: Sharing) => DmaOperations,
  debugs: boolean,
): DmaUnderTest {
  const sharing = newSharing({ pages: PAGES });
  const log = new DmaDebugLog(sharing.domain);
  const watched = { driver: 'contract', device: 'virtio0', number: 0, restricted: grants };
  const dma = operations(sharing);
  return {
    dma: debugs ? new DmaDebug(dma, log, watched) : dma,
    memory: sharing.domain.memory,
    device: grants ? mappingDevice(sharing) : plainDevice(sharing),
    leaveReferences: (count) => (grants ? leaveReferences(sharing, count) : undefined),
    checkNothingLeft() {
      checkNothingShared(sharing);
      assert.deepEqual(log.result.reports, []);
    },
  };
}

for (const debugs of [false, true]) {
  const around = debugs ? 'DmaDebug around ' : '';
  for (const mode of EXPOSURE_MODES)
    dmaOperationsContract(`${around}${mode}`, { grants: true, copies: mode !== 'direct' }, () =>
      make(true, ({ grants }) => grantDma(mode, grants, 0), debugs),
    );
  dmaOperationsContract(`${around}PlainDma`, { grants: false, copies: false }, () =>
    make(false, ({ domain }) => new PlainDma(domain.memory), debugs),
  );
}
