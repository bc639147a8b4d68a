// Runs in domain 0 of the real Xen: plays the sequences of a file, and writes what was seen to another.
//   node dom0.js SEQUENCES.json SEEN.json
// After privcmd-world.ts; xen-player.ts on the other side of the machine's wall writes the one and reads the other.

import { readFileSync, writeFileSync } from 'node:fs';
import { play } from './play.ts';
import { PrivcmdXen } from './privcmd-world.ts';
import type { Sequence } from './script.ts';

const [from, to] = process.argv.slice(2);
const sequences = JSON.parse(readFileSync(from, 'utf8')) as readonly Sequence[];
const xen = new PrivcmdXen();
const seen = sequences.map((sequence, index) => {
  const world = xen.world();
  try {
    return play(world, sequence);
  } catch (error) {
    throw new Error(`sequence ${index} of ${sequences.length} cannot be played to its end`, { cause: error });
  } finally {
    world.close();
  }
});
xen.close();
writeFileSync(to, JSON.stringify(seen));
