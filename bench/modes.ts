// `npm run bench:modes`: each exposure mode's speed against what it exposes, as a table and as the chart of the
// README (docs/modes.svg). Speed is measured without the accounting, exposure with it, on the same requests.

import { writeFileSync } from 'node:fs';
import { Exposure } from '../src/audit/exposure.ts';
import { DirectTracer } from '../src/audit/event-tracer.ts';
import { EXPOSURE_MODES, type ExposureMode } from '../src/dma/exposure-modes.ts';
import { drawModeChart, type ModePoint } from './mode-chart.ts';
import { measure } from './figures.ts';
import { RequestBench } from './request.ts';

const DEPTH = 16;
const REQUESTS = 50_000;
const ACCOUNTED = 5_000;
const ROUNDS = 9;
const CHART = new URL('../../docs/modes.svg', import.meta.url);

/** What the requests of one mode expose. */
function exposureOf(mode: ExposureMode): Pick<ModePoint, 'exposedPerNeeded' | 'foreignPerRequest'> {
  const exposure = new Exposure();
  const tracer = new DirectTracer([exposure], () => Number(process.hrtime.bigint()));
  const bench = new RequestBench(mode, 1, DEPTH, tracer);
  bench.run(ACCOUNTED);
  bench.close();
  const { exposedByteSeconds, neededByteSeconds, foreignReadableBytes, requests } = exposure.total();
  return {
    exposedPerNeeded: exposedByteSeconds / neededByteSeconds,
    foreignPerRequest: foreignReadableBytes / requests,
  };
}

const candidates = EXPOSURE_MODES.map((mode) => {
  const bench = new RequestBench(mode, 1, DEPTH);
  bench.run(REQUESTS * 2);
  return { name: mode, round: () => 1e9 / bench.run(REQUESTS) };
});
const speeds = await measure('requests', '/s', candidates, ROUNDS);
const points = EXPOSURE_MODES.map((mode, index) => ({
  mode,
  requestsPerSecond: speeds[index].median,
  ...exposureOf(mode),
}));
console.table(points);
const job = `reads of 4 KiB, ${DEPTH} in flight, whole path on one thread, no storage (median of ${ROUNDS})`;
writeFileSync(CHART, drawModeChart(points, job));
console.log('docs/modes.svg is drawn from these figures');
