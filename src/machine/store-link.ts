// A domain's way to the store: a page of its memory and an event channel to domain 0. Before
// xenstore/ring.ts; the other end is store-domain.ts.

import { regionOver } from '../abi/region.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { DomainPorts } from '../hosts/model/xen.ts';
import type { EventPort } from '../xen/ids.ts';
import { XenstoreClient } from '../xenstore/client.ts';
import { RingChannel } from '../xenstore/ring.ts';

/** What the toolstack tells a domain about it: HVM_PARAM_STORE_PFN and HVM_PARAM_STORE_EVTCHN. */
export interface StoreLink {
  /** Guest-physical address of the ring page. */
  readonly page: number;
  /** The domain's own end of the event channel. */
  readonly port: EventPort;
}

/**
 * The store as the domain with these ports reaches it. To be called before the domain allocates memory: the
 * page is taken out of what may be allocated. The client moves whenever the domain polls its events.
 *
 * @param answered called when bytes may have come; whoever waits for them goes on in a later microtask
 */
export function openXenstore(
  ports: DomainPorts,
  { page, port }: StoreLink,
  answered: () => void = () => undefined,
): XenstoreClient {
  const { memory, events } = ports;
  memory.hold(page / XEN_PAGE_SIZE, 1);
  const { buffer, byteOffset } = memory.region;
  const channel = new RingChannel(regionOver(buffer, byteOffset + page, XEN_PAGE_SIZE), () =>
    events.send(port),
  );
  events.onEvent(port, () => {
    channel.poll();
    answered();
  });
  return new XenstoreClient(channel);
}
