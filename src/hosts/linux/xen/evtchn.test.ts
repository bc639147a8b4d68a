import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { test } from 'node:test';
import { domainId, type EventPort } from '../../../xen/ids.ts';
import { Epoll } from '../epoll.ts';
import { arenaOfTest, native } from '../native.test.helper.ts';
import { EvtchnEvents } from './evtchn.ts';
import { FakeKernel } from './fake-kernel.test.helper.ts';

const SELF = domainId(0);

function scene() {
  const [kernel, arena] = [new FakeKernel(), arenaOfTest()];
  const events = new EvtchnEvents(kernel.libc, arena);
  const epoll = new Epoll(kernel.libc, arena);
  epoll.add(events.fd, 1);
  return { kernel, events, epoll };
}

test(
  'the descriptor can be read exactly while there is something to do, and polling never blocks',
  native,
  () => {
    const { events, epoll } = scene();
    const port = events.allocateUnbound(SELF);
    assert.equal(
      epoll.wait(0, () => undefined),
      0,
    );
    assert.equal(events.poll(), false);
    const other = events.bindInterdomain(SELF, port);
    assert.equal(
      epoll.wait(0, () => undefined),
      1,
    );
    assert.equal(events.poll(), true);
    assert.equal(events.poll(), false);
    assert.equal(
      epoll.wait(0, () => undefined),
      0,
    );
    events.send(port);
    assert.equal(
      epoll.wait(0, () => undefined),
      1,
    );
    events.close(other);
  },
);

test('R8: a poll handles a bounded number of events, and the rest is still told of', native, () => {
  const { events, epoll } = scene();
  let handled = 0;
  for (let i = 0; i < 100; i++) {
    const port = events.bindInterdomain(SELF, events.allocateUnbound(SELF));
    events.onEvent(port, () => handled++);
  }
  assert.equal(events.poll(), true);
  assert.equal(handled, 64);
  assert.equal(
    epoll.wait(0, () => undefined),
    1,
  );
  events.poll();
  assert.equal(handled, 100);
});

test('a handler that closes another port of the same batch is not followed by that one’s', native, () => {
  const { events } = scene();
  const ports = [0, 1].map(() => events.bindInterdomain(SELF, events.allocateUnbound(SELF)));
  const called: EventPort[] = [];
  for (const [i, port] of ports.entries())
    events.onEvent(port, () => {
      called.push(port);
      events.close(ports[1 - i]);
    });
  events.poll();
  assert.equal(called.length, 1);
});

test('C4: all channels end with the descriptor', native, () => {
  const { kernel, events } = scene();
  for (let i = 0; i < 5; i++) events.allocateUnbound(SELF);
  assert.equal(kernel.channels, 5);
  events.closeAll();
  assert.deepEqual([kernel.channels, kernel.open], [0, 0]);
});

test('O2: where there is no Xen, one sentence says what is missing and what to do', native, () => {
  const [kernel, arena] = [new FakeKernel(), arenaOfTest()];
  const sentences = [
    [constants.errno.ENOENT, /^\/dev\/xen\/evtchn is not there: .*domain of Xen.*modprobe xen-evtchn/],
    [constants.errno.ENODEV, /^\/dev\/xen\/evtchn is there, but this kernel does not run under Xen$/],
    [constants.errno.EACCES, /^\/dev\/xen\/evtchn may not be opened: run this as root$/],
    [constants.errno.EMFILE, /^\/dev\/xen\/evtchn cannot be opened \(errno 24\)$/],
  ] as const;
  for (const [errno, message] of sentences) {
    kernel.missing.set('/dev/xen/evtchn', errno);
    assert.throws(() => new EvtchnEvents(kernel.libc, arena), { name: 'XenUnavailable', message });
  }
});
