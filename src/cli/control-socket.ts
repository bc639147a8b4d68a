// `grantio run --control`: a Unix socket at which devices are plugged and unplugged while the guest runs. Whoever may
// open it may do that, so only the user may. After run-nbd.ts; the other end is ctl.ts.

import { createServer, type Socket } from 'node:net';
import { VIRTIO_ID_RNG } from '../abi/virtio.ts';
import { listenAtPath } from '../hosts/linux/unix-socket.ts';
import type { PluggedDevice } from '../parallel/host-devices.ts';
import type { VirtualHost } from '../parallel/virtual-host.ts';
import {
  type ControlAnswer,
  type ControlDevice,
  type ControlRequest,
  LineReader,
  MAX_LINE,
  parseRequest,
} from './control-protocol.ts';
import { nextName } from './run-plan.ts';

/** Clients at a time; one more is hung up on. */
const MAX_CLIENTS = 8;

/** Removes the socket; requests that are under way are not answered any more. */
export type CloseControl = () => Promise<void>;

/** Listens at `path` for what is to be done with the devices of `host`. Rejects with what is in the way. */
export async function openControl(path: string, host: VirtualHost): Promise<CloseControl> {
  const clients = new Set<Socket>();
  const server = createServer((socket) => {
    if (clients.size === MAX_CLIENTS) return void socket.destroy();
    clients.add(socket);
    socket.once('close', () => clients.delete(socket));
    // A client that has gone needs no answer.
    socket.on('error', () => socket.destroy());
    // A client that goes in the middle of its request ends the reading with an error; there is nobody to tell.
    serve(socket, host).catch(() => socket.destroy());
  });
  const remove = await listenAtPath(server, path, { mode: 0o600 });
  return async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    for (const socket of clients) socket.destroy();
    await Promise.all([closed, remove()]);
  };
}

/** Answers one client: its next request is read when it has the answer to the last. */
async function serve(socket: Socket, host: VirtualHost): Promise<void> {
  const reader = new LineReader();
  socket.setEncoding('utf8');
  try {
    for await (const chunk of socket) {
      if (!reader.add(chunk as string)) {
        await say(socket, { error: `a line of more than ${MAX_LINE} bytes` });
        break;
      }
      for (const line of reader.take()) await say(socket, await answer(line, host));
    }
  } finally {
    socket.destroy();
  }
}

/** Resolves when the client has it, or has gone. */
function say(socket: Socket, answer: ControlAnswer): Promise<void> {
  return new Promise((resolve) => {
    socket.write(`${JSON.stringify(answer)}\n`, () => resolve());
  });
}

async function answer(line: string, host: VirtualHost): Promise<ControlAnswer> {
  try {
    return await carryOut(parseRequest(line), host);
  } catch (error) {
    return { error: error instanceof Error ? error.message : `${error}` };
  }
}

async function carryOut(request: ControlRequest, host: VirtualHost): Promise<ControlAnswer> {
  if ('list' in request) return { devices: host.devices.map(described) };
  if ('unplug' in request) {
    const dev = request.unplug;
    return { unplugged: { dev, orderly: await host.unplug(dev) } };
  }
  if (request.plug === 'entropy') return { plugged: described(await host.plugEntropy()) };
  const dev = nextName(host.devices, 0);
  return { plugged: described(await host.plug({ ...request.plug, dev })) };
}

function described({ dev, nodes: { disk, virtioId }, uris }: PluggedDevice): ControlDevice {
  if (disk === undefined) return { dev, kind: virtioId === VIRTIO_ID_RNG ? 'entropy' : 'console', uris };
  return { dev, kind: 'disk', path: disk.params, readOnly: disk.readOnly, uris };
}
