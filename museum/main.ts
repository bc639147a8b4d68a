// `npm run museum`: puts known defects of others into our code, one after the other, and shows which test
// notices each. Needs a build; docs/museum.md says how to add an exhibit.

import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { SingleBar } from 'cli-progress';
import { type Exhibit, isNamed } from './exhibit.ts';
import { EXHIBITS } from './exhibits.ts';
import { visitAll } from './museum.ts';
import { visitJson, visitTable } from './print.ts';

const USAGE = `Usage: npm run museum -- [--json] [--only ID]... [--list]

Puts known defects of others into a copy of our code, one after the other, and runs
the tests that must notice.

  --only ID  only this exhibit, or all those of an advisory; may be given again
  --list     print what there is, and try nothing
  --json     one JSON document instead of a table
  --help     this text

Exit status: 0 all were caught; 1 one was not, or does not fit the code any more;
2 the call was wrong.
`;

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Ends the program for a call that means nothing. */
function refuse(message: string): never {
  process.stderr.write(`museum: ${message}\n\n${USAGE}`);
  process.exit(2);
}

function parseCall() {
  try {
    const { values } = parseArgs({
      options: {
        json: { type: 'boolean', default: false },
        only: { type: 'string', multiple: true, default: [] },
        list: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    return values;
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error));
  }
}

/** The exhibits that `names` ask for, all if there are none. */
function chosen(names: readonly string[]): Exhibit[] {
  for (const name of names)
    if (!EXHIBITS.some((exhibit) => isNamed(exhibit, name)))
      refuse(`no exhibit is called ${name}; --list prints those there are`);
  return EXHIBITS.filter((exhibit) => names.length === 0 || names.some((name) => isNamed(exhibit, name)));
}

/** On a terminal a bar that goes with the visits; nothing anywhere else. */
function startBar(): { update(done: number, of: number): void; stop(): void } {
  if (!process.stderr.isTTY) return { update: () => undefined, stop: () => undefined };
  const bar = new SingleBar({
    stream: process.stderr,
    format: 'museum {bar} {value}/{total}',
    barCompleteChar: '█',
    barIncompleteChar: '░',
    hideCursor: true,
    clearOnComplete: true,
  });
  bar.start(1, 0);
  return {
    update(done, of) {
      bar.setTotal(of);
      bar.update(done);
    },
    stop: () => bar.stop(),
  };
}

async function main(): Promise<void> {
  const call = parseCall();
  if (call.help) {
    process.stdout.write(USAGE);
    return;
  }
  const exhibits = chosen(call.only);
  if (call.list) {
    for (const { id, what } of exhibits) process.stdout.write(`${id}: ${what}\n`);
    return;
  }
  const start = performance.now();
  const bar = startBar();
  const visits = await visitAll(exhibits, root, bar.update).finally(bar.stop);
  const seconds = (performance.now() - start) / 1000;
  const text = call.json ? visitJson(visits, seconds) : visitTable(visits, seconds, process.stdout.columns);
  process.stdout.write(`${text}\n`);
  if (visits.some(({ outcome }) => outcome !== 'caught')) process.exitCode = 1;
}

process.once('SIGINT', () => process.exit(130));
process.once('SIGTERM', () => process.exit(143));
await main();
