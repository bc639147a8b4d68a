// The command line: which sub-commands there are. Each is a file of its own beside this one.

import { Command, CommanderError } from 'commander';
import { addDecodeCommand } from './decode.ts';
import { addLintCommand } from './lint.ts';
import { addRunCommand } from './run.ts';
import { UsageError } from './usage.ts';
import { version } from './version.ts';
import { addXenstoredCommand } from './xenstored.ts';

/** Exit statuses of every command. */
const EXIT_FAILED = 1;
const EXIT_BAD_CALL = 2;

function program(): Command {
  const grantio = new Command('grantio')
    .description(
      'Virtio with restricted memory access: run, serve and inspect devices that reach only what a guest granted',
    )
    .version(version())
    .exitOverride()
    .configureHelp({ helpWidth: 100 })
    .addHelpText('after', '\nExit status: 0 done, 1 it failed, 2 the call was wrong.');
  addRunCommand(grantio);
  addLintCommand(grantio);
  addXenstoredCommand(grantio);
  addDecodeCommand(grantio);
  return grantio;
}

/** Runs the command that `words` name. Returns the exit status. */
async function main(words: readonly string[]): Promise<number> {
  try {
    await program().parseAsync(words, { from: 'user' });
    return typeof process.exitCode === 'number' ? process.exitCode : 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_BAD_CALL;
    if (!(error instanceof Error)) throw error;
    process.stderr.write(`grantio: ${error.message}\n`);
    if (error instanceof UsageError) return EXIT_BAD_CALL;
    if (process.env['GRANTIO_DEBUG']) process.stderr.write(`${error.stack}\n`);
    return EXIT_FAILED;
  }
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

process.stdout.on('error', onLostOutput);
process.stderr.on('error', () => undefined);
process.exitCode = await main(process.argv.slice(2));
