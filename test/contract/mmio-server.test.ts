// All implementations of BackendHost.serveMmio run the contract.

import assert from 'node:assert/strict';
import { IOREQ_READ } from '../../src/abi/ioreq.ts';
import { addDomain, bootTestMachine } from '../../src/hosts/model/domains.test.helper.ts';
import { FakeKernel } from '../../src/hosts/linux/xen/fake-kernel.test.helper.ts';
import { GuestProcessor } from '../../src/hosts/linux/xen/guest-processor.test.helper.ts';
import { openXenHost } from '../../src/hosts/linux/xen/host.ts';
import { arenaOfTest, native } from '../../src/hosts/linux/native.test.helper.ts';
import { noTrace } from '../../src/trace.ts';
import { domainId, type EventPort } from '../../src/xen/ids.ts';
import { mmioServerContract } from './mmio-server.ts';

const GUEST = domainId(2);
const NOBODY = domainId(7);
const ALL_ONES = 0xffff_ffff;

mmioServerContract('DomainPorts', () => {
  const xen = bootTestMachine();
  const host = addDomain(xen, 1);
  const guest = addDomain(
    xen,
    GUEST,
    { architecture: 'x86', kind: 'hvm' },
    noTrace,
    (words, index, value) => {
      while (Atomics.load(words, index) === value) if (!host.ports.events.poll()) return false;
      return true;
    },
  );
  xen.nameDeviceModel(GUEST, host.id);
  const { events, mmio } = guest.ports;
  let interrupts = 0;
  const port = events.allocateUnbound(GUEST) as EventPort;
  events.onEvent(port, () => interrupts++);
  return {
    host: host.ports,
    guest: GUEST,
    nobody: NOBODY,
    bus: mmio,
    interrupts() {
      mmio.routeInterrupt(0xd000_0000, port);
      events.poll();
      return interrupts;
    },
  };
});

if (native.skip === false)
  mmioServerContract('XenHost', () => {
    const kernel = new FakeKernel();
    kernel.addGuest(GUEST);
    const host = openXenHost({ libc: kernel.libc, arena: arenaOfTest(), id: domainId(0) });
    const processor = new GuestProcessor(kernel, GUEST);
    const access = (address: number, size: number, flags: number, data: number): number => {
      if (!processor.ask({ address, size, flags, data })) return ALL_ONES;
      host.events.poll();
      // A server that has gone took its page with it.
      if (kernel.servers.size === 0) return ALL_ONES;
      const answer = processor.take();
      assert.ok(answer !== undefined, 'the access is answered');
      return size === 4 ? answer : answer & (2 ** (8 * size) - 1);
    };
    return {
      host,
      guest: GUEST,
      nobody: NOBODY,
      bus: {
        read: (address, size) => access(address, size, IOREQ_READ, 0),
        write: (address, size, value) => {
          access(address, size, 0, value);
        },
      },
      interrupts: () => kernel.lines.filter((line) => line === '5=1').length,
      close: () => host.close(),
    };
  });
