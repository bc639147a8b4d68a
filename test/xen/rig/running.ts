// Machines that run already, as tests find them: GRANTIO_XEN has their shares, with colons between them. Tests that run
// side by side take one each, for what one does to its first domain and to the list of guests is another's business.

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isRunning } from './cache.ts';

/** The shares of all machines that run; none if there is no such variable. */
export function runningShares(): readonly string[] {
  return (process.env['GRANTIO_XEN'] ?? '').split(':').filter((share) => share !== '');
}

let taken: string | undefined;

/**
 * The share of a machine that this process has for itself until it ends; undefined if none runs.
 *
 * @throws Error when all of them are taken
 */
export function takeMachine(): string | undefined {
  const shares = runningShares();
  taken ??= shares.find(take);
  if (taken === undefined && shares.length > 0)
    throw new Error(`other tests have the machines ${shares.join(' and ')}: run one test for each at a time`);
  return taken;
}

/** Whether nobody else had it. A test that was killed has it no more. */
function take(share: string): boolean {
  const mark = join(share, 'taken');
  try {
    writeFileSync(mark, `${process.pid}`, { flag: 'wx' });
  } catch {
    const holder = holderOf(mark);
    if (holder !== undefined) {
      if (isRunning(holder)) return false;
      rmSync(mark, { force: true });
    }
    return take(share);
  }
  process.once('exit', () => rmSync(mark, { force: true }));
  return true;
}

/** The process that has made the mark; undefined if it has ended, and taken its mark away, meanwhile. */
function holderOf(mark: string): number | undefined {
  try {
    return Number(readFileSync(mark, 'utf8'));
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
