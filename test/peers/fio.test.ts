// fio's nbd engine on grantio's disks: random reads and writes by several jobs at once, each block checked
// by the checksum in it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { peerTest } from './peer.ts';

const JOBS = 4;
const JOB_SIZE = 2 * 2 ** 20;

const LOADS = [
  { name: 'small-1', blocks: '--bs=4k', iodepth: 1 },
  { name: 'small-16', blocks: '--bs=4k', iodepth: 16 },
  { name: 'mixed-1', blocks: '--bsrange=4k-128k', iodepth: 1 },
  { name: 'mixed-16', blocks: '--bsrange=4k-128k', iodepth: 16 },
] as const;

interface FioReport {
  readonly jobs: readonly {
    readonly error: number;
    readonly read: { readonly io_bytes: number };
    readonly write: { readonly io_bytes: number };
  }[];
}

/** Each job has a part of the disk of its own, as they would find each other's blocks else. */
function fio({ name, blocks, iodepth }: (typeof LOADS)[number]): string {
  return `fio --name=${name} --ioengine=nbd --uri="$uri" --rw=randrw ${blocks} --iodepth=${iodepth} \\
    --numjobs=${JOBS} --size=${JOB_SIZE} --offset_increment=${JOB_SIZE} --randseed=5 --group_reporting \\
    --verify=crc32c --verify_fatal=1 --verify_state_save=0 --output-format=json --output=${name}.json || {
      cat ${name}.json
      exit 1
    }`;
}

peerTest('fio finds the checksums that it wrote', ['fio'], async (peer) => {
  const disk = peer.blank('disk.img', JOBS * JOB_SIZE);
  await peer.serve([disk], LOADS.map(fio).join('\n'));
  for (const { name } of LOADS) {
    const report = JSON.parse(readFileSync(peer.path(`${name}.json`), 'utf8')) as FioReport;
    for (const { error, read, write } of report.jobs) {
      assert.equal(error, 0, name);
      // About half of the blocks are written, and each of those is read again to be checked.
      assert.ok(write.io_bytes > (JOBS * JOB_SIZE) / 4, `${name}: only ${write.io_bytes} bytes written`);
      assert.ok(read.io_bytes >= write.io_bytes, `${name}: ${read.io_bytes} bytes read, too few to check`);
    }
  }
});
