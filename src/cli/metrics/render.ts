// Figures as text for Prometheus, by prom-client. After families.ts, before metrics-server.ts, which sends it.

import {
  Counter,
  Gauge,
  Histogram,
  type OpenMetricsContentType,
  type PrometheusContentType,
  Registry,
} from 'prom-client';
import { FAMILIES, type Family, type Figures, type HistogramSample } from './families.ts';

/** The two forms of the text; OpenMetrics is the one to prefer. */
export type Format = 'openmetrics' | 'text';

/** What a response in that form is declared as. */
export const CONTENT_TYPES = {
  openmetrics: Registry.OPENMETRICS_CONTENT_TYPE,
  text: Registry.PROMETHEUS_CONTENT_TYPE,
} as const;

type AnyRegistry = Registry<PrometheusContentType> | Registry<OpenMetricsContentType>;

/** All metrics as text. A registry is made for each, because prom-client changes the names of counters for OpenMetrics. */
export async function renderMetrics(figures: Figures, format: Format): Promise<string> {
  const registry = registryFor(format);
  for (const family of FAMILIES) addFamily(registry, family, figures);
  return await registry.metrics();
}

function registryFor(format: Format): AnyRegistry {
  if (format === 'text') return new Registry();
  const registry = new Registry<OpenMetricsContentType>();
  registry.setContentType(CONTENT_TYPES.openmetrics);
  return registry;
}

function addFamily(registry: AnyRegistry, family: Family, figures: Figures): void {
  const { name, help } = family;
  const options = { name, help, labelNames: [...family.labels], registers: [registry] };
  if (family.type === 'histogram') new CountedHistogram(options, family.samples(figures));
  else if (family.type === 'counter') {
    const counter = new Counter(options);
    for (const { labels, value } of family.samples(figures)) counter.inc(labels, value);
  } else {
    const gauge = new Gauge(options);
    for (const { labels, value } of family.samples(figures)) gauge.set(labels, value);
  }
}

/** One line of the text. */
interface Line {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** What a registry prints of a metric. */
interface CountedMetric {
  readonly name: string;
  readonly help: string;
  readonly type: 'histogram';
  readonly values: readonly Line[];
}

/** A histogram whose values have been counted elsewhere. */
class CountedHistogram extends Histogram {
  readonly #samples: readonly HistogramSample[];
  readonly #about: { readonly name: string; readonly help: string };

  constructor(about: ConstructorParameters<typeof Histogram>[0], samples: readonly HistogramSample[]) {
    super(about);
    this.#about = about;
    this.#samples = samples;
  }

  /** The method that a registry calls; prom-client does not declare it. */
  async getForPromString(): Promise<CountedMetric> {
    const { name, help } = this.#about;
    const values = this.#samples.flatMap((sample) => lines(name, sample));
    return { name, help, type: 'histogram', values };
  }
}

function lines(name: string, { labels, bounds, counts, sum }: HistogramSample): Line[] {
  let total = 0;
  const buckets = counts.map((count, i) => {
    total += count;
    const le = i < bounds.length ? floatText(bounds[i]) : '+Inf';
    return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: total };
  });
  return [
    ...buckets,
    { metricName: `${name}_sum`, labels: { ...labels }, value: sum },
    { metricName: `${name}_count`, labels: { ...labels }, value: total },
  ];
}

/** OpenMetrics wants bounds to be floats for the eye as well. */
function floatText(value: number): string {
  return Number.isInteger(value) ? `${value}.0` : `${value}`;
}
