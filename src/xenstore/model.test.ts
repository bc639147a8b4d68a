// Invariant 27: the store equals a plain map. Random operations of domain 0 and two guests, direct and in
// transactions, run on the store and on a map that knows nothing of records, views or ledgers.
//
// A transaction is checked by what it means: when its commit succeeds, doing its operations on the map at
// that moment must give the answers that the transaction gave.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { XS_PERMISSION_LETTERS, type XsPermissionLetter } from '../abi/xenstore.ts';
import { type NodePermission, XenstoreError } from '../xen/xenstore.ts';
import type { NodeAccess } from './access.ts';
import { describe } from './permissions.ts';
import { Store } from './store.ts';
import { Subscriber } from './subscriber.ts';
import { Transaction } from './transactions.ts';

const NODE_LIMIT = 4;
const GUESTS = [1, 2];

type Entry = { value: string; permissions: NodePermission[] };
type Permit = { kind: 'permit'; path: string; owner: number; access: XsPermissionLetter; other: number };
type Operation =
  | { kind: 'read' | 'list' | 'make' | 'remove'; path: string }
  | { kind: 'write'; path: string; value: string }
  | Permit;

const permitList = ({ owner, access, other }: Permit): NodePermission[] => [
  { domain: owner, access: 'n' },
  { domain: other, access },
];

/** The reference: paths to entries, rules written out plainly. */
class Model {
  limit = NODE_LIMIT;
  readonly entries = new Map<string, Entry>([
    ['/', { value: '', permissions: [{ domain: 0, access: 'n' }] }],
  ]);

  may(domain: number, path: string, letter: 'r' | 'w' | 'owner'): boolean {
    const entry = this.entries.get(path)!;
    const owner = entry.permissions[0]!;
    if (domain === 0 || owner.domain === domain) return true;
    const { access } = entry.permissions.slice(1).find((each) => each.domain === domain) ?? owner;
    return letter !== 'owner' && (access === 'b' || access === letter);
  }

  above(path: string): string[] {
    const names = path.split('/').slice(1);
    return names.map((_, i) => (i === 0 ? '/' : `/${names.slice(0, i).join('/')}`)).reverse();
  }

  children(path: string): string[] {
    const start = path === '/' ? '/' : `${path}/`;
    const below = [...this.entries.keys()].filter((each) => each.startsWith(start) && each !== '/');
    return below.map((each) => each.slice(start.length)).filter((name) => !name.includes('/'));
  }

  owned(domain: number): number {
    return [...this.entries.values()].filter((each) => each.permissions[0]!.domain === domain).length;
  }

  /** The answer, as text; throws the error's name. */
  run(domain: number, operation: Operation): string {
    const { kind, path } = operation;
    const entry = this.entries.get(path);
    const right = kind === 'read' || kind === 'list' ? 'r' : 'w';
    if (entry === undefined) return this.runMissing(domain, operation, right);
    if (!this.may(domain, path, kind === 'permit' ? 'owner' : right)) throw 'EACCES';
    if (kind === 'read') return entry.value;
    if (kind === 'list') return this.children(path).sort().join();
    if (kind === 'write') this.entries.set(path, { ...entry, value: operation.value });
    if (operation.kind === 'permit') this.permit(domain, operation, entry);
    if (kind === 'remove' && path === '/') throw 'EINVAL';
    if (kind === 'remove')
      for (const each of this.entries.keys())
        if (each === path || each.startsWith(`${path}/`)) this.entries.delete(each);
    return '';
  }

  runMissing(domain: number, operation: Operation, right: 'r' | 'w'): string {
    const { kind, path } = operation;
    const nearest = this.above(path).find((each) => this.entries.has(each))!;
    if (!this.may(domain, nearest, right)) throw 'EACCES';
    if (kind === 'remove' && this.entries.has(this.above(path)[0]!)) return '';
    if (kind !== 'write' && kind !== 'make') throw 'ENOENT';
    const missing = [path, ...this.above(path)].filter((each) => !this.entries.has(each));
    const inherited = this.entries.get(nearest)!.permissions;
    const owner = domain === 0 ? inherited[0]!.domain : domain;
    if (domain !== 0 && this.owned(domain) + missing.length > this.limit) throw 'ENOSPC';
    const permissions = [{ ...inherited[0]!, domain: owner }, ...inherited.slice(1)];
    for (const each of missing) this.entries.set(each, { value: '', permissions });
    if (kind === 'write') this.entries.set(path, { value: operation.value, permissions });
    return '';
  }

