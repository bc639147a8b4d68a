// The metrics of a real `grantio serve`, after requests of a guest that are written by hand: each is counted once, what
// the backend can reach is what the guest has handed over, and broken rules are there by their clause.

import assert from 'node:assert/strict';
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type MetricSample, metricSamples } from '../../src/cli/top/metric-samples.ts';
import { readMetrics } from '../../src/cli/top/read-metrics.ts';
import { native } from '../../src/hosts/linux/native.test.helper.ts';
import { grantio, type Running, startGrantio, temporaryFolder } from '../support/grantio.ts';
import { writeImage } from '../support/vhost-backend.test.helper.ts';
import { VhostFrontend } from '../support/vhost-frontend.test.helper.ts';
import { DiskGuest } from '../support/vhost-guest.test.helper.ts';

const BLOCK = 4096;

interface Served {
  readonly socket: string;
  readonly metrics: string;
  readonly running: Running;
}

async function serveDisk(t: TestContext): Promise<Served> {
  const folder = temporaryFolder(t);
  writeImage(join(folder, 'disk.img'));
  const [socket, metrics] = [join(folder, 'disk.sock'), join(folder, 'vm.metrics')];
  const words = ['--name', 'root', '--disk', 'disk.img', '--socket-path', socket, '--metrics', metrics];
  const running = startGrantio(t, ['serve', 'blk', ...words], { cwd: folder });
  await running.says(/served at/);
  return { socket, metrics, running };
}

function guestAt(t: TestContext, socket: string): DiskGuest {
  const frontend = new VhostFrontend(socket);
  t.after(() => frontend.close());
  return new DiskGuest(frontend, { sealed: true }).begin();
}

/** Samples by name and labels. */
class Scrape {
  readonly #samples: readonly MetricSample[];

  constructor(samples: readonly MetricSample[]) {
    this.#samples = samples;
  }

  static async of({ metrics }: Served): Promise<Scrape> {
    return new Scrape(metricSamples(await readMetrics({ path: metrics })));
  }

  value(name: string, labels: Readonly<Record<string, string>> = {}): number | undefined {
    return this.#samples.find(
      (sample) =>
        sample.name === `grantio_${name}` &&
        Object.entries(labels).every(([label, text]) => sample.labels.get(label) === text),
    )?.value;
  }
}

test('requests of a guest are counted, and what it has handed over is what is exposed', native, async (t) => {
  const served = await serveDisk(t);
  const before = await Scrape.of(served);
  assert.equal(before.value('frontend_connected', { device: 'root' }), 0);
  assert.equal(before.value('exposed_bytes'), 0);
  const guest = guestAt(t, served.socket);
  for (let i = 0; i < 5; i++) assert.equal(guest.write(i * 8, new Uint8Array(BLOCK)), 0);
  for (let i = 0; i < 3; i++) guest.read(i);
  const during = await Scrape.of(served);
  const ofRoot = (name: string, more = {}) => during.value(name, { device: 'root', ...more });
  assert.equal(ofRoot('requests_total', { op: 'write' }), 5);
  assert.equal(ofRoot('requests_total', { op: 'read' }), 3);
  assert.equal(ofRoot('data_bytes_total', { op: 'write' }), 5 * BLOCK);
  assert.equal(ofRoot('request_errors_total', { op: 'write', status: 'ioerr' }), 0);
  assert.equal(ofRoot('exposed_bytes'), guest.memory.u8.length);
  assert.equal(ofRoot('mapped_bytes'), guest.memory.u8.length);
  assert.equal(ofRoot('sessions_total'), 1);
  assert.equal(ofRoot('frontend_connected'), 1);
  guest.close();
  await served.running.says(/the frontend has gone/);
  const after = await Scrape.of(served);
  assert.equal(after.value('exposed_bytes'), 0);
  assert.equal(after.value('mappings'), 0);
  assert.equal(after.value('requests_total', { op: 'write' }), 5);
});

test(
  'a rule that a frontend breaks is counted by its clause, and the connection as closed',
  native,
  async (t) => {
    const served = await serveDisk(t);
    const frontend = new VhostFrontend(served.socket);
    t.after(() => frontend.close());
    frontend.send(200);
    assert.ok(frontend.isClosed());
    await served.running.says(/closed the connection/);
    const scrape = await Scrape.of(served);
    assert.equal(scrape.value('violations_total', { device: 'root' }), 1);
    assert.equal(scrape.value('connections_closed_total', { device: 'root' }), 1);
    assert.equal(scrape.value('frontend_connected', { device: 'root' }), 0);
  },
);

test('the socket is private, top reads it, and it goes with the process', native, async (t) => {
  const served = await serveDisk(t);
  assert.equal(statSync(served.metrics).mode & 0o777, 0o600);
  const { status, stdout } = await grantio(t, ['top', '--once', '--socket', served.metrics]);
  assert.equal(status, 0);
  assert.match(stdout, /│ root +│ blk /);
  served.running.signal('SIGTERM');
  assert.equal((await served.running.ended).status, 0);
  assert.ok(!existsSync(served.metrics));
  const gone = await grantio(t, ['top', '--json', '--socket', served.metrics]);
  assert.equal(gone.status, 1);
  const { rows, problems } = JSON.parse(gone.stdout) as { rows: unknown[]; problems: string[] };
  assert.deepEqual(rows, []);
  assert.match(problems[0], /ENOENT/);
});

test('metrics for other machines are a wrong call, and nothing is started', native, async (t) => {
  const folder = temporaryFolder(t);
  const words = ['serve', 'rng', '--socket-path', join(folder, 'rng.sock'), '--metrics', '0.0.0.0:9100'];
  const { status, stderr } = await grantio(t, words);
  assert.equal(status, 2);
  assert.match(stderr, /expected a host of this machine alone/);
  assert.ok(!existsSync(join(folder, 'rng.sock')));
});
