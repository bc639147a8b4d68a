// A file of devices for `grantio serve --config`: JSON whose keys are the names of the options.
//   { "devices": [{ "type": "blk", "name": "root", "socket-path": "/run/root.sock", "disk": "root.img" }] }
// After serve.ts, before serve-plan.ts.

import { readFileSync } from 'node:fs';
import { didYouMean } from '../toolstack/suggest.ts';
import { SERVED_KINDS, servedKind } from './serve-kinds.ts';
import { type GivenOptions, OptionReader } from './serve-options.ts';
import { DEVICE_OPTIONS, type PlannedDevice, planDevice } from './serve-plan.ts';
import { UsageError } from './usage.ts';

/** Devices of one process: far more than a machine has guests. */
const MOST_DEVICES = 1024;

/** The devices of the file at `path`. Throws UsageError for every mistake in it. */
export function readConfig(path: string): PlannedDevice[] {
  const document = parse(path, textOf(path));
  const { devices, ...others } = objectOf(document, path);
  for (const key of Object.keys(others)) throw unknownKey(path, key, ['devices']);
  if (!Array.isArray(devices) || devices.length === 0 || devices.length > MOST_DEVICES)
    throw new UsageError(`${path}: devices: expected a list of 1 to ${MOST_DEVICES} devices`);
  return devices.map((device: unknown, index) => planEntry(device, `${path}: devices[${index}]`));
}

function planEntry(entry: unknown, where: string): PlannedDevice {
  const { type, ...values } = objectOf(entry, where);
  const kind = typeof type === 'string' ? servedKind(type) : undefined;
  if (typeof type !== 'string' || kind === undefined)
    throw new UsageError(`${where}.type: expected one of ${Object.keys(SERVED_KINDS).join(', ')}`);
  const names = new Map([...kind.options, ...DEVICE_OPTIONS].map(({ name, value }) => [name, value]));
  const given: Record<string, string | true> = {};
  for (const [key, value] of Object.entries(values)) {
    if (!names.has(key)) throw unknownKey(where, key, ['type', ...names.keys()]);
    if (value === false && names.get(key) === undefined) continue;
    given[key] = givenValue(value, names.get(key) === undefined, `${where}.${key}`);
  }
  return planDevice(type, given, readerOf(given, where));
}

function readerOf(given: GivenOptions, where: string): OptionReader {
  return new OptionReader(given, (name) => `${where}.${name}`);
}

/** A value of the file as the command line would have it. */
function givenValue(value: unknown, isSwitch: boolean, where: string): string | true {
  if (isSwitch && value === true) return true;
  if (!isSwitch && (typeof value === 'string' || typeof value === 'number')) return String(value);
  throw new UsageError(`${where}: expected ${isSwitch ? 'true or false' : 'a text or a number'}`);
}

function objectOf(value: unknown, where: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  throw new UsageError(`${where}: expected an object`);
}

function unknownKey(where: string, key: string, known: readonly string[]): UsageError {
  const hint = didYouMean(key, known);
  return new UsageError(`${where}: unknown key '${key}'${hint === undefined ? '' : `; ${hint}`}`);
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`${path}: cannot be read: ${error instanceof Error ? error.message : error}`);
  }
}

function parse(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const message = error instanceof Error ? error.message : `${error}`;
    throw new UsageError(`${path}${placeIn(text, message)}: ${message}`);
  }
}

/** ":LINE:COLUMN" of the mistake, where V8 says at which character it is. */
function placeIn(text: string, message: string): string {
  const [, position] = /at position (\d+)/.exec(message) ?? [];
  if (position === undefined) return '';
  const before = text.slice(0, Number(position)).split('\n');
  return `:${before.length}:${before.at(-1)!.length + 1}`;
}
