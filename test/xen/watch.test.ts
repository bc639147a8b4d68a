// One `grantio xen-backend` that watches xenstore, and guests that come and go: the devices of two Linux guests are
// announced as libxl does, one guest is destroyed in the middle of its writes and made anew, and a PVH guest is
// refused. The other notices nothing of it.

import assert from 'node:assert/strict';
import { deviceRows } from '../../src/cli/top/device-rows.ts';
import { type MetricSample, metricSamples } from '../../src/cli/top/metric-samples.ts';
import { checkRaw, diskBefore, diskScript, writeForever } from './guest-disk.ts';
import { announce, awaitBackend, libxlDisk, libxlEntropy } from './libxl-nodes.ts';
import { type Guest, PLACES, type Xen, xenTest } from './rig/xen-test.ts';

const [FIRST_SEED, SECOND_SEED] = [75, 76];
/** States of the backend's end. */
const [SERVED, REFUSED] = [2, 6];
const METRICS = '/run/watch.metrics';

const ENTROPY = `
step 'entropy'
[ "$(dd if=/dev/hwrng bs=64 count=4 status=none | wc -c)" = 256 ]`;

/** Writes, and reads back past the page cache, until the host has had enough; then as one that was alone. */
const NEIGHBOUR = `
step 'beside the other'
dd if=/dev/vda of=/tmp/saved bs=64k count=1 status=none
until read_xenstore enough >/tmp/enough; do
  dd if=/dev/urandom of=/tmp/round bs=64k count=1 status=none
  dd if=/tmp/round of=/dev/vda bs=64k conv=notrunc,fsync status=none
  echo 3 >/proc/sys/vm/drop_caches
  dd if=/dev/vda bs=64k count=1 status=none | cmp - /tmp/round
  tell round
  sleep 0.2
done
dd if=/tmp/saved of=/dev/vda bs=64k conv=notrunc,fsync status=none
${diskScript('vda', SECOND_SEED)}${ENTROPY}`;

const devices = (image: string) => [libxlDisk(PLACES[0], image), libxlEntropy(PLACES[1])] as const;

/** The toolstack's part: the guest's devices appear. */
function announceAll(xen: Xen, guest: Guest, image: string): Promise<string> {
  return xen.run(
    devices(image)
      .map((device) => announce(`${guest.id}`, device))
      .join(''),
  );
}

/** Lets the guest run when its backend is there. */
async function startServed(xen: Xen, guest: Guest, image: string): Promise<void> {
  const said = await xen.run(
    devices(image)
      .map((device) => awaitBackend(`${guest.id}`, device))
      .join(''),
  );
  assert.deepEqual(said.match(/state \d/g), [`state ${SERVED}`, `state ${SERVED}`], said);
  await guest.start();
}

xenTest('C5: one backend serves guests as xenstore announces them, and as they go', async (xen) => {
  const image = await xen.put('first.img', diskBefore(FIRST_SEED));
  const doomed = await xen.guest('first', writeForever('vda', 16));
  await announceAll(xen, doomed, image);
  const backend = await xen.backend('--metrics', METRICS);
  await refusesPvh(xen);
  await startServed(xen, doomed, image);

  const otherImage = await xen.put('neighbour.img', diskBefore(SECOND_SEED));
  const neighbour = await xen.guest('neighbour', NEIGHBOUR);
  await announceAll(xen, neighbour, otherImage);
  await startServed(xen, neighbour, otherImage);
  await doomed.says(/^GRANTIO round/);
  await neighbour.says(/^GRANTIO round/);

  await doomed.destroy();
  await backend.says(new RegExp(`${doomed.id}/virtio_disk/51712.*closed`));
  await xen.expectGone(doomed);
  await neighbour.says(/^GRANTIO round/);
  checkMetrics(neighbour, await readMetrics(xen));

  const anewImage = await xen.put('first.img', diskBefore(FIRST_SEED));
  const anew = await xen.guest('first', `${diskScript('vda', FIRST_SEED)}${ENTROPY}`);
  assert.notEqual(anew.id, doomed.id);
  await announceAll(xen, anew, anewImage);
  await startServed(xen, anew, anewImage);
  await anew.done();

  await xen.run(`xenstore-write /local/domain/${neighbour.id}/enough 1`);
  await neighbour.done();
  await backend.signal('TERM');
  assert.equal(await backend.ended(), 0, 'the backend');
  checkRaw(await xen.get(anewImage), FIRST_SEED);
  checkRaw(await xen.get(otherImage), SECOND_SEED);
  await xen.run(`e2fsck -fn ${anewImage} && e2fsck -fn ${otherImage}`);
});

async function readMetrics(xen: Xen): Promise<readonly MetricSample[]> {
  const get = `require('http').get({ socketPath: '${METRICS}', path: '/metrics' }, (r) => r.pipe(process.stdout))`;
  return metricSamples(await xen.run(`node -e "${get}"`));
}

/** The devices of the guest that is left are there and at work, and those of the other are not. */
function checkMetrics({ id }: Guest, samples: readonly MetricSample[]): void {
  const disk = `${id}/virtio_disk/51712`;
  const rows = deviceRows({ time: 0, samples }, undefined, Date.now() / 1000);
  assert.deepEqual(rows.map(({ device, kind }) => [device, kind]).sort(), [
    [`${id}/virtio/0`, 'rng'],
    [disk, 'blk'],
  ]);
  const value = (name: string, op?: string): number | undefined =>
    samples.find(
      ({ name: found, labels }) =>
        found === name && labels.get('device') === disk && (op === undefined || labels.get('op') === op),
    )?.value;
  for (const op of ['read', 'write', 'flush'])
    assert.ok(value('grantio_requests_total', op)! > 0, `${op} requests`);
  assert.ok(value('grantio_data_bytes_total', 'write')! >= 64 * 1024);
  for (const name of ['notifications_total', 'interrupts_total', 'needed_bytes_total'])
    assert.ok(value(`grantio_${name}`)! > 0, name);
  // It goes on while it is read: the two are not of the same moment.
  const [mappings, bytes] = [value('grantio_mappings')!, value('grantio_exposed_bytes')!];
  assert.ok(mappings > 0 && bytes > 0 && bytes % 4096 === 0, `${bytes} bytes, ${mappings} mappings`);
  assert.equal(value('grantio_enabled_queues'), 1);
  for (const { connected, errors, violations } of rows) {
    assert.notEqual(connected, undefined, 'a driver is there');
    assert.deepEqual([errors, violations], [0, 0]);
  }
  const guests = samples.filter(({ name }) => name === 'grantio_device_info');
  assert.deepEqual(new Set(guests.map(({ labels }) => labels.get('guest'))), new Set([`${id}`]));
  const sleeps = samples.find(({ name }) => name === 'grantio_worker_sleeps_total');
  assert.ok(sleeps!.value > 0);
}

/** A guest whose interrupts no device model may raise: the call that would has made Xen panic. */
async function refusesPvh(xen: Xen): Promise<void> {
  const device = libxlEntropy(PLACES[1]);
  const said = await xen.run(`
    trap 'xl destroy pvh' EXIT
    printf '%s\\n' 'name="pvh"' 'type="pvh"' 'memory=64' 'kernel="/guest/vmlinux"' >/run/pvh.cfg
    xl create -p /run/pvh.cfg >&2
    pvh=$(xl domid pvh)
    ${announce('$pvh', device)}${awaitBackend('$pvh', device)}
    test ! -e /run/grantio/xen/$pvh`);
  assert.match(said, new RegExp(`state ${REFUSED} .*is a PVH guest`));
}
