// `grantio serve --trace` for a guest behind an IOMMU that is written by hand: what the backend could reach is known to
// the byte, and the metrics and the audit of the file say the same.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import * as user from '../../src/abi/vhost-user.ts';
import { VIRTIO_F_ACCESS_PLATFORM } from '../../src/abi/virtio.ts';
import { metricSamples } from '../../src/cli/top/metric-samples.ts';
import { readMetrics } from '../../src/cli/top/read-metrics.ts';
import { native } from '../../src/hosts/linux/native.test.helper.ts';
import { number } from '../../src/transports/vhost-user/frontend.test.helper.ts';
import { grantio, type Running, startGrantio, startServe, temporaryFolder } from '../support/grantio.ts';
import { writeImage } from '../support/vhost-backend.test.helper.ts';
import { VhostFrontend } from '../support/vhost-frontend.test.helper.ts';
import { BUFFERS, DiskGuest, FEATURES, GUEST, USER } from '../support/vhost-guest.test.helper.ts';

const PAGE = 4096;
const READ = 1;
const READ_WRITE = 3;
/** Where the guest has its rings, of 64 entries each, and how much of each page they need (§2.7). */
const RINGS = [0, 0x4000, 0x8000];
const RING_BYTES = 64 * 16 + (6 + 2 * 64) + (6 + 8 * 64);
const [HEADERS, STATUSES, DATA] = [BUFFERS, BUFFERS + 0x1000, BUFFERS + 0x2000];

/** A guest of which the backend may reach what it has said so far. */
class IommuGuest extends DiskGuest {
  override begin(): this {
    const messages = this.beginning();
    const platform = number(FEATURES | VIRTIO_F_ACCESS_PLATFORM);
    const memory = messages.findIndex(([request]) => request === user.VHOST_USER_SET_MEM_TABLE);
    for (const [index, [request, payload, fds]] of messages.entries()) {
      const isFeatures = request === user.VHOST_USER_SET_FEATURES;
      this.frontend.send(request, isFeatures ? platform : payload, fds);
      // Rings have the I/O addresses that are the frontend's own.
      if (index === memory) for (const at of RINGS) this.translate(USER + at, at, READ_WRITE);
    }
    return this;
  }

  /** Maps the page at `at` of the memory at I/O address `iova`. */
  translate(iova: number, at: number, permission: number): void {
    this.#tell(iova, USER + at, permission, user.VHOST_IOTLB_UPDATE);
  }

  /** The same for a page of buffers. */
  allow(at: number, permission = READ_WRITE): void {
    this.translate(GUEST + at, at, permission);
  }

  /** Takes a page of buffers away. */
  forbid(at: number): void {
    this.#tell(GUEST + at, 0, 0, user.VHOST_IOTLB_INVALIDATE);
  }

  #tell(iova: number, address: number, permission: number, type: number): void {
    const { bytes } = user.vhostUserIotlb.make({
      ...{ iovaLow: iova % 2 ** 32, iovaHigh: Math.floor(iova / 2 ** 32), size: PAGE, permission, type },
      ...{ user_addressLow: address % 2 ** 32, user_addressHigh: Math.floor(address / 2 ** 32) },
    });
    const flags = user.VHOST_USER_NEED_REPLY;
    assert.equal(this.frontend.askNumber(user.VHOST_USER_IOTLB_MSG, bytes, [], flags), 0n);
  }
}

interface Served {
  readonly folder: string;
  readonly socket: string;
  readonly metrics: string;
  readonly running: Running;
}

async function serve(t: TestContext, ...words: readonly string[]): Promise<Served> {
  const folder = temporaryFolder(t);
  writeImage(join(folder, 'disk.img'));
  const [socket, metrics] = [join(folder, 'disk.sock'), join(folder, 'vm.metrics')];
  const own = ['serve', 'blk', '--disk', 'disk.img', '--socket-path', socket, '--trace', 't.json', ...words];
  const running = startGrantio(t, own, { cwd: folder });
  await running.says(/served at/);
  return { folder, socket, metrics, running };
}

function connect(t: TestContext, socket: string): VhostFrontend {
  const frontend = new VhostFrontend(socket);
  t.after(() => frontend.close());
  return frontend;
}

/** The device's metrics, when they have `count` as `name`: what has happened comes to them a moment later. */
async function metricsWith({ metrics }: Served, name: string, count: number): Promise<Map<string, number>> {
  for (;;) {
    const samples = metricSamples(await readMetrics({ path: metrics }));
    const values = new Map(samples.map((sample) => [sample.name.replace('grantio_', ''), sample.value]));
    if (values.get(name) === count) return values;
  }
}

