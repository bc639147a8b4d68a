// What the grants of an unmodified Linux show a backend on a real Xen: the figures of a trace that the backend writes
// (docs/real-guest.md), and what a curious backend finds beside its requests.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { readTrace } from '../../src/audit/trace-reader.ts';
import { DMA_FROM_DEVICE } from '../../src/trace.ts';
import { GRANTIO } from '../support/grantio.ts';
import { checkRaw, diskBefore, diskScript } from './guest-disk.ts';
import type { Peeped } from './peeping.ts';
import { PLACES, xenTest } from './rig/xen-test.ts';

const SEED = 76;

interface Audited {
  readonly runs: readonly {
    readonly total: Readonly<Record<string, number>>;
    readonly findings: readonly { readonly rule: string }[];
  }[];
}

/** The audit of a trace, by the command that a user has. */
async function audit(trace: Buffer): Promise<Audited['runs'][number]> {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  try {
    const path = join(folder, 'trace.json');
    writeFileSync(path, trace);
    const words = [GRANTIO, 'audit', path, '--json', '--fail-on', 'never'];
    const { stdout } = await promisify(execFile)(process.execPath, words, { maxBuffer: 2 ** 28 });
    return (JSON.parse(stdout) as Audited).runs[0];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

xenTest('a trace of the backend says what a Linux guest’s grants show', async (xen) => {
  const image = await xen.put('exposure.img', diskBefore(SEED));
  const guest = await xen.guest('traced', diskScript('vda', SEED));
  const trace = '/root/trace.json';
  const backend = await xen.backend(
    ...['--domain', `${guest.id}`, '--mmio', PLACES[0], '--disk', image],
    ...['--state', 'none', '--trace', trace],
  );
  await guest.start();
  await guest.done();
  assert.equal(await backend.ended(), 0, 'the backend, which ends with its guest');
  checkRaw(await xen.get(image), SEED);

  const text = await xen.get(trace);
  const { total, findings } = await audit(text);
  xen.tell(`the audit: ${JSON.stringify(total)}`);
  const { bytesNeeded, bytesExposed, foreignReadableBytes, foreignWritableBytes } = total;
  const { contradictions, leakedGrants, pagesReached, touchesOutsideNeed } = total;
  assert.deepEqual([contradictions, leakedGrants, pagesReached, touchesOutsideNeed], [0, 0, 0, 0]);
  assert.ok(bytesNeeded <= bytesExposed, `${bytesNeeded} bytes needed of ${bytesExposed}`);
  // Each has one status, a byte that the device writes.
  const statuses = readTrace(text.toString()).events.filter(
    (event) => event.kind === 'need' && event.size === 1 && event.direction === DMA_FROM_DEVICE,
  );
  const { requests, requestsFailed, requestsOpen } = total;
  assert.deepEqual([requests, requestsFailed, requestsOpen], [statuses.length, 0, 0]);
  assert.ok(requests > 100, `${requests} requests`);
  // Beside the header of a request, which is granted for reading, and beside its status, which is for writing.
  assert.ok(foreignWritableBytes > 0 && foreignWritableBytes < foreignReadableBytes);
  const rules = new Set(findings.map(({ rule }) => rule));
  assert.ok(rules.has('foreign-writable'), [...rules].join());
});

const QUIET = `
step 'read the disk'
[ "$(wc -c </dev/vda)" = 8388608 ]
step 'nothing more'
sleep 600`;

xenTest('a curious backend finds addresses of the kernel beside a Linux guest’s requests', async (xen) => {
  const guest = await xen.guest('peeped', QUIET);
  const said = await xen.run(`node dist/test/xen/peeping.js ${guest.id}`);
  const peeped = JSON.parse(/^\{.*\}$/m.exec(said)![0]) as Peeped;
  xen.tell(`seen: ${JSON.stringify(peeped)}`);
  const { headers, statuses, tables, busiest, idle, stale } = peeped;
  assert.ok(headers.buffers > 0 && headers.buffers === statuses.buffers);
  for (const [what, { bytes, addresses }] of Object.entries({ headers, statuses, tables }))
    assert.ok(bytes > addresses && addresses > 0, `${what}: ${bytes} bytes, ${addresses} addresses`);
  // Rings stay granted as long as their device is in use, and mapped; buffers, until their request has been answered.
  assert.ok(idle.entries > 0 && idle.entries < busiest.entries, `${idle.entries} of ${busiest.entries}`);
  assert.equal(idle.mapped, idle.entries, 'what is granted and no request uses is the ring, which is mapped');
  assert.ok(stale.count >= headers.buffers + statuses.buffers, `${stale.count} pages were taken back`);
  await guest.destroy();
});
