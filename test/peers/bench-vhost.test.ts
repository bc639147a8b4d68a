// The C programs of `npm run bench:vhost`, which need a compiler: they build without a warning, agree with each
// other on every byte, and the load generator does not take a wrong byte for a right one.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { twin } from '../../bench/vhost/backends.ts';
import { smallJob } from '../../bench/vhost/jobs.ts';
import { measureQuietly, verify } from '../../bench/vhost/measurement.ts';
import { Workshop } from '../../bench/vhost/workshop.ts';

const hasCompiler = spawnSync(process.env['CC'] ?? 'cc', ['--version']).status === 0;
const skip = process.platform !== 'linux' || !hasCompiler ? 'needs Linux and a C compiler' : false;
const CORES = [0, 0] as const;
const BYTES = 2 ** 22;

test('the load generator and the twin agree on every byte, and on which are wrong', { skip }, async () => {
  const workshop = new Workshop(tmpdir());
  try {
    const job = smallJob(8, { interrupts: true });
    for (const write of [false, true]) {
      const image = workshop.imageFor({ write, direct: false });
      execFileSync(workshop.load, ['--make', image, '--bytes', `${BYTES}`]);
    }
    const backend = twin(workshop.twin);
    await verify(workshop, backend, false, CORES);
    const conditions = { seconds: 0.05, warmUpSeconds: 0, cores: CORES };
    const { requests, p50, p99 } = await measureQuietly(workshop, backend, job, conditions);
    assert.ok(requests > 0 && p50 <= p99);

    truncateSync(workshop.imageFor(job), 0);
    truncateSync(workshop.imageFor(job), BYTES);
    await assert.rejects(measureQuietly(workshop, backend, job, conditions), /the disk's byte \d+ is wrong/);
  } finally {
    workshop.close();
  }
});
