// Serves many disks in one process, as a program that uses the library does: `grantio serve` serves one. For idle.ts,
// which starts it with SOCKET IMAGE SOCKET IMAGE...; a signal ends it.

import { Arena } from '../../src/hosts/linux/arena.ts';
import { listenOn } from '../../src/hosts/linux/fd-socket.ts';
import { loadLibc } from '../../src/hosts/linux/libc.ts';
import { VhostServer } from '../../src/serving/vhost-server.ts';

const libc = loadLibc();
const arena = new Arena(libc, 65_536);
const server = new VhostServer({
  workers: 1,
  pollMicroseconds: 50,
  restricted: false,
  sealed: false,
  onNotice: ({ level, device, message }) => {
    if (level !== 'info') process.stderr.write(`${device}: ${message}\n`);
  },
  onEnd: () => undefined,
});
const words = process.argv.slice(2);
for (let i = 0; i + 1 < words.length; i += 2) {
  const [socket, path] = words.slice(i, i + 2);
  await server.add({
    name: `disk${i / 2}`,
    device: {
      kind: 'blk',
      path,
      readOnly: false,
      direct: false,
      engine: 'auto',
      queues: 1,
      queueSize: 256,
      id: 'grantio',
    },
    fd: listenOn(libc, arena, socket),
    listening: true,
  });
}
