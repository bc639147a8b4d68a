import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { settled } from '../../test/support/settled.ts';
import { RangeLock } from './range-lock.ts';

/** An action that a test ends by hand. */
class Held {
  running = false;
  end = (): void => undefined;

  readonly action = (): Promise<void> => {
    this.running = true;
    return new Promise<void>((resolve) => {
      this.end = resolve;
    });
  };
}

test('shared holders of one range run together, an exclusive one waits for them and others for it', async () => {
  const lock = new RangeLock();
  const [first, second, change, third] = [new Held(), new Held(), new Held(), new Held()];
  void lock.shared(0, 512, first.action);
  void lock.shared(0, 1024, second.action);
  void lock.exclusive(0, 512, change.action);
  void lock.shared(511, 600, third.action);
  await settled();
  assert.deepEqual(
    [first.running, second.running, change.running, third.running],
    [true, true, false, false],
  );
  first.end();
  second.end();
  await settled();
  assert.deepEqual([change.running, third.running], [true, false]);
  change.end();
  await settled();
  assert.equal(third.running, true);
});

test('ranges that only touch do not wait for each other', async () => {
  const lock = new RangeLock();
  const [one, other] = [new Held(), new Held()];
  void lock.exclusive(0, 512, one.action);
  void lock.exclusive(512, 1024, other.action);
  await settled();
  assert.deepEqual([one.running, other.running], [true, true]);
});

test('a failed action gives its range back and its error to the caller', async () => {
  const lock = new RangeLock();
  await assert.rejects(
    lock.exclusive(0, 512, () => Promise.reject(new Error('no'))),
    /no/,
  );
  const next = new Held();
  void lock.exclusive(0, 512, next.action);
  await settled();
  assert.equal(next.running, true);
});

test('property: everyone gets a turn and no two that conflict run at once', async () => {
  const claim = fc.record({
    start: fc.nat({ max: 20 }),
    length: fc.integer({ min: 1, max: 8 }),
    exclusive: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(claim, { maxLength: 25 }), fc.scheduler(), async (claims, scheduler) => {
      const lock = new RangeLock();
      const running = new Set<(typeof claims)[number]>();
      const work = claims.map((own) => {
        const action = async (): Promise<void> => {
          for (const other of running)
            if (own.exclusive || other.exclusive)
              assert.ok(own.start >= other.start + other.length || other.start >= own.start + own.length);
          running.add(own);
          await scheduler.schedule(Promise.resolve());
          running.delete(own);
        };
        return lock[own.exclusive ? 'exclusive' : 'shared'](own.start, own.start + own.length, action);
      });
      await scheduler.waitFor(Promise.all(work));
      assert.equal(running.size, 0);
    }),
    { seed: 2, numRuns: 100 },
  );
});
