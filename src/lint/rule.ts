// What a rule of the linter is: one trap, why it is one, and how to find it in the files of a project.

import type { Finding, Place, Severity } from '../toolstack/finding.ts';
import type { Project } from './project.ts';

/** A place where a rule is broken. */
export interface Breach {
  readonly file: string;
  readonly place: Place;
  /** What is there, and what would have been right. */
  readonly message: string;
  /** What to write instead. */
  readonly help?: string;
}

/** One trap. */
export interface Rule {
  /** Lower case and hyphens; part of the output formats, so it stays as it is. */
  readonly id: string;
  readonly severity: Severity;
  /** One line: what has to be so. */
  readonly summary: string;
  /** What happens otherwise, and where that is known from. */
  readonly why: string;
  check(project: Project): Iterable<Breach>;
}

/** A finding of the linter: with the rule behind it. */
export interface LintFinding extends Finding {
  /** Id of the rule. */
  readonly rule: string;
  readonly why: string;
}
