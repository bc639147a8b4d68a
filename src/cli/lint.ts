// `grantio lint`: reads the files, lints them together and prints the findings.

import { readFileSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { ALL_RULES } from '../lint/all-rules.ts';
import type { InputFile } from '../lint/files.ts';
import { formatJson, formatSarif } from '../lint/format-json.ts';
import { formatText } from '../lint/format-text.ts';
import { lintFiles } from '../lint/lint.ts';
import { hasErrors } from '../toolstack/finding.ts';

/** What the command reads and prints with, so that tests need no process. */
interface LintIo {
  /** The whole file; throws what the system says if it cannot be read. */
  readFile(path: string): Uint8Array;
  /** Prints to the standard output. */
  out(text: string): void;
  /** Prints to the standard error output. */
  err(text: string): void;
}

/** The command's options. */
export interface LintCommandOptions {
  readonly format?: string;
  /** Every device has to use grants, as in a kernel with XEN_VIRTIO_FORCE_GRANT. */
  readonly forceGrants?: boolean;
  /** Print the rules instead of linting. */
  readonly listRules?: boolean;
}

const FORMATS = ['text', 'json', 'sarif'];

/** Adds the command to the program. */
export function addLintCommand(program: Command): void {
  program
    .command('lint')
    .summary('find the traps in guest configurations, device trees and xenstore dumps')
    .description(
      'Lint guest configurations (xl.cfg), device trees (.dts, .dtb) and dumps of `xenstore-ls -f` together.',
    )
    .argument('[file...]', 'files to read; what they are is told from their content')
    .addOption(new Option('--format <format>', 'how to print').choices(FORMATS).default('text'))
    .option('--json', 'the same as --format json')
    .option('--force-grants', 'every device has to use grants (XEN_VIRTIO_FORCE_GRANT)')
    .option('--list-rules', 'print the rules')
    .addHelpText(
      'after',
      '\nExit status: 0 nothing worse than warnings, 1 there are errors, 2 a file cannot be read.',
    )
    .action((files: string[], { json, ...options }: LintCommandOptions & { readonly json?: boolean }) => {
      process.exitCode = lintCommand(files, json ? { ...options, format: 'json' } : options, {
        readFile: (path) => readFileSync(path),
        out: (text) => process.stdout.write(text),
        err: (text) => process.stderr.write(text),
      });
    });
}

/**
 * Lints the files at `paths` together.
 *
 * @returns the exit status: 0 done, 1 there is an error among the findings, 2 the call cannot be carried out
 */
export function lintCommand(paths: readonly string[], options: LintCommandOptions, io: LintIo): number {
  const { format = 'text', forceGrants = false } = options;
  if (!FORMATS.includes(format)) return refuse(io, `no format "${format}"; expected ${FORMATS.join(', ')}`);
  if (options.listRules) {
    for (const { id, severity, summary } of ALL_RULES) io.out(`${id} (${severity}): ${summary}\n`);
    return 0;
  }
  if (paths.length === 0)
    return refuse(
      io,
      'name at least one guest configuration, device tree (.dts, .dtb) or dump of xenstore-ls -f',
    );
  const files = readAll(paths, io);
  if (files === undefined) return 2;
  const findings = lintFiles(files, { forceGrants });
  if (format === 'json') io.out(formatJson(findings));
  else if (format === 'sarif') io.out(formatSarif(findings, files));
  else io.out(formatText(findings, files));
  return hasErrors(findings) ? 1 : 0;
}

function refuse(io: LintIo, message: string): 2 {
  io.err(`grantio lint: ${message}\n`);
  return 2;
}

/** All files, or undefined if one cannot be read; each that cannot is reported. */
function readAll(paths: readonly string[], io: LintIo): InputFile[] | undefined {
  const files: InputFile[] = [];
  for (const path of new Set(paths))
    try {
      files.push({ path, bytes: io.readFile(path) });
    } catch (error) {
      refuse(io, `cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`);
    }
  return files.length === new Set(paths).size ? files : undefined;
}
