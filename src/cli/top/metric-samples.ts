// Reads the text of OpenMetrics, as far as our own metrics use it. After read-metrics.ts, before device-rows.ts.

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*/;
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?/gy;
/** Lines that are looked at; a process with a thousand disks has half as many. */
const MOST_LINES = 1_000_000;

/** One line with a value. */
export interface MetricSample {
  readonly name: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly value: number;
}

/** The samples of a text, in its order. Throws Error for one that is not OpenMetrics, or not whole. */
export function metricSamples(text: string): readonly MetricSample[] {
  if (!text.endsWith('# EOF\n')) throw new Error('the answer is not OpenMetrics, or not all of it');
  const lines = text.split('\n', MOST_LINES);
  return lines.filter((line) => line !== '' && !line.startsWith('#')).map(sampleOf);
}

function sampleOf(line: string): MetricSample {
  const [name] = NAME.exec(line) ?? [''];
  const labels = new Map<string, string>();
  let end = name.length;
  if (line[end] === '{') {
    LABEL.lastIndex = end + 1;
    for (let match = LABEL.exec(line); match !== null; match = LABEL.exec(line)) {
      labels.set(match[1], unescaped(match[2]));
      end = LABEL.lastIndex;
    }
    end = line.indexOf('}', end) + 1;
  }
  const value = Number(line.slice(end).trim().split(' ')[0].replace('+Inf', 'Infinity'));
  if (name === '' || Number.isNaN(value))
    throw new Error(`the answer is not OpenMetrics: ${line.slice(0, 80)}`);
  return { name, labels, value };
}

function unescaped(text: string): string {
  return text.replace(/\\(.)/g, (_, character: string) => (character === 'n' ? '\n' : character));
}
