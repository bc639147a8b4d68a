// A domain's thread and its way to the store.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { traceRings } from '../audit/trace-ring.ts';
import { sleepWhile } from '../hosts/model/waiting.ts';
import { Xen } from '../hosts/model/xen.ts';
import { StoreDomain } from '../machine/store-domain.ts';
import { createHome } from '../toolstack/virtio-nodes.ts';
import { domainId } from '../xen/ids.ts';
import { Store } from '../xenstore/store.ts';
import { DomainThread } from './domain-thread.ts';
import { StoreLoop } from './store-loop.ts';
import type { WriterCalls } from './throttled-writer.test.helper.ts';

const GUEST = domainId(1);

test('X15 a guest that writes too fast is served more slowly, not never', async () => {
  const xen = Xen.boot(8 << 20, 64 << 20, true);
  const control = new StoreDomain(xen, 'x86', new Store(), sleepWhile);
  const { tools } = control;
  await createHome(tools, GUEST);
  xen.createDomain(GUEST, { memory: 1 << 20 });
  const link = control.introduce(xen.ports(GUEST, sleepWhile));
  const loop = new StoreLoop(xen, control);
  const [trace] = traceRings(1);
  const thread = new DomainThread<WriterCalls>('throttled-writer.test.helper', xen, GUEST, link, trace!);
  await tools.transaction(async () => thread.call('write', 40));
  assert.equal(await tools.read(`/local/domain/${GUEST}/device/k`), '39');
  await Promise.all([thread.terminate(), loop.stop()]);
});