  permit(domain: number, operation: Permit, entry: Entry): void {
    const { path, owner } = operation;
    if (domain !== 0 && entry.permissions[0]!.domain !== owner) throw 'EPERM';
    this.entries.set(path, { ...entry, permissions: permitList(operation) });
  }

  copy(): Model {
    const copy = new Model();
    for (const [path, entry] of this.entries) copy.entries.set(path, entry);
    return copy;
  }
}

const text = new TextDecoder();
const bytes = new TextEncoder();

/** The same operation on the real thing. */
function perform(nodes: NodeAccess, operation: Operation): string {
  const { kind, path } = operation;
  if (kind === 'read') return text.decode(nodes.read(path).value);
  if (kind === 'list') return nodes.read(path).children.all().sort().join();
  if (kind === 'make') nodes.makeDirectory(path);
  if (kind === 'remove') nodes.remove(path);
  if (kind === 'write') nodes.write(path, bytes.encode(operation.value));
  if (kind === 'permit') nodes.setPermissions(path, permitList(operation));
  return '';
}

/** What an action says, with a refusal's name in place of an answer. */
function outcome(action: () => string): string {
  try {
    return `= ${action()}`;
  } catch (error) {
    if (typeof error === 'string') return error;
    if (error instanceof XenstoreError) return error.code;
    throw error;
  }
}

const path = fc.array(fc.constantFrom('a', 'b', 'c'), { maxLength: 3 }).map((names) => `/${names.join('/')}`);
const domain = fc.constantFrom(0, 0, ...GUESTS);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({ kind: fc.constantFrom('read', 'list', 'make', 'remove'), path }),
  fc.record({ kind: fc.constant('write'), path, value: fc.constantFrom('', 'x', 'y') }),
  fc.record({
    kind: fc.constant('permit'),
    path,
    owner: domain,
    access: fc.constantFrom(...XS_PERMISSION_LETTERS),
    other: fc.constantFrom(...GUESTS),
  }),
);
type Step = { domain: number; inside: boolean; end: 'no' | 'commit' | 'abort'; operation: Operation };
const step: fc.Arbitrary<Step> = fc.record({
  domain,
  inside: fc.boolean(),
  end: fc.constantFrom('no', 'no', 'no', 'commit', 'commit', 'abort'),
  operation,
});

type Open = { transaction: Transaction; log: Array<[Operation, string]>; since: number };

/** The store, the model, and at most one open transaction for each domain. */
class Bench {
  readonly store = new Store({ limits: { nodes: NODE_LIMIT } });
  model = new Model();
  /** Counts the changes of the model, to tell whether anyone could have got in a transaction's way. */
  changes = 0;
  readonly open = new Map<number, Open>();
  readonly watchers = [0, ...GUESTS].map((id) => {
    const subscriber = new Subscriber(this.store.introduce(id), this.store.now, () => undefined);
    this.store.watches.add(subscriber, '/', 'token');
    return subscriber;
  });

  run(each: Step): void {
    const before = this.model.copy();
    for (const watcher of this.watchers) watcher.clear();
    if (each.inside) this.runInside(each);
    else this.runDirect(each.domain, each.operation);
    this.compareState();
    this.compareEvents(before);
  }

  runDirect(id: number, operation: Operation): void {
    const expected = outcome(() => this.model.run(id, operation));
    const nodes = this.store.access(this.store.domains.find(id)!);
    assert.equal(
      outcome(() => perform(nodes, operation)),
      expected,
    );
    if (expected.startsWith('=') && !['read', 'list'].includes(operation.kind)) this.changes++;
  }

