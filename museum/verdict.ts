// What a visit to an exhibit has shown. Only a test that says "this is wrong" has caught a defect: a file that
// does not load, or an exception that the test did not come for, proves nothing. After test-run.ts.

import type { Exhibit } from './exhibit.ts';
import type { Failure, TestRun } from './test-run.ts';

/**
 * `caught`: a test noticed. `escaped`: all tests passed. `crashed`: something else went wrong than what the
 * exhibit is about. `stale`: the exhibit does not fit the code any more. `broken`: its tests fail without it.
 */
export type Outcome = 'caught' | 'escaped' | 'crashed' | 'stale' | 'broken';

export interface Verdict {
  readonly outcome: Outcome;
  /** The title of the test that caught it; otherwise what is wrong and what to do. */
  readonly by: string;
}

/** What the tests of `exhibit` have shown while the code had the defect. */
export function judge(exhibit: Exhibit, run: TestRun): Verdict {
  const catcher = run.failures.find((failure) => shows(exhibit, failure));
  if (catcher !== undefined) return { outcome: 'caught', by: catcher.title };
  if (run.hung && exhibit.hangs) return { outcome: 'caught', by: 'the time limit: a test does not end' };
  if (run.hung) return crashed('a test does not end; if that is the defect, say `hangs: true`');
  if (run.failures.length > 0) return crashed(describe(run.failures[0]));
  if (run.crashed) return crashed('a test file does not load with the defect: write a change that does');
  if (run.passed === 0) return crashed('no test has a title that matches `titles`');
  return { outcome: 'escaped', by: 'nothing: write the test that is missing, beside the code' };
}

/** What is wrong with tests that should pass while nothing has a defect, or undefined. */
export function faultOf(run: TestRun): Verdict | undefined {
  if (run.failures.length === 0 && !run.crashed && !run.hung) return undefined;
  const what = run.failures.length === 0 ? 'a test file does not load or end' : describe(run.failures[0]);
  return { outcome: 'broken', by: `fails without the defect too: ${what}; mend that first` };
}

function crashed(by: string): Verdict {
  return { outcome: 'crashed', by };
}

/** Whether a failure is about what the test asserts, or is the exception that the exhibit announces. */
function shows(exhibit: Exhibit, { errors }: Failure): boolean {
  return errors.some(
    ({ name, message }) =>
      name === 'AssertionError' || (exhibit.error !== undefined && message.includes(exhibit.error)),
  );
}

function describe({ title, errors }: Failure): string {
  const message = errors.at(-1)?.message.split('\n')[0] ?? 'no reason given';
  return `"${title}": ${message}`;
}
