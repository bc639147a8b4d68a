// All implementations of the port GrantMapper run the contract: the embedded Xen's, and that over /dev/xen/gntdev with a
// kernel that is played. On a real Xen, test/xen runs it.

import { addDomain, bootTestMachine, TEST_HANDLES } from '../../src/hosts/model/domains.test.helper.ts';
import { FakeKernel } from '../../src/hosts/linux/xen/fake-kernel.test.helper.ts';
import { openXenHost } from '../../src/hosts/linux/xen/host.ts';
import { arenaOfTest, native } from '../../src/hosts/linux/native.test.helper.ts';
import { domainId, type FrameNumber, type GrantRef } from '../../src/xen/ids.ts';
import { grantMapperContract } from './grant-mapper.ts';

const FIRST_REF = 8;
const OWNER = domainId(2);
const NOBODY = domainId(7);

grantMapperContract('DomainGrantMapper', () => {
  const xen = bootTestMachine();
  const guest = addDomain(xen, OWNER);
  const peer = addDomain(xen, 1);
  const { grantTable, memory } = guest.ports;
  let next = FIRST_REF;
  return {
    mapper: peer.ports.grantMapper,
    places: TEST_HANDLES,
    owner: guest.id,
    nobody: NOBODY,
    grant(readonly) {
      const ref = next++ as GrantRef;
      const address = memory.allocatePages(1)!;
      grantTable.grant(ref, 1, peer.id, (address / 4096) as FrameNumber, readonly);
      return { ref, bytes: memory.bytes(address, 4096), revoke: () => grantTable.revoke(ref, 1) === 0 };
    },
  };
});

if (native.skip === false)
  grantMapperContract('GntdevMapper', () => {
    const kernel = new FakeKernel();
    kernel.addGuest(OWNER);
    const host = openXenHost({ libc: kernel.libc, arena: arenaOfTest(), id: domainId(0) });
    return {
      mapper: host.grantMapper,
      places: 0x4000,
      owner: OWNER,
      nobody: NOBODY,
      grant(readonly) {
        const { ref, bytes } = kernel.grant(OWNER, readonly);
        return { ref, bytes, revoke: () => kernel.revoke(OWNER, ref) };
      },
      close: () => host.close(),
    };
  });
