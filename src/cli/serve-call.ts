// Calls of `grantio serve`: from the options that were given to what is done. Kept free of the parser of options, so
// that a plain call is served without. After main.ts or serve.ts, before serve-plan.ts and serve-run.ts.

import { parseArgs } from 'node:util';
import { type ServedKind, servedKind } from './serve-kinds.ts';
import type { GivenOptions, ServeOption } from './serve-options.ts';
import {
  DEVICE_OPTIONS,
  type PlannedDevice,
  PROCESS_OPTIONS,
  planDevice,
  planServe,
  type ServePlan,
} from './serve-plan.ts';
import type { Service } from './serve-service.ts';
import { UsageError } from './usage.ts';

/** Options that print something, and serve nothing. */
const PRINT_OPTIONS: readonly ServeOption[] = [
  { name: 'print-capabilities', help: 'print what this program can do, for management programs' },
  {
    name: 'print-qemu-args',
    value: '<memory>',
    help: "print QEMU's arguments for a guest of this memory, such as 1G",
  },
  { name: 'print-uml-args', help: "print User-Mode Linux's arguments" },
];
const CONFIG_OPTION: ServeOption = {
  name: 'config',
  value: '<file>',
  help: 'serve the devices of this file, all in one process',
};

/**
 * Serves what `words` say, if they say it plainly: the form in which management programs start it, who wait for the
 * socket. To load the parser of options would be a good part of that time. Returns false when they are for that parser.
 */
export async function servePlainly(words: readonly string[]): Promise<boolean> {
  const [first = '', ...rest] = words;
  const kind = servedKind(first);
  // By the convention, all other words are of no interest then.
  if (kind !== undefined && rest.includes('--print-capabilities')) {
    printJson(kind.capabilities);
    return true;
  }
  const options = kind === undefined ? configOptions() : kindOptions(kind);
  const given = plainlyGiven(kind === undefined ? words : rest, options);
  if (given === undefined || words.length === 0) return false;
  await (kind === undefined ? serveConfig(given) : serveKind(first, given));
  return true;
}

/** Options of `grantio serve` itself. */
export function configOptions(): readonly ServeOption[] {
  return [CONFIG_OPTION, ...PROCESS_OPTIONS, ...PRINT_OPTIONS.slice(1)];
}

/** Options of `grantio serve KIND`. */
export function kindOptions(kind: ServedKind): readonly ServeOption[] {
  return [...kind.options, ...DEVICE_OPTIONS, ...PROCESS_OPTIONS, ...PRINT_OPTIONS];
}

/** What Node's own parser makes of the words; undefined when it finds fault with them. */
function plainlyGiven(words: readonly string[], options: readonly ServeOption[]): GivenOptions | undefined {
  const known = options.map(({ name, value }) => [
    name,
    { type: value === undefined ? 'boolean' : 'string', multiple: true } as const,
  ]);
  try {
    const { values } = parseArgs({ args: [...words], options: Object.fromEntries(known) });
    return once(values);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    return undefined;
  }
}

/** What was given, each option once. Throws UsageError for one that was given with two values. */
export function once(values: Readonly<Record<string, unknown>>): GivenOptions {
  const given: Record<string, string | true> = {};
  for (const [name, value] of Object.entries(values)) {
    const [first, second] = Array.isArray(value) ? value : [value];
    if (typeof first === 'string' && second !== undefined)
      throw new UsageError(`--${name} is given twice; several devices are for --config`);
    given[name] = typeof first === 'string' ? first : true;
  }
  return given;
}

/** Serves one device, or prints what is asked for. Throws UsageError. */
export async function serveKind(kind: string, given: GivenOptions): Promise<void> {
  const own = new Set([...servedKind(kind)!.options, ...DEVICE_OPTIONS].map(({ name }) => name));
  const [device, process] = [new Map<string, string | true>(), new Map<string, string | true>()];
  for (const [name, value] of Object.entries(given)) (own.has(name) ? device : process).set(name, value);
  await serve([planDevice(kind, Object.fromEntries(device))], Object.fromEntries(process));
}

/** Serves the devices of a file. Throws UsageError. */
export async function serveConfig(given: GivenOptions): Promise<void> {
  const { config } = given;
  if (typeof config !== 'string')
    throw new UsageError(`expected a kind of device, or --config and a file of devices`);
  const { readConfig } = await import('./serve-config.ts');
  await serve(readConfig(config), given);
}

async function serve(devices: readonly PlannedDevice[], given: GivenOptions): Promise<void> {
  const plan = planServe(devices, given);
  const memory = given['print-qemu-args'];
  if (memory === undefined && given['print-uml-args'] === undefined) {
    const service = await serviceFor(plan);
    const { runServe } = await import('./serve-run.ts');
    process.exitCode = await runServe(plan, service);
    return;
  }
  const { qemuArguments, umlArguments } = await import('./serve-arguments.ts');
  const words = typeof memory === 'string' ? qemuArguments(plan, memory) : umlArguments(plan);
  if (plan.json) printJson(words);
  else process.stdout.write(words.map((word) => `${word}\n`).join(''));
}

/** What serves them: threads of this process, which start here and now, or processes. */
async function serviceFor(plan: ServePlan): Promise<Service> {
  if (!plan.ownProcess) {
    const trace = isFollowed(plan) ? (await import('./serve-trace.ts')).serveTrace(plan) : undefined;
    return new (await import('./serve-server.ts')).ServerService(plan, trace);
  }
  return new (await import('./serve-supervisor.ts')).Supervisor(plan);
}

/** Whether somebody wants to know what the devices can reach over time; without an IOMMU, only a trace has more to say. */
function isFollowed({ operation, restricted }: ServePlan): boolean {
  return operation.trace !== undefined || (restricted && operation.metrics !== undefined);
}

function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
