// User-Mode Linux with a vhost-user console: a login shell at its terminal, and a program at a port beside it.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { seededBytes } from './content.ts';
import { serve } from './rig/backend.ts';
import { rigTest } from './rig/rig.ts';
import { startUml, UML_NEEDS } from './rig/uml.ts';

const VIRTIO_ID_CONSOLE = 3;
/** What a program of the host sends to one of the guest, which sends it back. */
const JOB = seededBytes(300_000, 53);

const SCRIPT = `
  step 'ports'
  while [ ! -e /sys/class/virtio-ports/vport0p1/name ]; do usleep 10000; done
  tell "port $(cat /sys/class/virtio-ports/vport0p1/name)"
  step 'a program at its port'
  head -c ${JOB.length} /dev/vport0p1 >/job
  tell "md5 $(md5sum </job)"
  cat /job >/dev/vport0p1
  step 'a shell at the terminal'
  setsid sh -c 'exec sh -il </dev/hvc0 >/dev/hvc0 2>&1'
  tell "left"`;

/** A connection, and all that it has said. */
class Client {
  readonly socket: Socket;
  readonly #chunks: Buffer[] = [];

  private constructor(path: string) {
    this.socket = connect({ path });
    this.socket.on('data', (chunk) => this.#chunks.push(chunk));
  }

  static async connect(path: string): Promise<Client> {
    const client = new Client(path);
    await once(client.socket, 'connect');
    return client;
  }

  get heard(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  /** Resolves when it has said what `isSo` waits for. Rejects when it hangs up before. */
  async until(isSo: (heard: Buffer) => boolean): Promise<void> {
    const over = once(this.socket, 'close').then(() => assert.fail(`hung up after ${this.heard}`));
    over.catch(() => undefined);
    while (!isSo(this.heard)) await Promise.race([once(this.socket, 'data'), over]);
  }
}

rigTest(
  'User-Mode Linux: console, a shell at its terminal and a program at a port',
  UML_NEEDS,
  async (rig) => {
    const [socket, terminal, port] = ['socket', 'terminal', 'port'].map((name) => rig.path(name));
    const words = ['--console', `socket:${terminal}`, '--ports', `org.grantio.test=socket:${port}`];
    const program = await serve(rig, socket, 'console', ...words);
    const host = await Client.connect(port);
    host.socket.write(JOB);
    const guest = startUml(rig, socket, VIRTIO_ID_CONSOLE, {
      modules: ['virtio_console'],
      script: SCRIPT,
    });
    assert.equal((await guest.says(/^GRANTIO port (.*)/))[1], 'org.grantio.test');
    const md5 = createHash('md5').update(JOB).digest('hex');
    assert.equal((await guest.says(/^GRANTIO md5 (\w+)/))[1], md5);
    await host.until(({ length }) => length === JOB.length);
    assert.deepEqual(host.heard, JOB, 'it came back as it was sent');
    await guest.says(/^GRANTIO step a shell/);
    const person = await Client.connect(terminal);
    await person.until((heard) => heard.includes('# '));
    person.socket.write('echo $((6 * 7))-$(tty)\n');
    await person.until((heard) => heard.includes('42-/dev/hvc0'));
    // Whoever comes next goes on where the one before was.
    person.socket.destroy();
    const next = await Client.connect(terminal);
    next.socket.write('echo $((6 * 8)); exit\n');
    await next.until((heard) => heard.includes('48\r\n'));
    await guest.says(/^GRANTIO left/);
    await guest.says(/^GRANTIO done/);
    assert.deepEqual(await guest.ended(), { status: 0, signal: null });
    next.socket.destroy();
    host.socket.destroy();
    await program.end();
  },
);
