// Runs in a domain of a real Xen, by hand or by the rig: the contracts of Xen's ports, on this domain as both sides of
// each. What it grants, it grants to itself (/dev/xen/gntalloc).
//   node dist/test/xen/contract.js

import { Arena } from '../../src/hosts/linux/arena.ts';
import { Epoll } from '../../src/hosts/linux/epoll.ts';
import { loadLibc } from '../../src/hosts/linux/libc.ts';
import { EvtchnEvents } from '../../src/hosts/linux/xen/evtchn.ts';
import { Gntalloc, type GrantedPage } from '../../src/hosts/linux/xen/gntalloc.ts';
import { openXenHost } from '../../src/hosts/linux/xen/host.ts';
import { ownDomainId } from '../../src/hosts/linux/xen/store.ts';
import { type DomainId, domainId } from '../../src/xen/ids.ts';
import { eventChannelsContract, type Side } from '../contract/event-channels.ts';
import { grantCopierContract } from '../contract/grant-copier.ts';
import { grantMapperContract } from '../contract/grant-mapper.ts';
import { BusyStore, storeContracts } from './store-contract.ts';

/** An id that no domain has here. */
const NOBODY = domainId(0x7abc);
/** Long enough for an event of this machine's to arrive, also under emulation. */
const PATIENCE_MILLISECONDS = 100;

const libc = loadLibc();
const self = await askStore();

/** Which domain this is. */
async function askStore(): Promise<DomainId> {
  const store = new BusyStore(libc);
  const id = await ownDomainId(store.client);
  await store.close();
  return id;
}

function openHost() {
  const scratch = new Arena(libc, 2 ** 17);
  const host = openXenHost({ libc, arena: scratch, id: self });
  const gntalloc = new Gntalloc(libc, scratch);
  const grant = (readonly: boolean): GrantedPage => gntalloc.grant(self, readonly);
  const close = () => {
    host.close();
    gntalloc.close();
    scratch.close();
  };
  return { host, grant, close };
}

grantMapperContract(
  'GntdevMapper on Xen',
  () => {
    const { host, grant, close } = openHost();
    return {
      mapper: host.grantMapper,
      places: 0x4000,
      owner: self,
      nobody: NOBODY,
      grant(readonly) {
        const { ref, region, revoke } = grant(readonly);
        const end = () => {
          revoke();
          return true;
        };
        return { ref, bytes: region.u8, revoke: end };
      },
      close,
    };
  },
  {
    blindOwner: 'gntalloc does not say whether a page is mapped',
    manyPlaces: 'that is 32768 mappings of Xen, under emulation',
  },
);

grantCopierContract(
  'GntdevCopier on Xen',
  () => {
    const { host, grant, close } = openHost();
    const pages = [grant(false), grant(true)];
    let [current] = pages;
    return {
      copier: host.grantCopier,
      owner: self,
      nobody: NOBODY,
      page: () => current.region.u8,
      grant(_number, readonly) {
        const before = current;
        current = pages[readonly ? 1 : 0];
        current.region.u8.set(before.region.u8);
        return current.ref;
      },
      revoke(ref) {
        pages.find((page) => page.ref === ref)!.revoke();
        return true;
      },
      close,
    };
  },
  { wholePages: 'gntalloc grants whole pages' },
);

eventChannelsContract('EvtchnEvents on Xen', () => {
  const scratch = new Arena(libc, 2 ** 16);
  const side = (): Side & { end(): void } => {
    const events = new EvtchnEvents(libc, scratch);
    const epoll = new Epoll(libc, scratch);
    epoll.add(events.fd, 0);
    const poll = () => epoll.wait(PATIENCE_MILLISECONDS, () => undefined) > 0 && events.poll();
    const end = () => {
      epoll.close();
      events.closeAll();
    };
    return { id: self, events, poll, end };
  };
  const [one, other] = [side(), side()];
  const close = () => {
    one.end();
    other.end();
    scratch.close();
  };
  return { one, other, nobody: NOBODY, close };
});

storeContracts(libc);
