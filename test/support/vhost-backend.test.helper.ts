// The backend in this process, with its threads, on real sockets; and a census of what it could leave open.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { Arena } from '../../src/hosts/linux/arena.ts';
import { listenOn } from '../../src/hosts/linux/fd-socket.ts';
import { loadLibc } from '../../src/hosts/linux/libc.ts';
import type { Notice } from '../../src/serving/control.ts';
import type { DeviceSpec } from '../../src/serving/devices.ts';
import { VhostServer } from '../../src/serving/vhost-server.ts';
import { VhostFrontend } from './vhost-frontend.test.helper.ts';
import { DiskGuest } from './vhost-guest.test.helper.ts';

export const DISK_BYTES = 1 << 20;

/** How a backend of a test is made. */
export interface BackendOptions {
  readonly disks?: number;
  readonly queues?: number;
  readonly workers?: number;
  readonly readOnly?: boolean;
  readonly sealed?: boolean;
  readonly pollMicroseconds?: number;
}

/** The byte at the start of a sector of the disk as it is at first. */
export function firstByte(sector: number): number {
  return (sector * 7 + 1) & 0xff;
}

/** Writes an image whose sectors can be told from each other. */
export function writeImage(path: string, bytes = DISK_BYTES): void {
  const image = new Uint8Array(bytes);
  for (let sector = 0; sector < bytes / 512; sector++)
    image.fill(firstByte(sector), sector * 512, (sector + 1) * 512);
  writeFileSync(path, image);
}

/** What this process has open: how many descriptors of each kind, and files that guests have brought. */
export function openThings(): Record<string, number> {
  const counts: Record<string, number> = {};
  const count = (name: string): void => {
    counts[name] = (counts[name] ?? 0) + 1;
  };
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      count(readlinkSync(`/proc/self/fd/${fd}`).replace(/\d+/g, 'N'));
    } catch {
      // The descriptor by which the folder was read.
    }
  }
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  for (const line of maps) if (line.includes('/memfd:grantio')) count(`map ${line.replace(/.*memfd:/, '')}`);
  return counts;
}

/** A server, and what it says. */
export class TestBackend {
  readonly folder: string;
  readonly notices: Notice[] = [];
  /** What went wrong when it ended. */
  failure: Error | undefined;
  #server!: VhostServer;
  #heard: (() => void)[] = [];
  #seen = 0;

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** Serves disks disk0, disk1, ... and an rng at sockets of these names; ends with the test. */
  static async start(t: TestContext, options: BackendOptions = {}): Promise<TestBackend> {
    const { disks = 1, queues = 1, workers = 1, readOnly = false, sealed = false } = options;
    const backend = new TestBackend(mkdtempSync(join(tmpdir(), 'grantio-adversary-')));
    backend.#server = new VhostServer({
      ...{ workers, restricted: false, sealed, pollMicroseconds: options.pollMicroseconds ?? 50 },
      onNotice: (notice) => backend.#hear(notice),
      onEnd: (failure) => {
        backend.failure ??= failure;
      },
    });
    t.after(async () => {
      await backend.end();
      rmSync(backend.folder, { recursive: true });
    });
    for (let i = 0; i < disks; i++) {
      const path = backend.imageOf(i);
      writeImage(path);
      const disk: DeviceSpec = {
        ...{ kind: 'blk', path, readOnly, queues, queueSize: 64 },
        ...{ direct: false, engine: 'auto', id: `disk${i}` },
      };
      await backend.serve(`disk${i}`, disk);
    }
    await backend.serve('rng', { kind: 'rng' });
    return backend;
  }

  async serve(name: string, device: DeviceSpec): Promise<void> {
    const libc = loadLibc();
    const fd = listenOn(libc, new Arena(libc, 4096), this.socketOf(name));
    await this.#server.add({ name, device, fd, listening: true });
  }

  /** Told to end, as by SIGTERM. */
  end(): Promise<void> {
    return this.#server.end();
  }

  imageOf(disk: number): string {
    return join(this.folder, `disk${disk}.img`);
  }

  socketOf(name: string): string {
    return join(this.folder, `${name}.sock`);
  }

  /** Connects a frontend; it goes with the test at the latest. */
  connect(t: TestContext, name = 'disk0'): VhostFrontend {
    const frontend = new VhostFrontend(this.socketOf(name));
    t.after(() => frontend.close());
    return frontend;
  }

  /** Connects a guest with a disk, which begins as an honest one does. */
  guest(t: TestContext, name = 'disk0', queues = 1): DiskGuest {
    return new DiskGuest(this.connect(t, name), { queues }).begin();
  }

  /** Waits for the next notice that `pattern` fits; those before it are passed over. */
  async says(pattern: RegExp, name?: string): Promise<Notice> {
    for (;;) {
      while (this.#seen < this.notices.length) {
        const notice = this.notices[this.#seen++];
        if (pattern.test(notice.message) && (name === undefined || notice.device === name)) return notice;
      }
      await new Promise<void>((resolve) => this.#heard.push(resolve));
    }
  }

  /** Waits until the session of a frontend that has gone, or was sent away, has ended. Returns how. */
  sessionEnds(name = 'disk0'): Promise<Notice> {
    return this.says(/has gone|closed the connection/, name);
  }

  /** Whether the disk can be used by the next frontend as if nothing had been. */
  async assertServes(t: TestContext, name = 'disk0'): Promise<void> {
    const guest = this.guest(t, name);
    assert.equal(guest.read(3)[0], firstByte(3));
    guest.close();
    await this.sessionEnds(name);
  }

  #hear(notice: Notice): void {
    this.notices.push(notice);
    for (const resolve of this.#heard.splice(0)) resolve();
  }
}
