import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { policyTable, TABLE_BEGIN, TABLE_END } from './policy-table.test.helper.ts';

test('docs/policy.md has the table of what the code decides', () => {
  const text = readFileSync(new URL('../../../docs/policy.md', import.meta.url), 'utf8');
  const [, rest = ''] = text.split(TABLE_BEGIN);
  const [table] = rest.split(TABLE_END);
  assert.equal(table, policyTable(), 'npm run build && node scripts/policy-table.mjs');
});

test('R11: x86 and Arm, HVM and PVH are decided alike, and so are PV and encrypted memory', () => {
  assert.doesNotMatch(policyTable(), / or (grants|plain|refused)/);
});
