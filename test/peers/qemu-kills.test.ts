// The backend of a running guest's disk is killed again and again while the guest writes and reads. QEMU connects
// to the next one each time; the guest sees no error and each byte is as it was written.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { seededBytes } from './content.ts';
import { type DiskBackend, diskWords, grantioServe, qemuArguments, storageDaemon } from './rig/backend.ts';
import { QEMU_NEEDS, startLinux } from './rig/qemu.ts';
import { rigTest } from './rig/rig.ts';

const MIB = 2 ** 20;
const BLOCK = 64 * 2 ** 10;
const QUEUES = 2;

/** Each writer has a mebibyte of the disk: some write past the page cache, some leave it to fsync. */
const WRITERS = [
  'bs=4k count=256 seek=$((256 * 0)) oflag=direct',
  'bs=4k count=256 seek=$((256 * 1)) oflag=direct',
  'bs=64k count=16 seek=$((16 * 2)) conv=fsync',
  'bs=4k count=256 seek=$((256 * 3)) conv=fsync',
];

/** What is written in a round: a mebibyte of it, a block further in each round. */
const PATTERNS = Buffer.concat([seededBytes(MIB, 61), seededBytes(MIB, 61)]);
const pattern = (round: number): Buffer => {
  const start = (round % (MIB / BLOCK)) * BLOCK;
  return PATTERNS.subarray(start, start + MIB);
};

/** Lines of the guest's at which the backend is killed, one after the other. */
const KILLS = [/^GRANTIO round/, /^GRANTIO wrote 0/, /^GRANTIO wrote 3/, /^GRANTIO read 1/, /^GRANTIO round/];

const SCRIPT = `
step 'rounds until a line is typed'
exec 3<&0
(read line <&3; touch /stop) &
round=0
while [ ! -e /stop ]; do
  round=$((round + 1))
  dd if=/patterns of=/pattern bs=64k skip=$((round % 16)) count=16 status=none
  tell "round $round"
  jobs=
${WRITERS.map((words, at) => `  (dd if=/pattern of=/dev/vda ${words} status=none && tell 'wrote ${at}') & jobs="$jobs $!"`).join('\n')}
  for job in $jobs; do wait $job; done
  echo 3 >/proc/sys/vm/drop_caches
  for at in ${WRITERS.map((_, at) => at).join(' ')}; do
    tell "read $at"
    dd if=/dev/vda bs=64k skip=$((at * 16)) count=16 iflag=direct status=none | cmp - /pattern
  done
done
tell "rounds $round"`;

function killTest(title: string, { name, needs, serve }: DiskBackend): void {
  rigTest(`${title} ${name}`, [...QEMU_NEEDS, ...needs], async (rig) => {
    const disk = rig.file('disk.img', new Uint8Array(), 8 * MIB);
    const socket = rig.path('socket');
    let backend = await serve(rig, disk, socket, QUEUES);
    const words = await qemuArguments(rig, socket, ...diskWords(disk, QUEUES));
    const files = { modules: ['virtio_blk'], script: SCRIPT, files: new Map([['patterns', PATTERNS]]) };
    const guest = startLinux(rig, words, files);
    for (const line of KILLS) {
      await guest.says(line);
      backend.kill();
      await backend.ended();
      backend = await serve(rig, disk, socket, QUEUES);
      // A round that began after the kill, so that the guest has gone on.
      await guest.says(/^GRANTIO round/);
    }
    guest.send('stop');
    const [, rounds] = await guest.says(/^GRANTIO rounds (\d+)/);
    assert.deepEqual(await guest.ended(), { status: 0, signal: null });
    const image = readFileSync(disk);
    for (const at of WRITERS.keys())
      assert.ok(image.subarray(at * MIB, (at + 1) * MIB).equals(pattern(Number(rounds))), `writer ${at}`);
    await backend.end();
  });
}

killTest('QEMU: blk goes on after each kill -9 of', grantioServe);
killTest('QEMU: blk, the rig itself, goes on after each kill -9 of', storageDaemon);
