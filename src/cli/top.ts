// `grantio top`: what the devices of running `grantio serve` and `grantio xen-backend` processes do, as a table that is
// kept up to date. Reads the sockets of --metrics. Before top/.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { type MetricsAddress, metricsAddress } from './metrics/metrics-address.ts';
import { printable } from './log-text.ts';
import { onInterrupt } from './signals.ts';
import { readMetrics } from './top/read-metrics.ts';
import { Screen } from './top/screen.ts';
import { topTable } from './top/top-table.ts';
import { DeviceWatch, type Seen } from './top/watch-devices.ts';
import { UsageError } from './usage.ts';

/** Time between two looks, in milliseconds. */
const INTERVAL = 1000;
/** Where sockets are looked for when none is named, and what they are called. */
const SOCKET_NAME = /\.metrics(\.[\w.-]+)?$/;
const KEYS_THAT_END = ['q', 'Q', '\x03', '\x04'];

const HELP = `
Columns:
  frontend    how long the virtual machine has been connected, or a Xen guest's driver has used the device
  mean, p99   time in the device since the last look, from taking a request to giving it back
  depth       requests that waited or were under way when the device began a turn
  CPU         of the process, which may serve several devices
  exposed     bytes of the guest's memory that the backend can reach
  errors      requests that failed; violations: rules that the guest or its monitor broke

Without --socket, all sockets NAME.metrics in $XDG_RUNTIME_DIR/grantio and /run/grantio are read, and those that
--own-process makes of them.
q or Ctrl-C ends it. Where the output is no terminal, one table is printed.

Exit status: 0 done, 1 no process could be asked, 2 the call was wrong.`;

interface TopOptions {
  readonly socket?: readonly string[];
  readonly once?: true;
  readonly json?: true;
}

/** Adds the command to the program. */
export function addTopCommand(program: Command): void {
  program
    .command('top')
    .summary('watch what served devices do')
    .description(
      'Show what the devices of `grantio serve` and `xen-backend` with --metrics do, in a table that is kept up to date.',
    )
    .option('--socket <place...>', 'where metrics are served: paths of Unix sockets, or HOST:PORT')
    .option('--once', 'print one table, of one second, and end')
    .option('--json', 'print the rows of one second as JSON, and end')
    .addHelpText('after', HELP)
    .action(async (options: TopOptions) => {
      process.exitCode = await top(options);
    });
}

async function top(options: TopOptions): Promise<number> {
  const watch = new DeviceWatch(places(options.socket), {
    read: readMetrics,
    time: () => performance.now() / 1000,
    wall: () => Date.now() / 1000,
  });
  if (process.stdout.isTTY && process.stdin.isTTY && !options.once && !options.json) {
    await watchLive(watch);
    return 0;
  }
  await watch.look();
  await pause(INTERVAL);
  const seen = await watch.look();
  process.stdout.write(options.json ? `${JSON.stringify(seen, null, 2)}\n` : `${page(seen)}\n`);
  return seen.rows.length === 0 && seen.problems.length > 0 ? 1 : 0;
}

/** The places that the user names, or those where sockets usually are. */
function places(named: readonly string[] | undefined): ReadonlyMap<string, MetricsAddress> {
  const found = named ?? usualPlaces();
  if (found.length === 0)
    throw new UsageError(
      `top: there is no socket NAME.metrics in ${usualFolders().join(' or ')}; ` +
        'name one with --socket, as it was given to --metrics of grantio serve or xen-backend',
    );
  return new Map(found.map((place) => [place, metricsAddress(place)]));
}

function usualFolders(): readonly string[] {
  const own = process.env['XDG_RUNTIME_DIR'];
  return [...(own ? [own] : []), '/run'].map((folder) => join(folder, 'grantio'));
}

function usualPlaces(): readonly string[] {
  return usualFolders().flatMap((folder) => {
    try {
      return readdirSync(folder)
        .filter((name) => SOCKET_NAME.test(name))
        .map((name) => join(folder, name));
    } catch {
      // A folder that is not there, or is not ours to read, has no sockets for us.
      return [];
    }
  });
}

function page({ rows, problems }: Seen): string {
  const colour = process.stdout.isTTY === true && process.env['NO_COLOR'] === undefined;
  const width = process.stdout.columns ?? Number.POSITIVE_INFINITY;
  const table = rows.length === 0 ? [] : [topTable(rows, { width, colour })];
  return [...table, ...problems.map(printable)].join('\n');
}

/** The table on the terminal's other page, until a key or a signal. */
async function watchLive(watch: DeviceWatch): Promise<void> {
  const { stdin, stdout } = process;
  const screen = new Screen(stdout);
  const interruption = onInterrupt('ending');
  let seen: Seen = { rows: [], problems: [] };
  const redraw = (): void => screen.draw(page(seen));
  const ended = new AbortController();
  const onKey = (key: Buffer): void => {
    if (KEYS_THAT_END.includes(key.toString())) ended.abort();
  };
  interruption.onSignal(() => ended.abort());
  const restore = (): void => screen.close();
  process.once('exit', restore);
  stdin.setRawMode(true).on('data', onKey).resume();
  stdout.on('resize', redraw);
  screen.open();
  try {
    while (!ended.signal.aborted) {
      seen = await watch.look();
      redraw();
      await pause(INTERVAL, ended.signal);
    }
  } finally {
    restore();
    stdout.off('resize', redraw);
    stdin.off('data', onKey).pause().setRawMode(false);
    interruption.release();
  }
}

/** Resolves after so many milliseconds, or when the signal comes. */
function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
