// `grantio serve`: devices for virtual machines, over vhost-user, by the conventions that QEMU documents for backend
// programs (docs/interop/vhost-user.rst, "Backend program conventions"). Before serve-call.ts.

import type { Command } from 'commander';
import { didYouMean } from '../toolstack/suggest.ts';
import { configOptions, kindOptions, once, serveConfig, serveKind } from './serve-call.ts';
import { addDescriptionCommands } from './serve-descriptions.ts';
import { SERVED_KINDS } from './serve-kinds.ts';
import type { GivenOptions, ServeOption } from './serve-options.ts';
import { UsageError } from './usage.ts';

const HELP = `
Several devices in one process:
  { "devices": [
    { "type": "blk", "name": "root", "socket-path": "/run/root.sock", "disk": "root.img", "queues": 4 },
    { "type": "rng", "socket-path": "/run/rng.sock" } ] }
  The keys are the names of the options that a device has. Each has a name of its own.
  A guest that truncates its memory ends the process that serves it (SIGBUS). So a process with several devices
  takes only memory that is sealed, as QEMU's memory-backend-memfd is, unless --own-process gives each its own.

Examples:
  grantio serve blk --socket-path /tmp/disk.sock --disk disk.img
  grantio serve blk --socket-path /tmp/disk.sock --disk disk.img --print-qemu-args 1G
  grantio serve blk --socket-path /tmp/disk.sock --disk disk.img --restricted --trace t.json
                                                   for \`grantio audit t.json\`: what it could reach behind an IOMMU
  grantio serve --config devices.json
  sudo grantio serve install-descriptions          for libvirt and others that look for backend programs

Exit status:
  0  ended by a signal, or by the end of a connection that was given with --fd
  1  it failed: an image is missing or unusable, a socket cannot be made, koffi is not installed
  2  the call was wrong; nothing was started`;

const KIND_HELP = `
Where the frontend connects, one of:
  --socket-path  a socket is made there when the device is ready, and removed in the end; a dead server's is replaced
  --fd           a socket that this process was started with
  neither        a socket that systemd has opened, by the name of the device if there are several

It stays in the foreground, says what happens on standard error, and ends on SIGTERM, SIGINT and SIGHUP: requests that
it has taken are served, and what was written is flushed. Under systemd it says when it is ready, and answers the
watchdog. Frontends come and go, one at a time; with a connected --fd it ends with its frontend.

With --own-process the device is served by a child process, which is started again when it dies.

Virtual machines' arguments, one a line:
  mapfile -t vm < <(grantio serve ... --print-qemu-args 1G) && qemu-system-x86_64 "\${vm[@]}" ...
  linux.uml mem=1G $(grantio serve ... --print-uml-args) ...

Exit status: 0 ended in order, 1 it failed, 2 the call was wrong; nothing was started.`;

/** Adds the command to the program. */
export function addServeCommand(program: Command): void {
  const serve = program
    .command('serve')
    .summary('serve devices to virtual machines over vhost-user')
    .description('Serve devices to virtual machines over vhost-user.')
    .allowExcessArguments()
    .allowUnknownOption()
    // Options after a kind are that device's.
    .enablePositionalOptions()
    .addHelpText('after', HELP)
    .action((_options: unknown, command: Command) => serveWithoutKind(command));
  withOptions(serve, configOptions());
  for (const [name, kind] of Object.entries(SERVED_KINDS)) {
    const command = serve.command(name).summary(`serve ${kind.summary}`);
    withOptions(command, kindOptions(kind))
      .description(`Serve ${kind.summary} to a virtual machine over vhost-user.`)
      .addHelpText('after', KIND_HELP)
      .action((_options: unknown, called: Command) => serveOne(name, called));
  }
  addDescriptionCommands(serve);
}

function serveWithoutKind(command: Command): Promise<void> {
  const [word] = command.args;
  if (word === undefined) return serveConfig(givenTo(command));
  if (word.startsWith('-'))
    throw new UsageError(
      `unknown option '${word}'${hint(
        word,
        configOptions().map(({ name }) => `--${name}`),
      )}`,
    );
  throw new UsageError(`there is no device of the kind '${word}'${hint(word, Object.keys(SERVED_KINDS))}`);
}

function serveOne(kind: string, command: Command): Promise<void> {
  const [misplaced] = Object.keys(givenTo(command.parent!));
  if (misplaced !== undefined) throw new UsageError(`--${misplaced} belongs after the kind of device`);
  return serveKind(kind, givenTo(command));
}

function hint(word: string, known: readonly string[]): string {
  const meant = didYouMean(word, known);
  return meant === undefined ? '' : `; ${meant}`;
}

function withOptions(command: Command, options: readonly ServeOption[]): Command {
  for (const { name, value, help } of options) {
    if (value === undefined) command.option(`--${name}`, help);
    else
      command.option(`--${name} ${value}`, help, (text: string, before: string[] = []) => [...before, text]);
  }
  return command;
}

/** The same from the parser of options. */
function givenTo(command: Command): GivenOptions {
  const values = command.options.map((option) => [
    option.long!.slice(2),
    command.getOptionValue(option.attributeName()) as string[] | true | undefined,
  ]);
  return once(Object.fromEntries(values.filter(([, value]) => value !== undefined)));
}
