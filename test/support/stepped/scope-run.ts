// One run of a scope: the actors up to their next access each, who of them may go, and what a step does.

import { type Access, perform, seenBy, type Steps } from './access.ts';
import { type Conflicts, MOST_ACTORS, type Notice, OBSERVER } from './conflicts.ts';
import type { Cast, Scope } from './scope.ts';
import { NOTHING, type SharedWords, type Touched } from './shared-words.ts';

/** Thrown through a run when it has shown what was not known when the search began. */
export class NewConflict extends Error {}

/** Told of each access and what came of it. */
export type Telling = (actor: number, access: Access, result: unknown) => void;

/** One actor in one run. */
interface Actor {
  readonly steps: Steps;
  /** What it does next; undefined when it has ended. */
  next: Access | undefined;
  touched: Touched;
  /** Who can notice when it does that. */
  notice: Notice;
  /** Locks that it holds. */
  readonly held: Set<number>;
  /** All that it has read so far, as one number. */
  history: number;
  result: unknown;
}

const NO_LOCKS: ReadonlySet<number> = new Set();

/** What a scope has, and all its runs share. */
export interface Grounds {
  readonly scope: Scope;
  readonly words: SharedWords;
  readonly conflicts: Conflicts;
  readonly histories: Histories;
}

export class ScopeRun {
  readonly #grounds: Grounds;
  readonly #reduced: boolean;
  readonly #tell: Telling | undefined;
  #cast: Cast = { actors: [] };
  #actors: readonly Actor[] = [];
  /** Who runs at the moment: an actor, the observer, or nobody, while the cast is made and after the end. */
  #running = -1;

  /** @param reduced whether steps that nobody else can notice are made without a choice */
  constructor(grounds: Grounds, reduced: boolean, tell?: Telling) {
    this.#grounds = grounds;
    this.#reduced = reduced;
    this.#tell = tell;
  }

  /** Makes the cast, up to the first access of everybody. Call everything with `overhear` watching. */
  begin(): void {
    this.#cast = this.#grounds.scope.start();
    const { actors } = this.#cast;
    if (actors.length > MOST_ACTORS) throw new RangeError(`${actors.length} actors; room for ${MOST_ACTORS}`);
    this.#actors = actors.map((steps) => newActor(steps));
    for (const index of actors.keys()) this.#advance(index, undefined);
    this.#observe();
  }

  /** Those that can make a step; none when all have ended. Throws when the others wait for each other. */
  ready(): readonly number[] {
    const able: number[] = [];
    let ended = true;
    for (let index = 0; index < this.#actors.length; index++) {
      const { next, notice } = this.#actors[index];
      if (next === undefined) continue;
      ended = false;
      if (isBlocked(next)) continue;
      if (this.#reduced && notice !== 'others') return [index];
      able.push(index);
    }
    if (able.length === 0 && !ended) throw new Error(`deadlock: ${this.situation()}`);
    return able;
  }

  /** Where everybody stands, for people. */
  situation(): string {
    return this.#actors
      .map(({ next }, index) => `${index} ${next === undefined ? 'has ended' : `is at ${next.site}`}`)
      .join(', ');
  }

  /** Equal for runs whose future is the same. */
  state(): string {
    const { words, conflicts } = this.#grounds;
    const contents = this.#reduced ? words.contents(conflicts.contended) : words.contents();
    return `${this.#actors.map(({ history }) => history)};${contents}`;
  }

  step(index: number): void {
    const actor = this.#actors[index];
    const access = actor.next;
    if (access === undefined) throw new Error(`actor ${index} has ended`);
    const { touched, notice } = actor;
    const { words, histories, conflicts } = this.#grounds;
    words.noteWrites(touched.writes);
    const result = access.kind === 'Atomics.wait' ? 'not-equal' : perform(access);
    if (this.#reduced) this.#learn(index, access, result);
    // What nobody else writes follows from the rest of what the actor has read.
    if (!this.#reduced || notice !== 'nobody')
      actor.history = histories.after(actor.history, seenBy(access, result));
    this.#tell?.(index, access, result);
    this.#advance(index, result);
    if (conflicts.isObserved(touched.writes)) this.#observe();
  }

  end(): void {
    this.#cast.end?.(this.#actors.map(({ result }) => result));
  }

  /** An access in code that is not stepped is part of the step before it, and may read what nobody changes. */
  overhear(access: Access): void {
    const { words, conflicts } = this.#grounds;
    const touched = words.touched(access);
    if (this.#running < 0) {
      words.noteWrites(touched.writes);
      return;
    }
    if (touched.writes.length > 0)
      throw new Error(`${access.site}: writes shared memory in code that is not stepped`);
    const isNew = conflicts.note(this.#running, touched, NO_LOCKS);
    if (isNew && this.#reduced) throw new NewConflict();
    if (this.#running !== OBSERVER && conflicts.noticeOf(this.#running, touched, NO_LOCKS) !== 'nobody')
      throw new Error(`${access.site}: reads, in code that is not stepped, what another actor writes`);
  }

  #learn(index: number, access: Access, result: unknown): void {
    const { touched, held } = this.#actors[index];
    const { conflicts } = this.#grounds;
    const isNew = conflicts.note(index, touched, held);
    const wasLock = conflicts.noteLocks(access, touched, result, held);
    if (isNew || wasLock) throw new NewConflict();
  }

  /** Runs an actor up to its next access to shared memory. Memory of its own is not worth a step. */
  #advance(index: number, given: unknown): void {
    const actor = this.#actors[index];
    const { words, conflicts } = this.#grounds;
    this.#running = index;
    for (let result = given; ; result = perform(actor.next)) {
      const { done, value } = actor.steps.next(result);
      actor.next = done ? undefined : value;
      if (done) actor.result = value;
      if (actor.next === undefined || words.has(actor.next.view.buffer)) break;
    }
    this.#running = -1;
    actor.touched = actor.next === undefined ? NOTHING : words.touched(actor.next);
    actor.notice = conflicts.noticeOf(index, actor.touched, actor.held);
  }

  #observe(): void {
    this.#running = OBSERVER;
    this.#cast.always?.();
    this.#running = -1;
  }
}

function newActor(steps: Steps): Actor {
  return {
    steps,
    next: undefined,
    touched: NOTHING,
    notice: 'nobody',
    held: new Set(),
    history: 0,
    result: undefined,
  };
}

/** Whether an actor sleeps until somebody changes the word that it waits for. */
function isBlocked({ kind, view, operands }: Access): boolean {
  return kind === 'Atomics.wait' && (view as Int32Array)[operands[0] as number] === operands[1];
}

/**
 * Numbers for everything that an actor may have read: equal numbers, equal readings. A tree whose branches are values;
 * after one history only a few values are ever read next, so they are a list.
 */
export class Histories {
  readonly #values: unknown[] = [undefined];
  readonly #firstAfter: number[] = [0];
  readonly #nextBeside: number[] = [0];

  /** The history `before` with one more value read. */
  after(before: number, value: unknown): number {
    for (let known = this.#firstAfter[before]; known !== 0; known = this.#nextBeside[known])
      if (this.#values[known] === value) return known;
    const number = this.#values.push(value) - 1;
    this.#firstAfter.push(0);
    this.#nextBeside.push(this.#firstAfter[before]);
    this.#firstAfter[before] = number;
    return number;
  }
}
