// A vhost-user disk behind an IOMMU that QEMU emulates: the guest's kernel maps each request's pages for the device
// and takes them away after, and the backend can reach nothing else.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { metricSamples } from '../../src/cli/top/metric-samples.ts';
import { readMetrics } from '../../src/cli/top/read-metrics.ts';
import { GRANTIO } from '../support/grantio.ts';
import { diskWords, qemuArguments, serve, storageDaemon } from './rig/backend.ts';
import { checkDisk, diskScript, makeDisk, PATTERN } from './rig/disk-work.ts';
import { E2FSCK, STORAGE_DAEMON } from './rig/needs.ts';
import { QEMU_NEEDS, startLinux } from './rig/qemu.ts';
import { rigTest } from './rig/rig.ts';

const QUEUES = 2;

/**
 * What a request's pages were mapped for is gone when the request is over, not some time later. On a busy machine the
 * emulated timer can be so late that Linux takes it for broken.
 */
const PARAMETERS = 'intel_iommu=on iommu.strict=1 no_timer_check';

const SCRIPT = `
step 'the IOMMU'
tell "group $(basename $(readlink -f /sys/block/vda/device/../iommu_group))"
tell "access platform $(cut -c 34 /sys/block/vda/device/features)"
${diskScript(QUEUES)}
step 'nothing was written, or asked for, that was not mapped for it'
[ "$(dmesg | grep -c 'DMA Write.*fault')" = 0 ]`;

interface Audited {
  readonly runs: readonly {
    readonly total: Readonly<Record<string, number>>;
    readonly findings: readonly { readonly rule: string }[];
  }[];
}

/** The audit of the trace that the backend wrote. */
async function audit(trace: string): Promise<Audited['runs'][number]> {
  const words = [GRANTIO, 'audit', trace, '--json', '--fail-on', 'never'];
  const { stdout } = await promisify(execFile)(process.execPath, words, { maxBuffer: 2 ** 28 });
  return (JSON.parse(stdout) as Audited).runs[0];
}

/** The device's metrics, by their names; those with several labels are summed up. */
async function metrics(path: string): Promise<ReadonlyMap<string, number>> {
  const sums = new Map<string, number>();
  for (const { name, value } of metricSamples(await readMetrics({ path })))
    sums.set(name, (sums.get(name) ?? 0) + value);
  return sums;
}

rigTest('QEMU: blk behind an emulated IOMMU, grantio serve', [...QEMU_NEEDS, E2FSCK], async (rig) => {
  const [disk, socket] = [makeDisk(rig), rig.path('socket')];
  const device = [...diskWords(disk, QUEUES), '--restricted'];
  const [trace, place] = [rig.path('trace.json'), rig.path('metrics')];
  const backend = await serve(rig, socket, ...device, '--trace', trace, '--metrics', place);
  const words = await qemuArguments(rig, socket, ...device);
  const files = {
    modules: ['virtio_blk', 'crc32c_generic', 'ext4'],
    script: SCRIPT,
    files: new Map([['pattern', PATTERN]]),
  };
  const guest = startLinux(rig, words, files, PARAMETERS);
  await guest.says(/^GRANTIO group \d+/);
  await guest.says(/^GRANTIO access platform 1/);
  await checkDisk(rig, guest, disk, QUEUES);
  const measured = await metrics(place);
  await backend.end();

  const { total, findings } = await audit(trace);
  const windows = measured.get('grantio_stale_windows_total')!;
  const { bytesNeeded, bytesExposed, foreignReadableBytes, foreignWritableBytes, pagesGranted } = total;
  rig.log.note(`the audit: ${JSON.stringify(total)}, ${windows} stale windows`);
  assert.deepEqual([total['contradictions'], total['leakedGrants'], total['pagesReached']], [0, 0, 0]);
  assert.equal(measured.get('grantio_trace_events_lost_total'), 0);
  // Linux maps whole pages: beside the header of each request, and its status, lies what else the kernel has there.
  assert.ok(bytesNeeded <= bytesExposed, `${bytesNeeded} bytes needed of ${bytesExposed}`);
  assert.ok(foreignReadableBytes > 0);
  // Linux maps the header for reading; QEMU hands every translation over for writing as well.
  assert.equal(foreignWritableBytes, foreignReadableBytes);
  assert.equal(measured.get('grantio_foreign_readable_bytes_total'), foreignReadableBytes);
  assert.equal(measured.get('grantio_given_pages_total'), pagesGranted);
  assert.deepEqual([total['requests'], total['requestsOpen']], [measured.get('grantio_requests_total'), 0]);
  // A page is taken away after the guest has heard that its request is done, which the backend sees as a stale window.
  assert.ok(windows > 0 && windows < 2 * pagesGranted, `${windows} windows of ${pagesGranted} pages`);
  const rules = new Set(findings.map(({ rule }) => rule));
  assert.ok(rules.has('foreign-writable') && rules.has('stale-declared'), [...rules].join());
});

rigTest(
  'QEMU: an emulated IOMMU refuses qemu-storage-daemon',
  [...QEMU_NEEDS, STORAGE_DAEMON],
  async (rig) => {
    const [disk, socket] = [makeDisk(rig), rig.path('socket')];
    const backend = await storageDaemon.serve(rig, disk, socket, QUEUES);
    const words = await qemuArguments(rig, socket, ...diskWords(disk, QUEUES), '--restricted');
    const guest = startLinux(rig, words, { modules: ['virtio_blk'], script: '' });
    await guest.says(/iommu_platform=true is not supported by the device/);
    assert.equal((await guest.ended()).status, 1);
    await backend.end();
  },
);
