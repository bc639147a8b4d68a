// docs/operation.md and the dashboard for Grafana name the metrics that there are, and no others.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { someFigures } from './figures.test.helper.ts';
import { FAMILIES } from './families.ts';
import { checkOpenMetrics } from './open-metrics-rules.test.helper.ts';
import { renderMetrics } from './render.ts';

/** From where this is compiled to. */
const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));

const read = (path: string): string => readFileSync(`${ROOT}${path}`, 'utf8');

/** Names of samples, and the labels that each has. */
async function exported(): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
  const names = new Map<string, Set<string>>();
  for (const { samples } of checkOpenMetrics(await renderMetrics(someFigures(), 'openmetrics')))
    for (const { name, labels } of samples) {
      const known = names.get(name) ?? new Set();
      names.set(name, known);
      for (const [, label] of labels.matchAll(/(\w+)="/g)) known.add(label);
    }
  return names;
}

test('the table in docs/operation.md is that of the metrics', () => {
  const rows = FAMILIES.map(({ name, type, labels, help }) => {
    const names = labels.map((label) => `\`${label}\``).join(', ');
    return `| \`${name}\` | ${type} | ${names} | ${help} |`;
  });
  const documented = read('docs/operation.md')
    .split('\n')
    .filter((line) => /^\| `(grantio|process)_/.test(line));
  assert.deepEqual(documented, rows);
});

interface Dashboard {
  readonly panels: readonly {
    readonly targets: readonly { readonly expr: string; readonly legendFormat: string }[];
  }[];
  readonly templating: { readonly list: readonly { readonly query: string | { readonly query: string } }[] };
}

/** Labels that a query can have; Prometheus adds the instance. Throws AssertionError for a metric that is not there. */
function labelsOf(query: string, names: ReadonlyMap<string, ReadonlySet<string>>): ReadonlySet<string> {
  const known = new Set(['instance']);
  const found = [...query.matchAll(/\b(?:grantio|process)_\w+/g)];
  assert.ok(found.length > 0 || query === 'prometheus', `no metric in ${query}`);
  for (const [name] of found) {
    assert.ok(names.has(name), `${name} in ${query}`);
    for (const label of names.get(name)!) known.add(label);
  }
  return known;
}

test('the dashboard asks for metrics and labels that exist, and its legends for labels that are left', async () => {
  const names = await exported();
  const { panels, templating } = JSON.parse(read('packaging/grafana/grantio.json')) as Dashboard;
  const targets = panels.flatMap((panel) => panel.targets);
  const variables = templating.list.map(({ query }) => (typeof query === 'string' ? query : query.query));
  assert.ok(targets.length > 15);
  for (const query of [...variables, ...targets.map(({ expr }) => expr)]) {
    const known = labelsOf(query, names);
    for (const [, label] of query.matchAll(/[{,](\w+)=~/g))
      assert.ok(known.has(label), `${label} in ${query}`);
  }
  for (const { expr, legendFormat } of targets) {
    const known = labelsOf(expr, names);
    const grouped = [...expr.matchAll(/\bby \(([^)]*)\)/g)].map(([, labels]) => labels.split(', '));
    for (const label of grouped.flat()) assert.ok(known.has(label), `${label} in ${expr}`);
    for (const [, label] of legendFormat.matchAll(/\{\{(\w+)\}\}/g)) {
      assert.ok(known.has(label), `${label} in the legend of ${expr}`);
      assert.ok(
        grouped.every((labels) => labels.includes(label)),
        `${label} is not left in ${expr}`,
      );
    }
  }
});
