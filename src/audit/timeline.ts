// How many bytes were exposed and needed over the time of a run, and when rules were broken, in a fixed number
// of steps of time whatever the length of the run. Used by audit.ts; drawn by html/.

import type { AuditRuleId } from './audit-rules.ts';

/** Steps of a timeline: when the run goes beyond, each takes twice the time. */
const STEPS = 240;
/** Nanoseconds of a step at first. */
const FIRST_WIDTH = 1000;

/** One step of time. */
export interface TimelineStep {
  /** The most bytes at one moment of it. */
  readonly exposed: number;
  readonly needed: number;
  /** How often each rule was broken in it. */
  readonly broken: ReadonlyMap<AuditRuleId, number>;
}

/** The timeline of one run. */
export interface TimelineSteps {
  /** Nanoseconds of a step. */
  readonly width: number;
  readonly steps: readonly TimelineStep[];
}

class Step {
  exposed: number;
  needed: number;
  readonly broken = new Map<AuditRuleId, number>();

  constructor(exposed: number, needed: number) {
    this.exposed = exposed;
    this.needed = needed;
  }

  raise(exposed: number, needed: number): void {
    if (exposed > this.exposed) this.exposed = exposed;
    if (needed > this.needed) this.needed = needed;
  }

  absorb({ exposed, needed, broken }: Step): void {
    this.raise(exposed, needed);
    for (const [rule, count] of broken) this.broken.set(rule, (this.broken.get(rule) ?? 0) + count);
  }
}

/** Follows the bytes of a run. Times never run backwards. */
export class Timeline {
  #steps: Step[] = [];
  #width = FIRST_WIDTH;
  #start: number | undefined = undefined;
  #exposed = 0;
  #needed = 0;

  /** From `time` on so many bytes are exposed and needed. */
  level(time: number, exposed: number, needed: number): void {
    const step = this.#stepAt(time);
    this.#exposed = exposed;
    this.#needed = needed;
    step.raise(exposed, needed);
  }

  /** A rule was broken. */
  mark(rule: AuditRuleId, time: number): void {
    const { broken } = this.#stepAt(time);
    broken.set(rule, (broken.get(rule) ?? 0) + 1);
  }

  result(): TimelineSteps {
    return { width: this.#width, steps: this.#steps };
  }

  #stepAt(time: number): Step {
    this.#start ??= time;
    let index = Math.max(0, Math.floor((time - this.#start) / this.#width));
    while (index >= STEPS) {
      this.#halve();
      index = Math.floor((time - this.#start) / this.#width);
    }
    // In the steps without an event the level stays what it was.
    while (this.#steps.length <= index) this.#steps.push(new Step(this.#exposed, this.#needed));
    return this.#steps[index];
  }

  /** Makes one step of each two. */
  #halve(): void {
    const halved: Step[] = [];
    for (const [index, step] of this.#steps.entries()) {
      if (index % 2 === 0) halved.push(step);
      else halved[index >> 1].absorb(step);
    }
    this.#steps = halved;
    this.#width *= 2;
  }
}
