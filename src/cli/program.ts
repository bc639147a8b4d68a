// The command line: which sub-commands there are. Each is a file of its own beside this one, loaded when it is
// called. After main.ts.

import { Command, CommanderError } from 'commander';
import { version } from './version.ts';

/** Loads the file of a sub-command, and adds it to the program. In the order of the help. */
const commands = new Map<string, (program: Command) => Promise<void>>([
  ['run', async (program) => (await import('./run.ts')).addRunCommand(program)],
  ['serve', async (program) => (await import('./serve.ts')).addServeCommand(program)],
  ['xen-backend', async (program) => (await import('./xen-backend.ts')).addXenBackendCommand(program)],
  ['top', async (program) => (await import('./top.ts')).addTopCommand(program)],
  ['ctl', async (program) => (await import('./ctl.ts')).addCtlCommand(program)],
  ['audit', async (program) => (await import('./audit.ts')).addAuditCommand(program)],
  ['lint', async (program) => (await import('./lint.ts')).addLintCommand(program)],
  ['decode', async (program) => (await import('./decode.ts')).addDecodeCommand(program)],
  ['xenstored', async (program) => (await import('./xenstored.ts')).addXenstoredCommand(program)],
]);

const VERSION_OPTIONS = ['-V', '--version'];

/** Runs the command that `words` name. Returns false when the call was wrong, and the parser has said so. */
export async function runProgram(words: readonly string[]): Promise<boolean> {
  try {
    await (await program(words)).parseAsync(words, { from: 'user' });
    return true;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0;
    throw error;
  }
}

/**
 * The program with the command that is called; with all of them for the help, and to say that one is unknown. The
 * version is told without any: loading all takes ten times as long as Node's start.
 */
async function program(words: readonly string[]): Promise<Command> {
  const grantio = new Command('grantio')
    .description(
      'Virtio with restricted memory access: run, serve and inspect devices that reach only what a guest granted',
    )
    .version(version())
    .exitOverride()
    .configureHelp({ helpWidth: 100 })
    .addHelpText('after', '\nExit status: 0 done, 1 it failed, 2 the call was wrong.');
  const [first = ''] = words;
  const called = commands.get(first);
  if (called !== undefined) await called(grantio);
  else if (!VERSION_OPTIONS.includes(first)) for (const add of commands.values()) await add(grantio);
  return grantio;
}
