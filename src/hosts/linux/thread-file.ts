// Which file a thread is started with. Before serving/vhost-server.ts and parallel/call-thread.ts.

import { existsSync } from 'node:fs';
import { extname } from 'node:path';

/**
 * The file of the module `name` beside the module at `importer`, for a thread. Where the build has put it and all that
 * it imports into one file (scripts/build.mjs), that: a thread loads everything anew, and would spend most of its start
 * on finding and reading its modules one by one.
 *
 * @param importer import.meta.url
 * @param namesSources whether stacks of calls are to name the sources, which those of a linked file do not
 */
export function threadFile(name: string, importer: string, namesSources = false): URL {
  const linked = new URL(`./${name}.linked.js`, importer);
  return existsSync(linked) && !namesSources ? linked : new URL(`./${name}${extname(importer)}`, importer);
}
