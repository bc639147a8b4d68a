// The options of `grantio serve console`: what its ports are called, and what each is connected to.
// After serve-kinds.ts, before serving/console-device.ts.

import { MAX_CONSOLE_NAME, MAX_CONSOLE_PORTS } from '../devices/console-limits.ts';
import type { ConsoleConnection, ConsoleSpec } from '../serving/console-device.ts';
import type { DeviceSpec } from '../serving/devices.ts';
import type { OptionReader, ServeOption } from './serve-options.ts';

const MIB = 2 ** 20;
const CONNECTIONS = 'socket:PATH, pty:PATH, log:PATH or stdio';

export const CONSOLE_OPTIONS: readonly ServeOption[] = [
  { name: 'console', value: '<connection>', help: `what the terminal is connected to: ${CONNECTIONS}` },
  {
    name: 'ports',
    value: '<list>',
    help: 'ports for programs of the guest, and what they are connected to: NAME=CONNECTION,...',
  },
  { name: 'log-limit', value: '<MiB>', help: 'size of a log, which is then renamed to PATH.1 (default: 16)' },
];

/** Throws UsageError. */
export function consoleSpec(options: OptionReader): ConsoleSpec {
  const limit = options.number('log-limit', 1, 1_000_000, 16) * MIB;
  const terminal = options.text('console');
  const ports = [
    ...(terminal === undefined
      ? []
      : [{ name: '', isConsole: true, connection: connectionOf(options, 'console', terminal, limit) }]),
    ...(options.text('ports') ?? '')
      .split(',')
      .filter((text) => text !== '')
      .map((text) => programPort(options, text, limit)),
  ];
  if (ports.length === 0) throw options.wrong('console', `is missing: ${CONNECTIONS}`);
  if (ports.length > MAX_CONSOLE_PORTS)
    throw options.wrong('ports', `: ${ports.length} ports, expected at most ${MAX_CONSOLE_PORTS}`);
  if (ports.filter(({ connection }) => connection.kind === 'stdio').length > 1)
    throw options.wrong('ports', ': standard input and output are for one port');
  return { kind: 'console', ports };
}

/** Queues of a console: a pair for each port, and one for control. */
export function consoleQueues(spec: DeviceSpec): number {
  return spec.kind === 'console' ? 2 * spec.ports.length + 2 : 0;
}

function programPort(options: OptionReader, text: string, limit: number): ConsoleSpec['ports'][number] {
  const at = text.indexOf('=');
  const name = text.slice(0, Math.max(at, 0));
  const bytes = Buffer.byteLength(name);
  if (bytes === 0) throw options.wrong('ports', `'${text}': expected NAME=CONNECTION`);
  if (bytes > MAX_CONSOLE_NAME)
    throw options.wrong('ports', `'${name}': ${bytes} bytes, expected at most ${MAX_CONSOLE_NAME}`);
  return { name, isConsole: false, connection: connectionOf(options, 'ports', text.slice(at + 1), limit) };
}

/** What `text` says that a port is connected to. Throws UsageError. */
export function connectionOf(
  options: OptionReader,
  option: string,
  text: string,
  limit: number,
): ConsoleConnection {
  if (text === 'stdio') return { kind: 'stdio' };
  const [, kind, path] = /^(socket|pty|log):(.+)$/.exec(text) ?? [];
  if (kind === 'socket' || kind === 'pty') return { kind, path };
  if (kind === 'log') return { kind, path, limit };
  throw options.wrong(option, `'${text}': expected ${CONNECTIONS}`);
}
