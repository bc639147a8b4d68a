// Checks the JSON document of `grantio run --json`: both modes, every byte identical, no grant leaked.
//   node scripts/check-report.mjs FILE
import { readFileSync } from 'node:fs';

const { modes } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const faults = modes.filter(({ identical, leakedGrants }) => identical !== true || leakedGrants !== 0);
if (modes.length !== 2 || faults.length > 0) {
  console.error(`check-report: expected two faultless modes, got ${JSON.stringify(modes, null, 2)}`);
  process.exit(1);
}
console.log(`check-report: ${modes.map(({ mode }) => mode).join(' and ')} are identical, nothing leaked`);
