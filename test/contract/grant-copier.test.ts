// All implementations of the port GrantCopier run the contract.

import { addDomain, bootTestMachine } from '../../src/hosts/model/domains.test.helper.ts';
import { FakeKernel } from '../../src/hosts/linux/xen/fake-kernel.test.helper.ts';
import { openXenHost } from '../../src/hosts/linux/xen/host.ts';
import { arenaOfTest, native } from '../../src/hosts/linux/native.test.helper.ts';
import { domainId, type FrameNumber, type GrantRef } from '../../src/xen/ids.ts';
import { grantCopierContract } from './grant-copier.ts';

const FIRST_REF = 8;

grantCopierContract('DomainGrantCopier', () => {
  const xen = bootTestMachine();
  const guest = addDomain(xen, 2);
  const peer = addDomain(xen, 1);
  const { grantTable, memory } = guest.ports;
  grantTable.setVersion(2);
  let next = FIRST_REF;
  return {
    copier: peer.ports.grantCopier,
    owner: guest.id,
    nobody: domainId(7),
    page: (number) => memory.bytes(memory.base + number * 4096, 4096),
    grant(number, readonly, part) {
      const ref = next++ as GrantRef;
      const frame = (memory.base / 4096 + number) as FrameNumber;
      if (part === undefined) grantTable.grant(ref, 1, peer.id, frame, readonly);
      else grantTable.grantPart(ref, peer.id, frame, part.offset, part.length, readonly);
      return ref;
    },
    revoke: (ref) => grantTable.revoke(ref as GrantRef, 1) === 0,
  };
});

if (native.skip === false)
  grantCopierContract(
    'GntdevCopier',
    () => {
      const kernel = new FakeKernel();
      const owner = domainId(2);
      kernel.addGuest(owner);
      const host = openXenHost({ libc: kernel.libc, arena: arenaOfTest(), id: domainId(0) });
      // The pages by their numbers: the one for reading only, and the other.
      const pages = [false, true].map((readonly) => kernel.grant(owner, readonly));
      let current = pages[0];
      return {
        copier: host.grantCopier,
        owner,
        nobody: domainId(7),
        page: () => current.bytes,
        grant(_number, readonly) {
          const { bytes } = current;
          current = pages[readonly ? 1 : 0];
          current.bytes.set(bytes);
          return current.ref;
        },
        revoke: (ref) => kernel.revoke(owner, ref),
        close: () => host.close(),
      };
    },
    { wholePages: 'the device that grants pages of a process grants whole ones' },
  );
