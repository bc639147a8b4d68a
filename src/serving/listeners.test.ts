import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { test } from 'node:test';
import { Listeners, REST } from './listeners.ts';

const { EAGAIN, ECONNABORTED, EMFILE, ENFILE } = constants.errno;

/** Listeners on a machine whose next answers to accept4 are given; -EMFILE and the like are errors. */
function scene() {
  const watched = new Map<number, () => void>();
  const answers: number[] = [];
  const said: string[] = [];
  const taken: number[] = [];
  let errno = 0;
  let now = 5000;
  const listeners = new Listeners({
    libc: {
      accept4: () => {
        const answer = answers.shift() ?? -EAGAIN;
        errno = -answer;
        return Math.max(answer, -1);
      },
      errno: () => errno,
    },
    watch: (fd, ready) => {
      assert.ok(!watched.has(fd), `${fd} is watched once`);
      watched.set(fd, ready);
      return fd + 100;
    },
    unwatch: (fd, token) => {
      assert.equal(token, fd + 100);
      assert.ok(watched.delete(fd), `${fd} is watched`);
    },
    now: () => now,
  });
  const add = (fd: number): void =>
    listeners.add({ fd, taken: (own) => taken.push(own), stuck: (reason) => said.push(reason) });
  /** The socket has connections, and what accept4 will answer. */
  const connect = (fd: number, ...results: number[]): void => {
    answers.push(...results);
    for (const _ of results) watched.get(fd)?.();
  };
  const pass = (milliseconds: number): void => {
    now += milliseconds;
    listeners.tick();
  };
  return { listeners, add, connect, pass, watched, said, taken };
}

test('connections are taken one by one, and what has passed meanwhile is nothing', () => {
  const { listeners, add, connect, watched, said, taken } = scene();
  add(3);
  connect(3, 10, -EAGAIN, -ECONNABORTED, 11);
  assert.deepEqual(taken, [10, 11]);
  assert.deepEqual(said, []);
  assert.ok(watched.has(3));
  assert.equal(listeners.patience, -1);
});

for (const [name, errno] of Object.entries({ EMFILE, ENFILE })) {
  test(`F25: ${name} makes a socket rest, not the thread spin, and is said once`, () => {
    const { listeners, add, connect, pass, watched, said, taken } = scene();
    add(3);
    add(4);
    connect(3, -errno);
    assert.deepEqual([...watched.keys()], [4], 'nothing wakes the thread for it');
    assert.equal(listeners.patience, REST);
    pass(REST - 1);
    assert.ok(!watched.has(3));
    pass(1);
    assert.ok(watched.has(3), 'it is tried again');
    connect(3, -errno);
    pass(REST);
    assert.equal(said.length, 1);
    assert.match(said[0], new RegExp(`accept4 failed: ${name}`));
    connect(3, 12);
    assert.deepEqual(taken, [12]);
    assert.equal(listeners.patience, -1);
    connect(3, -errno);
    assert.equal(said.length, 2, 'one could be taken in between');
  });
}

test('a connection that ends lets all sockets go on that rest', () => {
  const { listeners, add, connect, watched, taken } = scene();
  add(3);
  add(4);
  connect(3, -EMFILE);
  connect(4, -EMFILE);
  assert.equal(watched.size, 0);
  listeners.wake();
  connect(3, 20);
  connect(4, 21);
  assert.deepEqual(taken, [20, 21]);
  assert.equal(listeners.patience, -1);
});
