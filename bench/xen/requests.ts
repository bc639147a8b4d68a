// What a request of an unmodified Linux guest costs with each way to reach its grants: two disks of one guest, each with
// a `grantio xen-backend` of its own, one of which maps and one of which copies (docs/ways-to-reach-grants.md). The
// guest measures itself, both disks in turn. Runs in the first domain of the rig.
//   npm run bench:xen

import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { median } from '../figures.ts';

// The log of a guest's console goes on where an earlier guest of its name ended.
const GUEST = `bench-requests-${process.pid}`;
const KIB = 1024;
const IMAGE_SIZE = 8 * KIB * KIB;
const ROUNDS = 5;

/** The guest's disks, in the order in which it finds them. */
const DISKS = [
  { disk: 'vda', access: 'map', place: '0xd0000000,irq=5' },
  { disk: 'vdb', access: 'copy', place: '0xd0000200,irq=10' },
] as const;

const LOADS = [
  {
    name: 'read 4 KiB',
    words: (disk: string) => `if=/dev/${disk} of=/dev/null iflag=direct bs=4k`,
    count: 32,
  },
  {
    name: 'read 128 KiB',
    words: (disk: string) => `if=/dev/${disk} of=/dev/null iflag=direct bs=128k`,
    count: 8,
  },
  {
    name: 'write 4 KiB',
    words: (disk: string) => `if=/dev/zero of=/dev/${disk} oflag=direct bs=4k`,
    count: 32,
  },
  {
    name: 'write 128 KiB',
    words: (disk: string) => `if=/dev/zero of=/dev/${disk} oflag=direct bs=128k`,
    count: 8,
  },
] as const;

/** The guest's job; the round 0 is one to get warm. A line "took LOAD DISK FROM TO" has times in seconds. */
function job(): string {
  const commands = LOADS.flatMap(({ words, count }, load) =>
    DISKS.map(({ disk }) => `measure ${load} ${disk} ${words(disk)} count=${count}`),
  );
  return `
now() { cut -d' ' -f1 /proc/uptime; }
measure() {
  load=$1; disk=$2; shift 2
  from=$(now); dd "$@" status=none; tell "took $load $disk $from $(now)"
}
for round in $(seq 0 ${ROUNDS}); do
${commands.join('\n')}
done
`;
}

/** Resolves when the backend serves. */
async function startBackend(words: readonly string[]): Promise<ChildProcess> {
  const backend = spawn(process.execPath, ['bin/grantio', 'xen-backend', ...words, '--json'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const ended = once(backend, 'close').then(([status]) => {
    throw new Error(`grantio xen-backend ${words.join(' ')} ended with ${status}`);
  });
  await Promise.race([once(createInterface(backend.stdout), 'line'), ended]);
  ended.catch(() => undefined);
  return backend;
}

const guest = (...words: string[]): string =>
  execFileSync('guest', words, { encoding: 'utf8', stdio: 'pipe' });

/** Lets the guest do its job. Resolves with its console. */
async function run(folder: string): Promise<string> {
  const backends: ChildProcess[] = [];
  const jobFile = join(folder, 'job');
  writeFileSync(jobFile, job());
  const id = guest('create', GUEST, jobFile).trim().split('\n').at(-1)!;
  try {
    for (const { disk, access, place } of DISKS) {
      const image = join(folder, `${disk}.img`);
      writeFileSync(image, Buffer.alloc(IMAGE_SIZE, disk));
      backends.push(
        await startBackend([
          '--domain',
          id,
          '--state',
          'none',
          '--access',
          access,
          '--mmio',
          place,
          '--disk',
          image,
        ]),
      );
    }
    const ends = backends.map((backend) => once(backend, 'close'));
    guest('start', GUEST);
    guest('wait', GUEST);
    await Promise.all(ends);
    return guest('console', GUEST);
  } catch (error) {
    for (const backend of backends) backend.kill('SIGKILL');
    // It may have gone already.
    spawnSync('xl', ['destroy', GUEST]);
    throw error;
  }
}

/** Hundredths of a second of each round, the first left out, by load and disk. */
function times(said: string): Map<string, number[]> {
  const found = new Map<string, number[]>();
  for (const [, load, disk, from, to] of said.matchAll(/took (\d+) (\w+) ([\d.]+) ([\d.]+)/g)) {
    const key = `${load} ${disk}`;
    found.set(key, [...(found.get(key) ?? []), Number(to) * 100 - Number(from) * 100]);
  }
  return new Map([...found].map(([key, rounds]) => [key, rounds.slice(1)]));
}

const folder = mkdtempSync(join(tmpdir(), 'grantio-bench-'));
try {
  const took = times(await run(folder));
  console.log('| requests of a guest | map | copy |\n| --- | ---: | ---: |');
  for (const [load, { name }] of LOADS.entries()) {
    const [map, copy] = DISKS.map(({ disk }) => median(took.get(`${load} ${disk}`)!));
    console.log(`| ${name} | 1.0 | ${(copy / map).toFixed(2)} |`);
  }
} finally {
  rmSync(folder, { recursive: true });
}
