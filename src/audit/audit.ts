// The exposure audit: follows a trace, run by run, and says what backends could reach, where that breaks the
// rules of audit-rules.ts, and who caused it. Before it: trace-reader.ts; after it: audit-text.ts, audit-json.ts
// and html/page.ts, which show the report.

import type { Severity } from '../toolstack/finding.ts';
import { auditRule } from './audit-rules.ts';
import type { TraceEvent } from './events.ts';
import { type DeviceExposure, Exposure, type TotalExposure } from './exposure.ts';
import type { Grant, Reach } from './exposure-state.ts';
import { compareFindings, type Finding, FindingCollector } from './findings.ts';
import { FrameMap, type FrameRecord, type ReachedRange } from './frame-map.ts';
import { Timeline, type TimelineSteps } from './timeline.ts';
import type { TracedDevice, TraceHeader } from './trace-file.ts';
import type { TraceFileConsumer, TraceReader } from './trace-reader.ts';

/** What happened to a frame, and how many of its bytes were foreign at some time. */
export interface AuditedFrame extends FrameRecord {
  readonly foreignReadable: number;
  readonly foreignWritable: number;
}

/** One run of the trace: a host that was booted, in one exposure mode. */
export interface AuditedRun {
  /** Exposure mode. */
  readonly mode: string;
  readonly events: number;
  /** Nanoseconds from the first event to the last. */
  readonly duration: number;
  /** Time of the first event, on the trace's clock. */
  readonly begunAt: number;
  readonly total: TotalExposure;
  readonly devices: readonly DeviceExposure[];
  /** The most severe first. */
  readonly findings: readonly Finding[];
  readonly timeline: TimelineSteps;
  readonly frames: readonly AuditedFrame[];
  /** Grants of frames that are not in `frames`, because there were too many. */
  readonly framesLeft: number;
  readonly reached: readonly ReachedRange[];
  /** The stacks of calls that findings name. */
  readonly stacks: ReadonlyMap<number, string>;
}

/** What an audit came to. */
export interface AuditReport {
  readonly header: TraceHeader;
  /** Whether the trace goes to the end of what it is of. */
  readonly isComplete: boolean;
  /** Events that are missing inside it. */
  readonly missing: number;
  readonly runs: readonly AuditedRun[];
}

/** Longest text of a stack that is kept. */
const MAX_STACK = 4096;

/** One run while it is read. */
class Run extends FindingCollector {
  readonly mode: string;
  readonly exposure: Exposure;
  readonly frames = new FrameMap();
  readonly timeline: Timeline;
  readonly #stacks = new Map<number, string>();
  #events = 0;
  #begunAt = 0;
  #isOver = false;

  constructor(mode: string, side: TraceHeader['side']) {
    const timeline = new Timeline();
    super((rule, time) => timeline.mark(rule, time));
    this.exposure = new Exposure(this, { side: side ?? 'both' });
    this.timeline = timeline;
    this.mode = mode;
  }

  consume(event: TraceEvent): void {
    const { exposure, timeline } = this;
    if (this.#events++ === 0) this.#begunAt = event.time;
    this.follow(event, Math.max(event.time, exposure.now));
    exposure.consume(event);
    timeline.level(exposure.now, exposure.exposedBytes, exposure.neededBytes);
  }

  stack(stack: number, text: string): void {
    if (this.names(stack)) this.#stacks.set(stack, text.slice(0, MAX_STACK));
  }

  override granted(grant: Grant): void {
    this.frames.granted(grant);
  }

  override ended(grant: Grant): void {
    super.ended(grant);
    this.frames.ended(grant);
  }

  override reached(reach: Reach): void {
    super.reached(reach);
    this.frames.reached(reach);
  }

  /** What a grant that goes on means depends on whether the trace does. */
  override live(grant: Grant): void {
    this.frames.ended(grant);
    if (this.#isOver) super.live(grant);
  }

  /** @param isOver whether the trace goes to the end of the run */
  end(isOver: boolean): AuditedRun {
    const { mode, exposure, frames } = this;
    this.#isOver = isOver;
    exposure.tellLive();
    return {
      mode,
      events: this.#events,
      begunAt: this.#begunAt,
      duration: Math.max(0, exposure.now - this.#begunAt),
      total: exposure.total(),
      devices: exposure.devices(),
      findings: this.finish().sort(compareFindings),
      timeline: this.timeline.result(),
      frames: frames.frames().map((frame) => {
        const { readable, writable } = exposure.foreignIn(frame.domain, frame.frame);
        return { ...frame, foreignReadable: readable, foreignWritable: writable };
      }),
      framesLeft: frames.left,
      reached: frames.ranges,
      stacks: this.#stacks,
    };
  }
}

/** Most runs of one trace that are kept apart; `grantio run` makes one for each exposure mode. */
const MAX_RUNS = 32;

/** Audits one trace. Memory grows with what is live at a time, the findings and the frames of the page map. */
export class Audit implements TraceFileConsumer {
  readonly #runs: AuditedRun[] = [];
  #run: Run | undefined = undefined;
  #side: TraceHeader['side'];

  header({ side }: TraceHeader): void {
    this.#side = side;
  }

  beginRun(mode: string): void {
    if (this.#runs.length >= MAX_RUNS - 1) return;
    if (this.#run !== undefined) this.#runs.push(this.#run.end(true));
    this.#run = new Run(mode, this.#side);
  }

  consume(event: TraceEvent): void {
    this.#run ??= new Run('', this.#side);
    this.#run.consume(event);
  }

  stack(stack: number, text: string): void {
    this.#run?.stack(stack, text);
  }

  /** Ends the audit. `reader` has read the whole file, and its header at least. */
  finish({ header, isComplete, missing }: TraceReader): AuditReport {
    const run = this.#run ?? new Run('', this.#side);
    if (!isComplete) run.note('incomplete-trace', 'the file was cut: the end of the run is not in it');
    if (missing > 0) run.note('incomplete-trace', `${missing} events were never written`);
    const { mode } = header!;
    const runs = [...this.#runs, run.end(isComplete)].map((each) =>
      each.mode === '' ? { ...each, mode } : each,
    );
    return { header: header!, isComplete, missing, runs };
  }
}

/** How many findings of each severity there are. */
export function countSeverities({ runs }: AuditReport): Readonly<Record<Severity, number>> {
  const counts = { error: 0, warning: 0, note: 0 };
  for (const { findings } of runs) for (const { rule } of findings) counts[auditRule(rule).severity]++;
  return counts;
}

/** The device of a finding as the trace's header has it. */
export function deviceOf(
  { devices }: TraceHeader,
  domain: number | undefined,
  device: number | undefined,
): TracedDevice | undefined {
  return devices.find((each) => each.domain === domain && each.device === device);
}
