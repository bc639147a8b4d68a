// Both implementations of the port Xenstore run the contract.

import { Store } from '../../src/xenstore/store.ts';
import { localXenstore } from '../../src/xenstore/local.ts';
import { domainId } from '../../src/xen/ids.ts';
import { xenstoreContract } from './xenstore.ts';

xenstoreContract('localXenstore', async () => {
  const store = new Store();
  const soon: Array<() => void> = [];
  return {
    as: async (domain) => {
      store.introduce(domain);
      return localXenstore(store, domainId(domain), (run) => soon.push(run));
    },
    settle: async () => {
      for (let run = soon.shift(); run !== undefined; run = soon.shift()) run();
    },
  };
});
