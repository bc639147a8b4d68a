// The program's entry: exit statuses, and errors in words. Before program.ts, which knows the commands.

import { UsageError } from './usage.ts';

/** Exit statuses of every command. */
const EXIT_FAILED = 1;
const EXIT_BAD_CALL = 2;

/** Runs the command that `words` name. Returns the exit status. */
async function main(words: readonly string[]): Promise<number> {
  try {
    if (!(await run(words))) return EXIT_BAD_CALL;
    return typeof process.exitCode === 'number' ? process.exitCode : 0;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    process.stderr.write(`grantio: ${error.message}\n`);
    if (error instanceof UsageError) return EXIT_BAD_CALL;
    if (process.env['GRANTIO_DEBUG']) process.stderr.write(`${error.stack}\n`);
    return EXIT_FAILED;
  }
}

/** Returns false when the call was wrong, and that has been said. */
async function run(words: readonly string[]): Promise<boolean> {
  const [command, option, socket, ...more] = words;
  // Forms in which other programs start ours. They wait for its socket, and to load the parser of options would be a
  // good part of that time.
  if (command === 'serve') {
    const { servePlainly } = await import('./serve-call.ts');
    if (await servePlainly(words.slice(1))) return true;
  }
  const plainDaemon = command === 'xenstored' && option === '--socket' && more.length === 0;
  if (!plainDaemon || socket === undefined) return (await import('./program.ts')).runProgram(words);
  await (await import('./xenstored.ts')).runXenstored({ socket });
  return true;
}

/**
 * A reader that has gone away (EPIPE) ends nothing: grants have still to be revoked. Output that is lost in
 * any other way is a failure.
 */
function onLostOutput(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') return;
  process.stderr.write(`grantio: standard output cannot be written: ${error.message}\n`);
  process.once('exit', () => {
    process.exitCode ||= EXIT_FAILED;
  });
}

const status = main(process.argv.slice(2));
// To name these streams makes them, which has time until the command's files have been read.
process.stdout.on('error', onLostOutput);
process.stderr.on('error', () => undefined);
process.exitCode = await status;
