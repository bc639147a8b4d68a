// A domain's way to the store: a page of its memory and an event channel to domain 0. Before
// xenstore/ring.ts; the other end is store-domain.ts.

import type { DomainPorts } from '../hosts/model/xen.ts';
import type { EventPort } from '../xen/ids.ts';
import { XenstoreClient } from '../xenstore/client.ts';
import { RingChannel } from '../xenstore/ring.ts';

/** What the toolstack tells a domain about it (HVM_PARAM_STORE_EVTCHN); the page is where its address map says. */
export interface StoreLink {
  /** The domain's own end of the event channel. */
  readonly port: EventPort;
}

/**
 * The store as the domain with these ports reaches it. The client moves whenever the domain polls its events.
 *
 * @param answered called when bytes may have come; whoever waits for them goes on in a later microtask
 */
export function openXenstore(
  ports: DomainPorts,
  { port }: StoreLink,
  answered: () => void = () => undefined,
): XenstoreClient {
  const { events, storePage } = ports;
  const channel = new RingChannel(storePage, () => events.send(port));
  events.onEvent(port, () => {
    channel.poll();
    answered();
  });
  return new XenstoreClient(channel);
}
