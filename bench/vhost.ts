// `npm run bench:vhost`: our vhost-user-blk backend against qemu-storage-daemon and against the same design
// in C, taken in turn. Prints tables, and writes docs/speed.md's figures and chart when the whole of it was
// run.
//
// Needs Linux, two cores, a C compiler and qemu-storage-daemon. What is measured, and how, is said in
// docs/speed.md.

import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { aimedAt, outcomes } from './vhost/aims.ts';
import {
  type Backend,
  canServe,
  OURS,
  OURS_MAPPED,
  OURS_NOT_POLLING,
  OURS_TRACED,
  QEMU_DEFAULT,
  qemuVersion,
  REFERENCE,
  twin,
} from './vhost/backends.ts';
import { drawSpeedChart } from './vhost/chart.ts';
import { compare, type Row } from './vhost/comparison.ts';
import { type IdleFigures, measureIdle } from './vhost/idle.ts';
import { JOBS, nameOf } from './vhost/jobs.ts';
import { type Conditions, verify } from './vhost/measurement.ts';
import { asMarkdown, asText, type Findings } from './vhost/report.ts';
import { compareStarts, type StartFigures } from './vhost/start.ts';
import { IMAGE_BYTES, Workshop } from './vhost/workshop.ts';

const HELP = `npm run bench:vhost -- [options]

  --quick             one short round of the 4 KiB jobs
  --rows REGEX        only jobs whose name matches, such as "4 KiB random read, depth 1, cached"; "idle" for what
                      is measured without I/O, "start" for the time to the first request
  --backends IDS      only these, separated by commas: qemu, qemu-default, twin, grantio, grantio-mapped,
                      grantio-no-polling, grantio-traced
  --rounds N          rounds of each job (default 5), and starts of each backend (default 21)
  --seconds N         length of one measurement (default 1)
  --cores F,B         cores of the frontend and the backend (default 0,1)
  --folder DIR        where the images are made (default: a temporary folder that does O_DIRECT)
  --json              one JSON document on standard output
`;

const PAGE = new URL('../../docs/speed.md', import.meta.url);
const CHART = new URL('../../docs/speed.svg', import.meta.url);
const FIGURES_BEGIN = '<!-- figures: written by npm run bench:vhost -->\n';
const FIGURES_END = '<!-- end of figures -->';

/** Backends that are measured without I/O, and when they start. */
const WITHOUT_IO = [REFERENCE.id, OURS.id, 'twin'];

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    rows: { type: 'string' },
    backends: { type: 'string' },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    cores: { type: 'string', default: '0,1' },
    folder: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

const say = (text: string): boolean => process.stderr.write(`${text}\n`);

/** What is there to be measured; of our own program nothing as long as it cannot serve. */
function backendsFor(workshop: Workshop): Backend[] {
  const all = [REFERENCE, QEMU_DEFAULT, twin(workshop.twin)];
  if (canServe()) all.push(OURS, OURS_MAPPED, OURS_NOT_POLLING, OURS_TRACED);
  else say('grantio serve blk is not there: the others are measured without it');
  const wanted = options.backends?.split(',');
  return wanted === undefined ? all : all.filter(({ id }) => wanted.includes(id));
}

/** The backends, without the jobs on images from which they do not read what they wrote. */
async function soundOnes(
  workshop: Workshop,
  backends: readonly Backend[],
  { cores }: Conditions,
): Promise<Backend[]> {
  const sound: Backend[] = [];
  for (const backend of backends) {
    const unsound: boolean[] = [];
    for (const direct of [false, true]) {
      if (!JOBS.some((job) => job.direct === direct && backend.takes(job))) continue;
      try {
        await verify(workshop, backend, direct, cores);
      } catch (error) {
        unsound.push(direct);
        process.exitCode = 1;
        say(`${backend.name}, ${direct ? 'O_DIRECT' : 'cached'}: ${(error as Error).message}`);
      }
    }
    sound.push({ ...backend, takes: (job) => backend.takes(job) && !unsound.includes(job.direct) });
  }
  return sound;
}

function describeMachine(workshop: Workshop, rounds: number, { seconds }: Conditions): string {
  const disk = workshop.hasDirect ? '' : ' The file system of the images does not do O_DIRECT by itself.';
  return (
    `${cpus()[0].model}, ${availableParallelism()} cores, Linux ${release()}, Node ${process.version}, ${qemuVersion()}. ` +
    `Image of ${IMAGE_BYTES / 2 ** 20} MiB, ${rounds === 1 ? 'one round' : `medians of ${rounds} rounds`} of ${seconds} s.${disk}`
  );
}

/** Puts the figures between the two marks of the page. */
function writePage(findings: Findings): void {
  const page = readFileSync(PAGE, 'utf8');
  const begin = page.indexOf(FIGURES_BEGIN);
  const end = page.indexOf(FIGURES_END);
  if (begin < 0 || end < begin)
    throw new Error('docs/speed.md has no marks between which the figures belong');
  const chart = '![IOPS in relation to qemu-storage-daemon](speed.svg)';
  const figures = `${FIGURES_BEGIN}\n${chart}\n\n${asMarkdown(findings)}\n`;
  writeFileSync(PAGE, page.slice(0, begin) + figures + page.slice(end));
  const caption = 'IOPS in relation to qemu-storage-daemon with io_uring';
  writeFileSync(CHART, drawSpeedChart(aimedAt(findings.rows), caption));
}

async function main(): Promise<void> {
  const { quick } = options;
  const cores = options.cores.split(',').map(Number);
  const rounds = Number(options.rounds ?? (quick ? 1 : 5));
  const seconds = Number(options.seconds ?? (quick ? 0.5 : 1));
  const warmUpSeconds = quick ? 0.3 : 1;
  const conditions: Conditions = { seconds, warmUpSeconds, cores: [cores[0], cores[1]] };
  const wanted = new RegExp(options.rows ?? (quick ? '^4 KiB|idle|start' : ''));
  const workshop = new Workshop(options.folder);
  workshop.makeImages();
  const backends = await soundOnes(workshop, backendsFor(workshop), conditions);
  const rows: Row[] = [];
  for (const job of JOBS.filter((candidate) => wanted.test(nameOf(candidate)))) {
    say(nameOf(job));
    const row = await compare(workshop, backends, job, rounds, conditions);
    for (const failure of row.failures) say(`  ${failure}`);
    rows.push(row);
  }
  const others = backends.filter(({ id }) => WITHOUT_IO.includes(id));
  const idle: IdleFigures[] = [];
  for (const backend of wanted.test('idle') ? others : []) {
    say(`idle: ${backend.name}`);
    idle.push(await measureIdle(workshop, backend, quick ? 2 : 10, conditions));
  }
  const starts: StartFigures[] = [];
  if (wanted.test('start')) {
    say('start');
    const times = Number(options.rounds ?? (quick ? 5 : 21));
    starts.push(...(await compareStarts(workshop, others, times, conditions)));
  }
  const machine = describeMachine(workshop, rounds, conditions);
  const findings: Findings = { machine, rows, idle, starts, outcomes: outcomes(rows, idle, starts) };
  console.log(options.json ? JSON.stringify(findings, null, 2) : asText(findings));
  const whole = !quick && options.rows === undefined && options.backends === undefined && canServe();
  if (whole) {
    writePage(findings);
    say('docs/speed.md and docs/speed.svg have these figures now');
  }
  if (rows.some(({ failures }) => failures.length > 0)) process.exitCode = 1;
}

if (options.help) console.log(HELP);
else
  await main().catch((error: Error) => {
    say(error.message);
    process.exitCode = 1;
  });
