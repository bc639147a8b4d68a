// All implementations of the port EventChannels run the contract.

import { addDomain, bootTestMachine, type TestDomain } from '../../src/hosts/model/domains.test.helper.ts';
import { EvtchnEvents } from '../../src/hosts/linux/xen/evtchn.ts';
import { FakeKernel } from '../../src/hosts/linux/xen/fake-kernel.test.helper.ts';
import { arenaOfTest, native } from '../../src/hosts/linux/native.test.helper.ts';
import { domainId } from '../../src/xen/ids.ts';
import { eventChannelsContract } from './event-channels.ts';

const NOBODY = domainId(7);

eventChannelsContract('DomainEvents', () => {
  const xen = bootTestMachine();
  const side = ({ id, ports: { events } }: TestDomain) => ({ id, events, poll: () => events.poll() });
  return { one: side(addDomain(xen, 1)), other: side(addDomain(xen, 2)), nobody: NOBODY };
});

if (native.skip === false)
  eventChannelsContract('EvtchnEvents', () => {
    const kernel = new FakeKernel();
    const arena = arenaOfTest();
    const id = domainId(0);
    const [one, other] = [new EvtchnEvents(kernel.libc, arena), new EvtchnEvents(kernel.libc, arena)];
    return {
      one: { id, events: one, poll: () => one.poll() },
      other: { id, events: other, poll: () => other.poll() },
      nobody: NOBODY,
      close() {
        one.closeAll();
        other.closeAll();
      },
    };
  });
