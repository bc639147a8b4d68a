// One node of the store as an immutable record, and the two ways to look at all of them: the store itself
// and a transaction. A change replaces the record, so a kept record is a kept state, and "has it changed?"
// is a comparison of references.

import type { Domain } from './domains.ts';
import { childOf, nameOf, parentOf } from './paths.ts';
import type { Permissions } from './permissions.ts';

/** A node. Nothing in it ever changes. */
export interface Node {
  readonly value: Uint8Array;
  readonly permissions: Permissions;
  readonly children: ChildNames;
  /** Different for every record the store has ever had (DIRECTORY_PART's gencnt). */
  readonly generation: number;
}

/** Records that replace others; undefined removes the node. */
export type Edits = ReadonlyMap<string, Node | undefined>;

/** Nodes by absolute path, as the operations see them. */
export interface View {
  /** The node, or undefined. A transaction remembers that it was looked at; ENOSPC when it cannot. */
  get(path: string): Node | undefined;
  /**
   * Makes all `edits`, or throws ENOSPC and makes none. `touched` are the paths that watchers hear about;
   * nodes that change only because a child came or went are not among them.
   */
  apply(caller: Domain, edits: Edits, touched: readonly string[]): void;
  /** A number for a new record. */
  nextGeneration(): number;
}

/** The names of a node's children in the order they were made. */
export class ChildNames {
  static readonly none = new ChildNames([], 0);
  // Shared between successive lists: only the first `count` names are this one's. So to add a name costs
  // no copy, although earlier lists stay as they are.
  readonly #names: string[];
  readonly count: number;

  private constructor(names: string[], count: number) {
    this.#names = names;
    this.count = count;
  }

  with(name: string): ChildNames {
    const extendable = this.count > 0 && this.#names.length === this.count;
    const names = extendable ? this.#names : this.all();
    names.push(name);
    return new ChildNames(names, this.count + 1);
  }

  without(name: string): ChildNames {
    const names = this.all();
    const at = names.indexOf(name);
    if (at !== -1) names.splice(at, 1);
    return names.length === 0 ? ChildNames.none : new ChildNames(names, names.length);
  }

  /** A copy of the names. */
  all(): string[] {
    return this.#names.slice(0, this.count);
  }
}

/** The paths of a node and all below it, parents first. Iterative: a guest can nest 1500 levels. */
function subtree(view: Pick<View, 'get'>, path: string): string[] {
  const paths = [path];
  for (let i = 0; i < paths.length; i++) {
    const at = paths[i]!;
    for (const name of view.get(at)?.children.all() ?? []) paths.push(childOf(at, name));
  }
  return paths;
}

/** The edits that remove a node, which is not the root, with all below it; and the paths that they remove. */
export function removal(view: View, path: string): { edits: Edits; removed: string[] } {
  const removed = subtree(view, path);
  const edits = new Map<string, Node | undefined>();
  for (const each of removed) edits.set(each, undefined);
  const parent = view.get(parentOf(path))!;
  const children = parent.children.without(nameOf(path));
  edits.set(parentOf(path), { ...parent, children, generation: view.nextGeneration() });
  return { edits, removed };
}
