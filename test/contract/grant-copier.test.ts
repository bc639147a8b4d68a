// All implementations of the port GrantCopier run the contract.

import { addDomain, bootTestMachine } from '../../src/hosts/model/domains.test.helper.ts';
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
