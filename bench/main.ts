// `npm run bench`: what the path through the grants costs. Prints a table, or JSON with --json.
//
// Every figure is the median of several rounds, and the rounds of what is compared are taken in turn, because
// machines are shared and noisy: trust ratios more than absolute figures. Each group runs in a process of its
// own, so that one does not spoil what the engine has learnt for another.

import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { EXPOSURE_MODES, type ExposureMode } from '../src/dma/exposure-modes.ts';
import { benchCopy } from './copy.ts';
import { benchCounting } from './counting.ts';
import { type Figure, printFigures } from './figures.ts';
import { benchMapping } from './grants.ts';
import { benchHypercalls, benchScale } from './hypervisor.ts';
import { benchReferences } from './references.ts';
import { benchRequests } from './request.ts';
import { benchXenstored } from './xenstored.ts';

type Group = () => Promise<Figure[]>;

function inEachMode(name: string, bench: (mode: ExposureMode) => Promise<Figure[]>): Record<string, Group> {
  return Object.fromEntries(EXPOSURE_MODES.map((mode) => [`${name}-${mode}`, () => bench(mode)]));
}

const groups: Readonly<Record<string, Group>> = {
  ...inEachMode('requests', benchRequests),
  ...inEachMode('mapping', benchMapping),
  references: benchReferences,
  hypercalls: benchHypercalls,
  scale: benchScale,
  copy: benchCopy,
  counting: benchCounting,
  xenstored: benchXenstored,
};

function runGroup(name: string): Figure[] {
  const output = execFileSync(process.execPath, [fileURLToPath(import.meta.url), '--group', name], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return JSON.parse(output) as Figure[];
}

const asked = process.argv[process.argv.indexOf('--group') + 1];
if (process.argv.includes('--group')) process.stdout.write(JSON.stringify(await groups[asked]()));
else printFigures(Object.keys(groups).flatMap(runGroup), process.argv.includes('--json'));
