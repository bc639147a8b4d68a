// `grantio serve blk` as a program of its own, for tests that kill it or what it stands on.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { GRANTIO, Running, temporaryFolder } from './grantio.ts';
import { writeImage } from './vhost-backend.test.helper.ts';
import { VhostFrontend } from './vhost-frontend.test.helper.ts';

/** The program, and where its image and its socket are. */
export class DiskProgram {
  readonly folder: string;
  readonly image: string;
  readonly socket: string;
  readonly #test: TestContext;
  #running!: Running;

  constructor(t: TestContext, folder = temporaryFolder(t)) {
    this.#test = t;
    this.folder = folder;
    this.image = join(folder, 'disk.img');
    this.socket = join(folder, 'disk.sock');
    writeImage(this.image);
  }

  get running(): Running {
    return this.#running;
  }

  /** Starts it, and resolves when it can be connected to. `before` are words of a command that is to start it. */
  async start(words: readonly string[] = [], before: readonly string[] = []): Promise<void> {
    const serve = ['serve', 'blk', '--disk', this.image, '--socket-path', this.socket, '--queue-size', '64'];
    const [program, ...rest] = [...before, process.execPath, GRANTIO, ...serve, '--workers', '1', ...words];
    const running = new Running(program, rest, {});
    this.#running = running;
    this.#test.after(() => running.kill());
    await this.#served();
  }

  /** Connects a frontend; it goes with the test at the latest. */
  connect(): VhostFrontend {
    const frontend = new VhostFrontend(this.socket);
    this.#test.after(() => frontend.close());
    return frontend;
  }

  /** The socket is in its place from when it is listened on; that of a dead one refuses. */
  async #served(): Promise<void> {
    let over = false;
    const end = (): void => {
      over = true;
    };
    this.#running.ended.then(end, end);
    while (!over) {
      if (existsSync(this.socket) && isServed(this.socket)) return;
      await delay(5);
    }
    throw new Error(`grantio serve ended before it could be connected to: ${this.#running.stderr}`);
  }
}

/** Leaves at once, as a frontend may. */
function isServed(path: string): boolean {
  try {
    new VhostFrontend(path).close();
    return true;
  } catch {
    return false;
  }
}
