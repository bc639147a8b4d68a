// `npm run bench`: what the path through the grants costs. Prints a table, or JSON with --json.
//
// Every figure is the median of several rounds, and the rounds of what is compared are taken in turn, because
// machines are shared and noisy: trust ratios more than absolute figures. Each group runs in a process of its
// own, so that one does not spoil what the engine has learnt for another.

import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { benchCopy } from './copy.ts';
import { type Figure, printFigures } from './figures.ts';
import { benchMapping } from './grants.ts';
import { benchHypercalls, benchScale } from './hypervisor.ts';
import { benchReferences } from './references.ts';
import { benchRequests } from './request.ts';
import { benchXenstored } from './xenstored.ts';

const groups: Readonly<Record<string, () => Promise<Figure[]>>> = {
  'requests-direct': () => benchRequests('direct'),
  'requests-bounce': () => benchRequests('bounce'),
  'mapping-direct': () => benchMapping('direct'),
  'mapping-bounce': () => benchMapping('bounce'),
  references: benchReferences,
  hypercalls: benchHypercalls,
  scale: benchScale,
  copy: benchCopy,
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
