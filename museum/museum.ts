// Shows exhibits: first that their tests pass on the code as it is, then what the tests say when it has the
// defect. Several visits at a time, each in a gallery of its own.

import type { Exhibit } from './exhibit.ts';
import { Gallery } from './gallery.ts';
import { StaleExhibit } from './patch.ts';
import { runTests } from './test-run.ts';
import { faultOf, judge, type Verdict } from './verdict.ts';

const VISITORS = 2;
/** Milliseconds that a visit's tests may take, and those that are expected not to end. */
const LIMIT = 180_000;
const HANG_LIMIT = 10_000;

/** An exhibit and what came of it. */
export interface Visit extends Verdict {
  readonly exhibit: Exhibit;
  readonly seconds: number;
}

/** A run of tests on the code as it is. */
interface Rehearsal {
  readonly files: readonly string[];
  readonly titles: RegExp | undefined;
}

/**
 * Visits all exhibits; the visits are in their order.
 *
 * @param root the repository, built
 * @param visited called after each, with how many of all rehearsals and visits are done
 */
export async function visitAll(
  exhibits: readonly Exhibit[],
  root: string,
  visited: (done: number, of: number) => void,
): Promise<Visit[]> {
  const rehearsals = new Map(exhibits.map((exhibit) => [keyOf(exhibit), rehearsalOf(exhibit)]));
  const faults = new Map<string, Verdict>();
  const galleries = Array.from({ length: VISITORS }, () => new Gallery(root));
  const close = () => {
    for (const gallery of galleries) gallery.close();
  };
  // The galleries are temporary files, and somebody may interrupt.
  process.once('exit', close);
  let done = 0;
  const step = () => visited(++done, rehearsals.size + exhibits.length);
  try {
    await inTurn(galleries, [...rehearsals], async (gallery, [key, rehearsal]) => {
      const fault = await rehearse(gallery, rehearsal);
      if (fault !== undefined) faults.set(key, fault);
      step();
    });
    return await inTurn(galleries, exhibits, async (gallery, exhibit) => {
      const start = performance.now();
      const verdict = faults.get(keyOf(exhibit)) ?? (await visit(gallery, exhibit));
      step();
      return { exhibit, ...verdict, seconds: (performance.now() - start) / 1000 };
    });
  } finally {
    close();
    process.off('exit', close);
  }
}

/** Exhibits with the same tests share a rehearsal. */
function keyOf({ tests, titles }: Exhibit): string {
  return [...tests, titles].join(' ');
}

function rehearsalOf({ tests, titles }: Exhibit): Rehearsal {
  return { files: tests, titles };
}

async function rehearse(gallery: Gallery, { files, titles }: Rehearsal): Promise<Verdict | undefined> {
  return faultOf(
    await runTests(
      files.map((file) => gallery.compiled(file)),
      LIMIT,
      titles,
    ),
  );
}

async function visit(gallery: Gallery, exhibit: Exhibit): Promise<Verdict> {
  const files = exhibit.tests.map((file) => gallery.compiled(file));
  const limit = exhibit.hangs ? HANG_LIMIT : LIMIT;
  try {
    return await gallery.withDefect(exhibit, async () =>
      judge(exhibit, await runTests(files, limit, exhibit.titles)),
    );
  } catch (error) {
    if (!(error instanceof StaleExhibit)) throw error;
    return { outcome: 'stale', by: error.message };
  }
}

/** Does `work` on all items, as many at a time as there are galleries; the results are in their order. */
async function inTurn<Item, Result>(
  galleries: readonly Gallery[],
  items: readonly Item[],
  work: (gallery: Gallery, item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  const waiting = items.entries();
  const visitor = async (gallery: Gallery) => {
    for (const [place, item] of waiting) results[place] = await work(gallery, item);
  };
  await Promise.all(galleries.map(visitor));
  return results;
}
