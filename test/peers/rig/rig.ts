// What every test of a real kernel on our backends shares: a folder, programs that end with the test, and one
// log of all that they say, kept on failure only.

import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { temporaryFolder } from '../../support/grantio.ts';
import { PeerLog } from '../peer-log.ts';
import { missing, type Need } from './needs.ts';
import { Program } from './program.ts';

/** What guest scripts say of their progress (guest-script.ts). */
const PROGRESS = /^GRANTIO (.*)/;

/** A test that needs programs of Debian packages; it is skipped where one is not installed. */
export function rigTest(title: string, needs: readonly Need[], work: (rig: Rig) => Promise<void>): void {
  test(title, async (context) => {
    const reason = missing(needs);
    if (reason) return context.skip(reason);
    const rig = new Rig(context);
    try {
      await work(rig);
    } catch (error) {
      throw rig.log.failure(error);
    }
    rig.log.remove();
  });
}

/** One try: a folder, the programs that were started, and the log. */
export class Rig {
  readonly #test: TestContext;
  readonly #folder: string;
  readonly log: PeerLog;
  readonly #began = Date.now();

  constructor(context: TestContext) {
    this.#test = context;
    this.#folder = temporaryFolder(context);
    this.log = new PeerLog(this.#folder);
    this.#note(context.name);
    process.stderr.write(`${context.name}\n`);
  }

  /** The path of a file in the rig's folder. */
  path(name: string): string {
    return join(this.#folder, name);
  }

  /** Makes a file of `content`, and zeroes up to `size` bytes. Returns its path. */
  file(name: string, content: Uint8Array, size = content.length): string {
    const path = this.path(name);
    writeFileSync(path, content);
    truncateSync(path, size);
    return path;
  }

  /** Starts a program whose lines go to the log under `name`; it ends with the test at the latest. */
  start(name: string, command: string, ...words: readonly string[]): Program {
    this.#note(`$ ${command} ${words.join(' ')}`);
    const program = new Program(name, command, words, (line) => {
      this.#note(`[${name}] ${line}`);
      const progress = PROGRESS.exec(line);
      if (progress) process.stderr.write(`${this.#seconds()}  ${name}: ${progress[1]}\n`);
    });
    this.#test.after(() => program.kill());
    return program;
  }

  #note(text: string): void {
    this.log.note(`${this.#seconds()}  ${text}`);
  }

  #seconds(): string {
    return `${((Date.now() - this.#began) / 1000).toFixed(1).padStart(7)} s`;
  }
}
