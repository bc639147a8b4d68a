import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { TestThread } from './console-endpoints.test.helper.ts';
import { EPOLLIN, EPOLLOUT, Eventfds, newEventfd } from './epoll.ts';
import { native, openDescriptors } from './native.test.helper.ts';

test('a descriptor is told of while it is wanted, and what has ended is told of no more', native, () => {
  const before = openDescriptors();
  const thread = new TestThread();
  const fd = newEventfd(thread.libc);
  let told = 0;
  const watch = thread.watches.open(fd, () => told++);
  const look = (events: number): number => {
    watch.want(events);
    thread.turn();
    return told;
  };
  assert.deepEqual([look(EPOLLIN), look(EPOLLIN | EPOLLOUT), look(EPOLLOUT)], [0, 1, 2]);
  new Eventfds(thread.libc, thread.arena).ring(fd);
  assert.deepEqual([look(EPOLLIN), look(0), look(EPOLLIN)], [3, 3, 4]);
  watch.end();
  thread.turn();
  assert.equal(told, 4);
  closeSync(fd);
  thread.close();
  assert.equal(openDescriptors(), before);
});

test(
  'a file of a disk, which epoll refuses, is told of in the next turn, once for each time it is wanted',
  native,
  (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'grantio-watches-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const thread = new TestThread();
    const fd = openSync(join(folder, 'file'), 'w');
    let told = 0;
    const watch = thread.watches.open(fd, () => told++);
    for (let round = 1; round <= 3; round++) {
      watch.want(EPOLLOUT);
      assert.deepEqual([told, thread.rest(), told], [round - 1, 1, round]);
    }
    watch.want(EPOLLOUT);
    watch.end();
    thread.rest();
    assert.equal(told, 3);
    closeSync(fd);
    thread.close();
  },
);

test(
  'what is put off to the next turn is done there, and what that puts off in the one after',
  native,
  () => {
    const thread = new TestThread();
    const done: string[] = [];
    thread.watches.later(() => {
      done.push('first');
      thread.watches.later(() => done.push('third'));
    });
    thread.watches.later(() => done.push('second'));
    assert.deepEqual(done, []);
    thread.turn();
    assert.deepEqual(done, ['first', 'second']);
    thread.turn();
    assert.deepEqual(done, ['first', 'second', 'third']);
    assert.equal(thread.turn(), false);
    thread.close();
  },
);

test('tokens of whoever runs the thread are left to that', native, () => {
  const thread = new TestThread();
  assert.deepEqual(
    [0, 1, 2 ** 31 - 1].map((token) => thread.watches.wake(token)),
    [false, false, false],
  );
  assert.equal(thread.watches.wake(2 ** 31 + 12345), true, 'of one that has ended');
  thread.close();
});
