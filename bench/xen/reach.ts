// What it costs a backend to reach a request's pages, in each way and for several sizes, in a domain of a real Xen
// (docs/ways-to-reach-grants.md). Only ratios are printed: under emulation nothing else means anything.
//   npm run bench:xen

import { Arena } from '../../src/hosts/linux/arena.ts';
import { type Libc, loadLibc } from '../../src/hosts/linux/libc.ts';
import { Gntalloc } from '../../src/hosts/linux/xen/gntalloc.ts';
import { domainId } from '../../src/xen/ids.ts';
import { measure } from '../figures.ts';
import { type Way, waysToReach } from './ways.ts';

const KIB = 1024;
const SIZES = [64, 512, 4 * KIB, 16 * KIB, 64 * KIB, 128 * KIB] as const;
const PAGE_AND_PAGES = [4 * KIB, 128 * KIB] as const;
const MOST_PAGES = 32;
const ROUNDS = 21;
/** A round is as many requests as reach about so many pages. */
const PAGES_A_ROUND = 256;

/** The first domain, in which the rig runs this. */
const SELF = domainId(0);

/** The C library with a count of the calls that reach the kernel here. */
function counting(libc: Libc): { libc: Libc; calls: () => string } {
  let [ioctls, mmaps] = [0, 0];
  const counted: Libc = {
    ...libc,
    ioctl(...words) {
      ioctls++;
      return libc.ioctl(...words);
    },
    mmap(...words) {
      mmaps++;
      return libc.mmap(...words);
    },
  };
  const calls = () => {
    const said = `${ioctls} + ${mmaps}`;
    [ioctls, mmaps] = [0, 0];
    return said;
  };
  return { libc: counted, calls };
}

/** Nanoseconds of a request. */
function timed({ name, request }: Way, bytes: number): number {
  const pages = Math.ceil(bytes / (4 * KIB));
  const times = (PAGES_A_ROUND / pages) * (name === 'kept mapped' ? 100 : 1);
  const start = process.hrtime.bigint();
  for (let i = 0; i < times; i++) request(bytes);
  return Number(process.hrtime.bigint() - start) / times;
}

const sizeOf = (bytes: number): string => (bytes < KIB ? `${bytes} B` : `${bytes / KIB} KiB`);
const row = (cells: readonly string[]): void => console.log(`| ${cells.join(' | ')} |`);

const { libc, calls } = counting(loadLibc());
const arena = new Arena(libc, 2 ** 12);
const gntalloc = new Gntalloc(libc, arena);
const pages = Array.from({ length: MOST_PAGES }, () => gntalloc.grant(SELF, false));
const { ways, close } = waysToReach(libc, { owner: SELF, refs: pages.map(({ ref }) => ref) });

const candidates = SIZES.flatMap((bytes) =>
  ways.map((way) => ({ name: `${bytes} ${way.name}`, round: () => timed(way, bytes) })),
);
const figures = await measure('reach', 'ns', candidates, ROUNDS);
const one = figures.find(({ name }) => name === `${4 * KIB} ${ways[0].name}`)!.median;

row(['request', ...ways.map(({ name }) => name)]);
row(['---', ...ways.map(() => '---:')]);
for (const bytes of SIZES) {
  const medians = ways.map(
    ({ name }) => figures.find((figure) => figure.name === `${bytes} ${name}`)!.median,
  );
  row([sizeOf(bytes), ...medians.map((median) => (median / one).toPrecision(2))]);
}
console.log('\nSystem calls, ioctl + mmap, of a request:');
row(['request', ...ways.map(({ name }) => name)]);
row(['---', ...ways.map(() => '---:')]);
for (const bytes of PAGE_AND_PAGES) {
  calls();
  const said = ways.map(({ request }) => {
    request(bytes);
    return calls();
  });
  row([sizeOf(bytes), ...said]);
}
close();
for (const { revoke } of pages) revoke();
gntalloc.close();
