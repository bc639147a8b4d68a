// Writes the decision table into docs/policy.md, as the code decides. src/dma/policy-table.test.ts fails when they
// differ.
//   npm run build && node scripts/policy-table.mjs
import { readFileSync, writeFileSync } from 'node:fs';
import { policyTable, TABLE_BEGIN, TABLE_END } from '../dist/src/dma/policy-table.test.helper.js';

const file = new URL('../docs/policy.md', import.meta.url);
const text = readFileSync(file, 'utf8');
const begin = text.indexOf(TABLE_BEGIN) + TABLE_BEGIN.length;
const end = text.indexOf(TABLE_END);
if (begin < TABLE_BEGIN.length || end < begin) throw new Error('docs/policy.md has no place for the table');
writeFileSync(file, text.slice(0, begin) + policyTable() + text.slice(end));