  runInside({ domain: id, end, operation }: Step): void {
    const open = this.open.get(id) ?? {
      transaction: new Transaction(this.store, this.store.domains.find(id)!),
      log: [],
      since: this.changes,
    };
    this.open.set(id, open);
    open.log.push([operation, outcome(() => perform(open.transaction.nodes, operation))]);
    if (end === 'no') return;
    this.open.delete(id);
    if (end === 'abort') open.transaction.abort();
    else this.finish(id, open);
  }

  finish(id: number, { transaction, log, since }: Open): void {
    const result = outcome(() => (transaction.commit() ? '' : 'conflict'));
    if (result === '= conflict') {
      assert.ok(this.changes > since, 'a conflict needs a change by somebody else');
      return;
    }
    const replayed = this.model.copy();
    replayed.limit = Number.POSITIVE_INFINITY;
    // Room under a quota is not part of what a transaction sees: what was refused for it is left out.
    for (const [operation, answer] of log)
      if (answer !== 'ENOSPC')
        assert.equal(
          outcome(() => replayed.run(id, operation)),
          answer,
        );
    const tooMany = (guest: number) => replayed.owned(guest) > Math.max(NODE_LIMIT, this.model.owned(guest));
    assert.equal(result, id !== 0 && GUESTS.some(tooMany) ? 'ENOSPC' : '= ');
    if (result === 'ENOSPC') return;
    this.changes++;
    this.model = replayed;
    this.model.limit = NODE_LIMIT;
  }

  compareState(): void {
    const { store, model } = this;
    const paths = [...store.paths()].filter((each) => each.startsWith('/')).sort();
    assert.deepEqual(paths, [...model.entries.keys()].sort());
    for (const each of paths) {
      const node = store.get(each)!;
      assert.equal(text.decode(node.value), model.entries.get(each)!.value);
      assert.deepEqual(describe(node.permissions), model.entries.get(each)!.permissions);
      assert.deepEqual(node.children.all().sort(), model.children(each).sort());
    }
    for (const [each, usage] of store.recount()) assert.deepEqual(each.usage, usage);
  }

  /** Watch events contain every visible change, and nothing that is not permitted. */
  compareEvents(before: Model): void {
    for (const watcher of this.watchers) {
      const { id } = watcher.domain;
      const heard: string[] = [];
      for (let event = watcher.take(); event !== undefined; event = watcher.take()) heard.push(event.path);
      for (const changed of visibleChanges(id, before, this.model))
        assert.ok(
          heard.some((each) => onOneBranch(each, changed)),
          `domain ${id} was not told of ${changed}, only of ${heard.join()}`,
        );
      for (const each of heard)
        assert.ok(
          [before, this.model].some((model) => lets(model, id, each)),
          `domain ${id} was told of ${each}`,
        );
    }
  }
}

/** What `id` can read: values and lists of children. */
function visible(id: number, model: Model): Map<string, string> {
  const readable = [...model.entries.keys()].filter((each) => model.may(id, each, 'r'));
  return new Map(
    readable.map((each) => [each, `${model.entries.get(each)!.value} ${model.children(each).sort().join()}`]),
  );
}

function visibleChanges(id: number, before: Model, after: Model): string[] {
  const [old, now] = [visible(id, before), visible(id, after)];
  return [...new Set([...old.keys(), ...now.keys()])].filter((each) => old.get(each) !== now.get(each));
}

const onOneBranch = (one: string, other: string) =>
  one === other || one === '/' || other === '/' || one.startsWith(`${other}/`) || other.startsWith(`${one}/`);

/** Whether `id` may read the node, or the nearest one above it that there is. */
function lets(model: Model, id: number, path: string): boolean {
  if (model.entries.has(path) && model.may(id, path, 'r')) return true;
  const nearest = model.above(path).find((each) => model.entries.has(each));
  return nearest !== undefined && model.may(id, nearest, 'r');
}

test('27: any operations, direct and in transactions, leave what they leave in a plain map', () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 5, maxLength: 40 }), (steps) => {
      const bench = new Bench();
      for (const each of steps) bench.run(each);
    }),
    { seed: 27, numRuns: 1500 },
  );
});
