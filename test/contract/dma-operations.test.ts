// All implementations of the port DmaOperations run the contract: each exposure mode, DMA without grants, a window,
// and DMA debugging around each.

import assert from 'node:assert/strict';
import { GNTST_OKAY } from '../../src/abi/grant.ts';
import { grantAddressOffset, grantAddressRef } from '../../src/abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import type { DmaAddress, DmaOperations } from '../../src/dma/dma.ts';
import { DmaDebug } from '../../src/dma/dma-debug.ts';
import { DmaDebugLog } from '../../src/dma/dma-debug-log.ts';
import { EXPOSURE_MODES, type ExposureMode, grantDma } from '../../src/dma/exposure-modes.ts';
import { PlainDma } from '../../src/dma/plain-dma.ts';
import { checkNothingShared, newSharing, type Sharing } from '../../src/dma/sharing.test.helper.ts';
import { newWindow } from '../../src/dma/window.test.helper.ts';
import { GrantCopies } from '../../src/xen/grant-copier.ts';
import { type DmaUnderTest, dmaOperationsContract } from './dma-operations.ts';

/** Enough for the longest mapping twice, the caller's and a copy. */
const PAGES = 640;

/** Where driver and device see the same bytes. */
const IN_PLACE: readonly ExposureMode[] = ['direct', 'copy'];

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

/** A backend that copies, and maps nothing but what it holds on to. */
function copyingDevice(sharing: Sharing): Device {
  const { backend, guest } = sharing;
  const { grantCopier } = backend.domain.ports;
  const place = grantCopier.takePages(PAGES / 2);
  const copies = new GrantCopies();
  /** The pieces of a buffer, page by page, each to or from its place in the backend's memory. */
  const list = ({ low, high }: DmaAddress, size: number) => {
    copies.clear();
    let offset = grantAddressOffset(low);
    for (let done = 0, ref = grantAddressRef(low, high); done < size; ref++) {
      const length = Math.min(size - done, XEN_PAGE_SIZE - offset);
      copies.add(ref, offset, length, place + done);
      done += length;
      offset = 0;
    }
    return copies;
  };
  const bytes = (size: number) => grantCopier.region.u8.subarray(place, place + size);
  return {
    read(at, size) {
      assert.equal(grantCopier.copyIn(guest.id, list(at, size)), GNTST_OKAY);
      return bytes(size).slice();
    },
    write(at, written) {
      bytes(written.length).set(written);
      assert.equal(grantCopier.copyOut(guest.id, list(at, written.length)), GNTST_OKAY);
    },
    mayWrite(at) {
      assert.equal(grantCopier.copyIn(guest.id, list(at, 1)), GNTST_OKAY);
      return grantCopier.copyOut(guest.id, list(at, 1)) === GNTST_OKAY;
    },
    hold: mappingDevice(sharing).hold,
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
  const { headroom } = references.usage();
  const taken = Array.from({ length: headroom - count }, () => references.allocate(1));
  return () => {
    for (const ref of taken) references.release(ref, 1);
  };
}

function make(
  grants: boolean,
  operations: (sharing: Sharing) => DmaOperations,
  debugs: boolean,
  deviceOf: (sharing: Sharing) => Device,
  version = 1,
): DmaUnderTest {
  const sharing = newSharing({ pages: PAGES, maxGrantFrames: version, backendPages: PAGES, version });
  const log = new DmaDebugLog(sharing.domain);
  const watched = { driver: 'contract', device: 'virtio0', number: 0, restricted: grants };
  const dma = operations(sharing);
  return {
    dma: debugs ? new DmaDebug(dma, log, watched) : dma,
    memory: sharing.domain.memory,
    device: deviceOf(sharing),
    leaveReferences: (count) => (grants ? leaveReferences(sharing, count) : undefined),
    checkNothingLeft() {
      checkNothingShared(sharing);
      assert.deepEqual(log.result.reports, []);
    },
  };
}

/** A backend that reaches a window and nothing else. */
function makeWindow(): DmaUnderTest {
  const { memory, window, dma, shared } = newWindow(PAGES, PAGES);
  const place = ({ low, high }: DmaAddress) => high * 2 ** 32 + low - window.address;
  return {
    dma,
    memory,
    coherent: window.domain.memory,
    device: {
      read: (at, size) => shared.slice(place(at), place(at) + size),
      write: (at, bytes) => shared.set(bytes, place(at)),
      mayWrite: () => undefined,
      hold: () => () => undefined,
    },
    leaveReferences: () => undefined,
    checkNothingLeft: () => assert.ok(shared.every((byte) => byte === 0)),
  };
}

dmaOperationsContract('WindowDma', { grants: false, copies: true }, makeWindow);

for (const debugs of [false, true]) {
  const around = debugs ? 'DmaDebug around ' : '';
  for (const mode of EXPOSURE_MODES)
    dmaOperationsContract(`${around}${mode}`, { grants: true, copies: !IN_PLACE.includes(mode) }, () => {
      const [deviceOf, version] = mode === 'copy' ? [copyingDevice, 2] : [mappingDevice, 1];
      return make(true, ({ grants }) => grantDma(mode, grants, 0), debugs, deviceOf, version);
    });
  dmaOperationsContract(`${around}PlainDma`, { grants: false, copies: false }, () =>
    make(false, ({ domain }) => new PlainDma(domain.memory), debugs, plainDevice),
  );
}
