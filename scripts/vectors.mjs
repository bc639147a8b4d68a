// Writes the conformance vectors to vectors/, a file a group and a vector a line, from what src/vectors makes.
// src/vectors/vectors.test.ts fails when they differ.
//   npm run build && node scripts/vectors.mjs
import { writeFileSync } from 'node:fs';
import { vectors } from '../dist/src/vectors/vectors.js';

for (const { group, format, about, vectors: cases } of Object.values(vectors)) {
  const head = { group, format, about };
  const lines = cases.map((each) => `    ${JSON.stringify(each)}`).join(',\n');
  const text = `${JSON.stringify(head, null, 2).slice(0, -2)},\n  "vectors": [\n${lines}\n  ]\n}\n`;
  writeFileSync(new URL(`../vectors/${group}.json`, import.meta.url), text);
  console.log(`vectors/${group}.json: ${cases.length} vectors`);
}
