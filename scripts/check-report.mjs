// Checks the JSON document of `grantio run --json`: every exposure mode, every byte identical, no grant leaked,
// and nothing foreign exposed but in `direct`.
//   node scripts/check-report.mjs FILE
import { readFileSync } from 'node:fs';

const MODES = ['direct', 'bounce', 'persistent', 'copy', 'auto'];
const { modes } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const names = modes.map(({ mode }) => mode);
const isFaulty = ({ mode, identical, leakedGrants, foreignReadableBytes, fallback }) =>
  identical !== true ||
  leakedGrants !== 0 ||
  (mode !== 'direct' && foreignReadableBytes !== 0) ||
  fallback !== undefined;
if (names.join() !== MODES.join() || modes.some(isFaulty)) {
  console.error(`check-report: expected ${MODES}, without fault, got ${JSON.stringify(modes, null, 2)}`);
  process.exit(1);
}
console.log(`check-report: ${names.join(', ')} are identical, nothing leaked`);
