// Runs compiled test files and tells what failed, and how. After gallery.ts, before verdict.ts.

import { run } from 'node:test';

/** How a test failed. */
export interface Failure {
  readonly title: string;
  /** The test's error and what caused it, outermost first. */
  readonly errors: readonly Error[];
}

/** What came of some test files. */
export interface TestRun {
  readonly passed: number;
  readonly failures: readonly Failure[];
  /** A file ended without any test in it having failed: it does not load, or it was killed. */
  readonly crashed: boolean;
  /** Something had not finished when its time was up. */
  readonly hung: boolean;
}

/** For the processes that `run` starts: Node 20 has no other way to hand them an option. */
const preload = `--import=${new URL('first-counterexample.js', import.meta.url)}`;
process.env['NODE_OPTIONS'] = [process.env['NODE_OPTIONS'], preload].filter(Boolean).join(' ');

/** Runs the tests in `files`, those whose titles match if asked; they get `limit` milliseconds. */
export async function runTests(files: readonly string[], limit: number, titles?: RegExp): Promise<TestRun> {
  let passed = 0;
  let crashed = false;
  let hung = false;
  const failures: Failure[] = [];
  const stream = run({
    files: [...files],
    concurrency: 1,
    // Not `timeout`: from Node 24 on the test process itself would have to notice, and a loop does not.
    signal: AbortSignal.timeout(limit),
    ...(titles === undefined ? {} : { testNamePatterns: titles }),
  });
  for await (const { type, data } of stream) {
    if (type === 'test:pass' && data.skip === undefined && !files.includes(data.name)) passed++;
    if (type !== 'test:fail') continue;
    const { error } = data.details;
    hung ||= isHang(error);
    // A file is reported as a test of its own when nothing in it was.
    if (files.includes(data.name)) crashed = true;
    else failures.push({ title: data.name, errors: causesOf(error) });
  }
  return { passed, failures, crashed, hung };
}

/** Out of time, or waiting for what nobody will ever do. */
function isHang(error: Error): boolean {
  const { failureType } = error as { failureType?: string };
  return failureType === 'testAborted' || failureType === 'cancelledByParent';
}

function causesOf(error: Error): Error[] {
  const causes: Error[] = [];
  for (let cause: unknown = error.cause; cause instanceof Error; cause = cause.cause) causes.push(cause);
  return causes;
}
