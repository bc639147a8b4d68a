// CONTROL: the few commands of xenstore-control that say something about this store. What they print is for
// people; programs use GET_QUOTA and SET_QUOTA.

import { XenstoreError } from '../xen/xenstore.ts';
import { isQuotaName } from './quotas.ts';
import type { Store } from './store.ts';

type Command = (store: Store, parameters: readonly string[]) => string;

const commands = new Map<string, { readonly usage: string; readonly run: Command }>([
  ['check', { usage: '', run: check }],
  ['help', { usage: '', run: help }],
  ['quota', { usage: '[set <name> <val>|<domid>]', run: quota }],
]);

/** Runs a command; its answer ends with a NUL. */
export function control(store: Store, [name = '', ...parameters]: readonly string[]): string {
  const command = commands.get(name);
  if (command === undefined) throw new XenstoreError('EINVAL', 'control', name);
  return `${command.run(store, parameters)}\0`;
}

function help(): string {
  return [...commands].map(([name, { usage }]) => `${name.padEnd(15)} ${usage}\n`).join('');
}

/** Counts everything from scratch and compares. */
function check(store: Store): string {
  const wrong: string[] = [];
  for (const [domain, counted] of store.recount())
    for (const what of ['nodes', 'memory', 'watches', 'transactions'] as const)
      if (domain.usage[what] !== counted[what])
        wrong.push(`domain ${domain.id}: ${what} ${domain.usage[what]}, counted ${counted[what]}\n`);
  return wrong.length === 0 ? 'OK' : wrong.join('');
}

function quota(store: Store, parameters: readonly string[]): string {
  const [first, name, value] = parameters;
  if (parameters.length === 0) return `Quota settings:\n${table(store.domains.limits)}`;
  if (first === 'set' && parameters.length === 3) return setQuota(store, name!, value!);
  if (parameters.length !== 1 || !/^\d{1,5}$/.test(first!))
    throw new XenstoreError('EINVAL', 'control', 'quota');
  const domain = store.domains.find(Number(first));
  if (domain === undefined) throw new XenstoreError('ENOENT', 'control', `quota ${first}`);
  return `Domain ${first}:\n${table(domain.usage)}`;
}

function setQuota(store: Store, name: string, value: string): string {
  if (!isQuotaName(name) || !/^[1-9]\d{0,8}$/.test(value))
    throw new XenstoreError('EINVAL', 'control', 'quota set');
  store.domains.limits[name] = Number(value);
  return 'OK';
}

function table(amounts: object): string {
  return Object.entries(amounts)
    .map(([name, amount]) => `${name.padEnd(17)}: ${`${amount}`.padStart(8)}\n`)
    .join('');
}
