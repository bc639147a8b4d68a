// A backend and its guest in one process, which ends with the status that it is given while a request of the guest's
// hangs. Started by test/adversary/vhost-user-hangs.test.ts.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { VHOST_USER_GET_FEATURES } from '../../src/abi/vhost-user.ts';
import { VIRTIO_BLK_T_IN } from '../../src/abi/virtio-blk.ts';
import { Arena } from '../../src/hosts/linux/arena.ts';
import { listenOn } from '../../src/hosts/linux/fd-socket.ts';
import { loadLibc } from '../../src/hosts/linux/libc.ts';
import type { DeviceSpec } from '../../src/serving/devices.ts';
import { VhostServer } from '../../src/serving/vhost-server.ts';
import { hangRequest } from './userfault.test.helper.ts';
import { writeImage } from './vhost-backend.test.helper.ts';
import { VhostFrontend } from './vhost-frontend.test.helper.ts';
import { DiskGuest } from './vhost-guest.test.helper.ts';

const folder = mkdtempSync(join(tmpdir(), 'grantio-hanging-'));
const [image, socket] = [join(folder, 'disk.img'), join(folder, 'disk.sock')];
writeImage(image);
const server = new VhostServer({
  ...{ workers: 1, pollMicroseconds: 50, restricted: false, sealed: false },
  onNotice: () => undefined,
  onEnd: () => undefined,
});
const libc = loadLibc();
const fd = listenOn(libc, new Arena(libc, 4096), socket);
const device: DeviceSpec = {
  ...{ kind: 'blk', path: image, readOnly: false, direct: false, engine: 'auto' },
  ...{ queues: 1, queueSize: 64, id: 'hanging' },
};
await server.add({ name: 'disk', device, fd, listening: true });
const guest = new DiskGuest(new VhostFrontend(socket)).begin();
guest.frontend.ask(VHOST_USER_GET_FEATURES);
const hanging = hangRequest(guest, 8);
guest.request(8, VIRTIO_BLK_T_IN, 3, 512);
guest.kick();
guest.frontend.waitFor(hanging);
rmSync(folder, { recursive: true });
process.exit(Number(process.argv[2]));
