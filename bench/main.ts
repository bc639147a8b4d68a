// `npm run bench`: what the path through the grants costs. Prints a table, or JSON with --json.
//
// Every figure is the median of several rounds, and the rounds of what is compared are taken in turn, because
// machines are shared and noisy: trust ratios more than absolute figures.

import { benchCopy } from './copy.ts';
import { benchGrants } from './grants.ts';
import { benchRequests } from './request.ts';
import { type Figure, printFigures } from './figures.ts';

const json = process.argv.includes('--json');
const figures: Figure[] = [];
for (const bench of [benchRequests, benchGrants, benchCopy]) figures.push(...(await bench()));
printFigures(figures, json);
