// Checks a text against rules of OpenMetrics 1.0: how lines look, which come together, in which order, and what
// histograms have to add up to. Written from the specification, apart from the reader of `grantio top`.

import assert from 'node:assert/strict';

const NAME = '[a-zA-Z_:][a-zA-Z0-9_:]*';
const LABEL = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\["\\\\n])*"';
const SAMPLE = new RegExp(`^(${NAME})(?:\\{(${LABEL}(?:,${LABEL})*)\\})? (\\S+)$`);
const DESCRIPTOR = new RegExp(`^# (TYPE|HELP|UNIT) (${NAME}) (.+)$`);
const SUFFIXES: Readonly<Record<string, readonly string[]>> = {
  counter: ['_total', '_created'],
  gauge: [''],
  histogram: ['_bucket', '_count', '_sum', '_created'],
};

interface Sample {
  readonly name: string;
  readonly labels: string;
  readonly value: number;
}

/** What the text has: names of samples without the parts that a type adds, and their types. */
export interface CheckedFamily {
  readonly name: string;
  readonly type: string;
  readonly samples: readonly Sample[];
}

/** Throws AssertionError where the text breaks a rule. Returns what is in it. */
export function checkOpenMetrics(text: string): readonly CheckedFamily[] {
  assert.ok(text.endsWith('# EOF\n'), 'the text ends with # EOF');
  const lines = text.slice(0, -1).split('\n').slice(0, -1);
  const families: { name: string; type?: string; help?: string; samples: Sample[] }[] = [];
  for (const line of lines) {
    const [, what, about, value] = DESCRIPTOR.exec(line) ?? [];
    if (what === undefined) {
      families.at(-1)?.samples.push(sampleOf(line));
      assert.ok(families.length > 0, `a sample before any family: ${line}`);
      continue;
    }
    if (families.at(-1)?.name !== about) {
      assert.ok(!families.some(({ name }) => name === about), `family ${about} comes twice`);
      families.push({ name: about, samples: [] });
    }
    const family = families.at(-1)!;
    assert.equal(family.samples.length, 0, `${line} comes after samples`);
    if (what === 'TYPE') family.type = value;
    if (what === 'HELP') family.help = value;
  }
  return families.map(checkFamily);
}

function sampleOf(line: string): Sample {
  const [, name, labels = '', value] = SAMPLE.exec(line) ?? [];
  assert.ok(name !== undefined, `no sample: ${line}`);
  assert.ok(value === '+Inf' || value === 'NaN' || Number.isFinite(Number(value)), `no number: ${line}`);
  return { name, labels, value: Number(value.replace('+Inf', 'Infinity')) };
}

function checkFamily(family: {
  name: string;
  type?: string;
  help?: string;
  samples: Sample[];
}): CheckedFamily {
  const { name, type, help, samples } = family;
  assert.ok(type !== undefined && help !== undefined, `${name} has TYPE and HELP`);
  const suffixes = SUFFIXES[type];
  assert.ok(suffixes !== undefined, `${name}: type ${type}`);
  assert.ok(type !== 'counter' || !name.endsWith('_total'), `${name}: _total belongs to the samples`);
  const seen = new Set<string>();
  for (const sample of samples) {
    const suffix = sample.name.slice(name.length);
    assert.ok(sample.name.startsWith(name) && suffixes.includes(suffix), `${sample.name} in ${type} ${name}`);
    assert.ok(type === 'gauge' || sample.value >= 0, `${sample.name} is below zero`);
    const key = `${sample.name}{${sample.labels}}`;
    assert.ok(!seen.has(key), `${key} comes twice`);
    seen.add(key);
  }
  if (type === 'histogram') checkHistogram(name, samples);
  return { name, type, samples };
}

function checkHistogram(name: string, samples: readonly Sample[]): void {
  const groups = new Map<string, { bounds: number[]; counts: number[] }>();
  const groupOf = (labels: string) => {
    const group = groups.get(labels) ?? { bounds: [], counts: [] };
    groups.set(labels, group);
    return group;
  };
  for (const sample of samples) {
    if (sample.name !== `${name}_bucket`) continue;
    const [, bound] = /(?:^|,)le="([^"]+)"/.exec(sample.labels) ?? [];
    assert.ok(bound !== undefined, `${name}: a bucket without le`);
    const group = groupOf(sample.labels.replace(/,?le="[^"]+"/, ''));
    group.bounds.push(Number(bound.replace('+Inf', 'Infinity')));
    group.counts.push(sample.value);
  }
  for (const [labels, { bounds, counts }] of groups) {
    for (let i = 1; i < bounds.length; i++) {
      assert.ok(bounds[i] > bounds[i - 1], `${name}{${labels}}: bounds go up`);
      assert.ok(counts[i] >= counts[i - 1], `${name}{${labels}}: counts go up`);
    }
    assert.equal(bounds.at(-1), Number.POSITIVE_INFINITY, `${name}{${labels}} has +Inf`);
    const count = samples.find((sample) => sample.name === `${name}_count` && sample.labels === labels);
    assert.equal(count?.value, counts.at(-1), `${name}{${labels}}: count and +Inf`);
    assert.ok(samples.some((sample) => sample.name === `${name}_sum` && sample.labels === labels));
  }
}
