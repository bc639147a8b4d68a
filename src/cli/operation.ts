// What an operator of `grantio serve` and `grantio xen-backend` sees of them: the log, and metrics. Before serve-log.ts
// and metrics/.

import { writeSync } from 'node:fs';
import type { Notice } from '../serving/control.ts';
import type { ServingFigures } from '../serving/serving-figures.ts';
import { type MetricsAddress, metricsAddress } from './metrics/metrics-address.ts';
import { prettyPrinter } from './log-text.ts';
import {
  LOG_FORMATS,
  LOG_LEVELS,
  type LogFormat,
  type LogLevel,
  type PrintEntry,
  ServeLog,
} from './serve-log.ts';
import { UsageError } from './usage.ts';

/** The options of the command, without their dashes. */
export const OPERATION_OPTIONS = [
  {
    name: 'metrics',
    value: '<place>',
    help: 'serve OpenMetrics over HTTP on a Unix socket at this path, or on a port of this machine, HOST:PORT',
  },
  {
    name: 'trace',
    value: '<file>',
    help: "write what the devices can reach of guests' memory, and need of it, to this file for `grantio audit`",
  },
  { name: 'log-format', value: '<format>', help: 'pretty, for people (default), or json, for machines' },
  {
    name: 'log-level',
    value: '<level>',
    help: 'the least that is logged: info (default), warn, error or silent',
  },
] as const;

/** What the options say. */
export interface OperationPlan {
  readonly metrics: MetricsAddress | undefined;
  /** Path of the file. */
  readonly trace: string | undefined;
  readonly logFormat: LogFormat;
  readonly logLevel: LogLevel;
}

/** Reads the options. Throws UsageError for what cannot be. */
export function operationPlan(given: (name: string) => string | undefined): OperationPlan {
  const metrics = given('metrics');
  return {
    metrics: metrics === undefined ? undefined : metricsAddress(metrics),
    trace: given('trace'),
    logFormat: choice('log-format', given('log-format'), LOG_FORMATS),
    logLevel: choice('log-level', given('log-level'), LOG_LEVELS),
  };
}

/**
 * The options for a process that serves one device of several: its metrics and its trace are at the path with its name
 * behind.
 * Throws UsageError for a port, which only one process can have.
 */
export function operationOptionsFor(
  { metrics, trace, logFormat, logLevel }: OperationPlan,
  device: string,
): Readonly<Record<string, string>> {
  const own = {
    ...{ 'log-format': logFormat, 'log-level': logLevel },
    ...(trace !== undefined && { trace: `${trace}.${device}` }),
  };
  if (metrics === undefined) return own;
  if (!('path' in metrics))
    throw new UsageError(
      '--metrics with --own-process: expected a path, to which each process adds its name',
    );
  return { ...own, metrics: `${metrics.path}.${device}` };
}

function choice<T extends string>(name: string, text: string | undefined, choices: readonly T[]): T {
  const found = choices.find((one) => one === (text ?? choices[0]));
  if (found === undefined) throw new UsageError(`--${name} '${text}': expected one of ${choices.join(', ')}`);
  return found;
}

/** The log and the metrics of a running process. */
export interface Operation {
  readonly log: (notice: Notice) => void;
  /** Serves metrics from now on, if that was asked for. Rejects when nothing can listen there. */
  measure(figures: () => ServingFigures): Promise<void>;
  /** Ends both, when all else has ended. */
  close(): Promise<void>;
}

/** Starts the log. What only JSON or metrics need is loaded when they are asked for: a device is to be there soon. */
export async function startOperation({ metrics, logFormat, logLevel }: OperationPlan): Promise<Operation> {
  const log = new ServeLog({ level: logLevel, print: await printer(logFormat), now: Date.now });
  let closeMetrics = async (): Promise<void> => undefined;
  return {
    log: log.notice,
    async measure(figures) {
      if (metrics === undefined) return;
      const { serveMetrics } = await import('./metrics/metrics-server.ts');
      const { processFigures } = await import('./metrics/process-figures.ts');
      closeMetrics = await serveMetrics(metrics, () => ({ ...figures(), process: processFigures() }));
    },
    async close() {
      await closeMetrics();
      log.close();
    },
  };
}

async function printer(format: LogFormat): Promise<PrintEntry> {
  if (format === 'json') return (await import('./log-json.ts')).jsonPrinter(writeStderr);
  return prettyPrinter(writeStderr, process.stderr.isTTY === true && process.env['NO_COLOR'] === undefined);
}

/** At once; a reader that has gone away or does not read ends nothing. */
function writeStderr(text: string): void {
  try {
    writeSync(2, text);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code !== 'EPIPE' && code !== 'EAGAIN') throw error;
  }
}
