// What every test of a real program on grantio's disks shares: the program must be there, it works in a
// folder of its own through `grantio run --run`, and all that was said goes to a log, kept on failure only.

import assert from 'node:assert/strict';
import { accessSync, constants, truncateSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Ended, grantio, Running, temporaryFolder } from '../support/grantio.ts';
import { checkExposure, type ModeFigures, parseReport } from '../support/report.ts';
import { PeerLog } from './peer-log.ts';

const SETUPS = [
  { mode: 'direct', queues: 1 },
  { mode: 'direct', queues: 4 },
  { mode: 'bounce', queues: 1 },
  { mode: 'bounce', queues: 4 },
] as const;
type Setup = (typeof SETUPS)[number];

/** mkfs and fsck are not on every user's PATH. */
const PATH = [process.env['PATH'], '/usr/local/sbin', '/usr/sbin', '/sbin'].join(delimiter);

/** A test of `programs` in each exposure mode, with one queue and with four. */
export function peerTest(
  title: string,
  programs: readonly string[],
  work: (peer: Peer) => Promise<void>,
): void {
  for (const setup of SETUPS)
    test(`${title} (${setup.mode}, queues: ${setup.queues})`, async (context) => {
      for (const program of programs) requireProgram(program);
      const peer = new Peer(context, setup);
      try {
        await work(peer);
      } catch (error) {
        throw peer.log.failure(error);
      }
      peer.log.remove();
    });
}

function requireProgram(name: string): void {
  const found = PATH.split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  assert.ok(found, `${name} is missing: run npm run peers:install`);
}

/** One try of a program: a folder, the setup of grantio, and the log. */
export class Peer {
  readonly #test: TestContext;
  readonly #setup: Setup;
  readonly log: PeerLog;
  /** Where everything of this try is; programs run in it. */
  readonly folder: string;

  constructor(context: TestContext, setup: Setup) {
    this.#test = context;
    this.#setup = setup;
    this.folder = temporaryFolder(context);
    this.log = new PeerLog(this.folder);
    this.log.note(context.name);
  }

  /** The path of a file in the folder. */
  path(name: string): string {
    return join(this.folder, name);
  }

  /** Makes a file of `size` zeroes. Returns its path. */
  blank(name: string, size: number): string {
    const path = this.path(name);
    writeFileSync(path, '');
    truncateSync(path, size);
    return path;
  }

  /** Runs a program to its end, which must be a good one. */
  async run(program: string, ...words: readonly string[]): Promise<Ended> {
    const running = new Running(program, words, this.#surroundings());
    this.#test.after(() => running.kill());
    const ended = await running.ended;
    this.log.note(`$ ${program} ${words.join(' ')}\n${ended.stdout}${ended.stderr}`);
    assert.equal(ended.status, 0, `${program} ${words.join(' ')} failed: ${ended.stderr}`);
    return ended;
  }

  /**
   * Runs a shell script, in which $uri is the first of `disks` as the guest sees it. The script must
   * succeed, and grantio's report afterwards must be a sound one.
   */
  async serve(disks: readonly string[], script: string): Promise<ModeFigures> {
    const { mode, queues } = this.#setup;
    const logged = `exec >>'${this.log.path}' 2>&1; set -eux\n${script}`;
    const words = ['run', ...disks.flatMap((disk) => ['--disk', disk]), '--mode', mode];
    words.push('--queues', `${queues}`, '--json', '--run', logged);
    const { status, signal, stdout, stderr } = await grantio(this.#test, words, this.#surroundings());
    this.log.note(`grantio ${words.join(' ')}\nended with ${signal ?? status}\n${stdout}${stderr}`);
    assert.equal(status, 0, 'a program failed on the disk, or grantio did');
    const [figures, ...others] = parseReport(stdout);
    assert.ok(figures !== undefined && others.length === 0, 'expected the report of one mode');
    assert.equal(figures.mode, mode);
    checkExposure(figures);
    return figures;
  }

  #surroundings(): { cwd: string; env: NodeJS.ProcessEnv } {
    return { cwd: this.folder, env: { ...process.env, PATH } };
  }
}