interface Audited {
  readonly runs: readonly {
    readonly mode: string;
    readonly total: Readonly<Record<string, number>>;
    readonly devices: readonly { readonly name: string }[];
    readonly findings: readonly { readonly rule: string }[];
  }[];
}

/** Ends the backend, and audits what it wrote. */
async function audit(t: TestContext, { running, folder }: Served): Promise<Audited> {
  running.signal('SIGTERM');
  const { status, stderr } = await running.ended;
  assert.equal(status, 0);
  assert.doesNotMatch(stderr, /trace file/);
  const { stdout } = await grantio(t, ['audit', 't.json', '--json'], { cwd: folder });
  return JSON.parse(stdout) as Audited;
}

test(
  'the exposure of a guest behind an IOMMU is in the metrics and in the trace, to the byte',
  native,
  async (t) => {
    const served = await serve(t, '--restricted', '--metrics', 'vm.metrics');
    const guest = new IommuGuest(connect(t, served.socket)).begin();
    guest.allow(HEADERS, READ);
    guest.allow(STATUSES);
    guest.allow(DATA, READ);
    assert.equal(guest.write(8, new Uint8Array(PAGE).fill(0x77)), 0);
    const foreign = 3 * PAGE - RING_BYTES + (PAGE - 16) + (PAGE - 1);
    const during = await metricsWith(served, 'needed_bytes_total', PAGE + 17);
    const settled = await metricsWith(served, 'foreign_readable_bytes_total', foreign);
    assert.equal(during.get('exposed_bytes'), 6 * PAGE);
    assert.deepEqual(
      [settled.get('given_pages_total'), settled.get('unneeded_pages'), settled.get('stale_windows_total')],
      [6, 0, 0],
    );
    assert.equal(settled.get('foreign_writable_bytes_total'), foreign - (PAGE - 16));
    assert.equal(settled.get('trace_events_lost_total'), 0);
    guest.forbid(DATA);
    const after = await metricsWith(served, 'stale_windows_total', 1);
    assert.ok(after.get('stale_seconds_total')! > 0, 'the guest took the page away after the answer');
    assert.equal(after.get('exposed_bytes'), 5 * PAGE);
    guest.close();
    await served.running.says(/the frontend has gone/);

    const { runs } = await audit(t, served);
    const [{ mode, total, findings }] = runs;
    assert.equal(mode, 'iommu');
    assert.deepEqual([total['pagesGranted'], total['pagesMapped'], total['leakedGrants']], [6, 6, 0]);
    assert.deepEqual([total['contradictions'], total['pagesReached']], [0, 0]);
    assert.deepEqual(
      [total['foreignReadableBytes'], total['foreignWritableBytes']],
      [foreign, foreign - (PAGE - 16)],
    );
    assert.equal(total['bytesNeeded'], RING_BYTES + PAGE + 17);
    assert.deepEqual([total['requests'], total['requestsFailed'], total['requestsOpen']], [1, 0, 0]);
    const rules = new Set(findings.map(({ rule }) => rule));
    assert.deepEqual([...rules].sort(), ['foreign-readable', 'foreign-writable', 'stale-declared']);
  },
);

test('without an IOMMU the trace says that all of the memory was within reach', native, async (t) => {
  const served = await serve(t);
  const guest = new DiskGuest(connect(t, served.socket)).begin();
  guest.read(3);
  guest.close();
  await served.running.says(/the frontend has gone/);
  const [{ mode, total, findings }] = (await audit(t, served)).runs;
  assert.equal(mode, 'plain');
  assert.equal(total['foreignWritableBytes'], guest.memory.bytes);
  assert.deepEqual([total['bytesNeeded'], total['contradictions']], [512 + 17, 0]);
  assert.deepEqual(
    findings.map(({ rule }) => rule),
    ['unrestricted-reach'],
  );
});

test('with processes of their own each device has a file of its own', native, async (t) => {
  const served = await serve(t, '--own-process', '--name', 'root');
  assert.ok(existsSync(join(served.folder, 't.json.root')));
  assert.ok(!existsSync(join(served.folder, 't.json')));
});

test('O4: a trace that cannot be written is a wrong call, and nothing is started', native, async (t) => {
  const words = ['rng', '--socket-path', join(temporaryFolder(t), 'rng.sock')];
  const { status, stderr } = await startServe(t, [...words, '--trace', '/nowhere/t.json']).ended;
  assert.equal(status, 2);
  assert.match(stderr, /trace file \/nowhere\/t\.json: cannot be written/);
});
