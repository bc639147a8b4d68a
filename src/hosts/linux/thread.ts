// Threads that run a file of ours. Before serving/vhost-server.ts, serving/xen-server.ts and parallel/call-thread.ts.

import { existsSync } from 'node:fs';
import { extname } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { Worker, type WorkerOptions } from 'node:worker_threads';

/** What a thread is started with. */
export interface ThreadOptions extends Pick<WorkerOptions, 'workerData' | 'transferList'> {
  /** Whether stacks of calls in the thread name the sources, not what they compile to. */
  readonly namesSources?: boolean;
}

/** From this version on Node knows a thread for as long as V8 compiles for it. */
const FIRST_SOUND_NODE = 24;
const isSound = Number.parseInt(process.versions.node, 10) >= FIRST_SOUND_NODE;

/**
 * Starts a thread with the module `name` beside the module at `importer`.
 *
 * Older Node forgets a thread that ends a moment before V8 stops to compile for it in the background. Should that
 * compilation look for memory then, Node aborts the process (`node_platform.cc`, `ForIsolate`; nodejs/node pull 30909,
 * mended by v8/node pull 208): that ended 2 of 6 runs of all tests, on a busy machine. There the threads that we start
 * compile by themselves.
 *
 * @param importer import.meta.url
 */
export function startThread(
  name: string,
  importer: string,
  { namesSources = false, ...options }: ThreadOptions,
): Worker {
  // V8 asks when a thread's heap is made; this thread goes on as before.
  if (!isSound) setFlagsFromString('--no-concurrent-recompilation');
  return new Worker(threadFile(name, importer, namesSources), {
    ...options,
    ...(namesSources && { execArgv: [...process.execArgv, '--enable-source-maps'] }),
  });
}

/**
 * Where the build has put a module and all that it imports into one file (scripts/build.mjs), that: a thread loads
 * everything anew, and would spend most of its start on finding and reading its modules one by one. A linked file does
 * not name its sources.
 */
function threadFile(name: string, importer: string, namesSources: boolean): URL {
  const linked = new URL(`./${name}.linked.js`, importer);
  return existsSync(linked) && !namesSources ? linked : new URL(`./${name}${extname(importer)}`, importer);
}
