// The real Xen as a player: sequences go into domain 0 of the rig's machine as one file, are played there by one
// program (dom0.ts), and what was seen comes back as another: starting Node there takes seconds.

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startJob } from '../rig/share.ts';
import type { XenPlayer } from './compare.ts';
import type { Sequence } from './script.ts';

const WANTED = 'truth-sequences.json';
const SEEN = 'truth-seen.json';

export class RealXen implements XenPlayer {
  readonly name = 'Xen';
  /** How often sequences were taken into domain 0. */
  rounds = 0;
  readonly #share: string;

  /** @param share the folder that the host shares with domain 0 of a machine that runs */
  constructor(share: string) {
    this.#share = share;
  }

  async play(sequences: readonly Sequence[]): Promise<string[][]> {
    this.rounds++;
    writeFileSync(join(this.#share, WANTED), JSON.stringify(sequences));
    rmSync(join(this.#share, SEEN), { force: true });
    const job = startJob(
      this.#share,
      `exec node --enable-source-maps dist/test/xen/truth/dom0.js /share/${WANTED} /share/${SEEN}`,
    );
    const status = await job.ended();
    if (status !== 0)
      throw new Error(`domain 0 could not play ${sequences.length} sequences:\n${job.output.read()}`);
    return JSON.parse(readFileSync(join(this.#share, SEEN), 'utf8')) as string[][];
  }
}
