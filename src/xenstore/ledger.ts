// Who is charged how many bytes for what: the account book behind the quotas.

import type { Domain } from './domains.ts';
import type { Node } from './node.ts';
import { exceeds } from './quotas.ts';

/** What the record of a node costs beside its path and its bytes. */
const NODE_OVERHEAD = 64;
const PERMISSION_BYTES = 8;
const WATCH_OVERHEAD = 64;

/** Bytes charged for a node to its owner. */
export function nodeBytes(path: string, node: Node): number {
  return NODE_OVERHEAD + path.length + node.value.length + PERMISSION_BYTES * node.permissions.length;
}

/** Bytes charged for a watch. */
export function watchBytes(path: string, token: string): number {
  return WATCH_OVERHEAD + path.length + token.length;
}

/** Bytes charged for a transaction's remembering that it looked at a node. */
export function accessBytes(path: string): number {
  return NODE_OVERHEAD + path.length;
}

/** Bytes charged for a transaction's own record of a node; none for its removal. */
export function editBytes(path: string, edit: Node | undefined): number {
  return edit === undefined ? 0 : nodeBytes(path, edit);
}

/** What a group of edits adds to, or takes from, the accounts of the nodes' owners. */
export class Ledger {
  readonly #charges = new Map<Domain, { nodes: number; memory: number }>();

  /** Notes that `path` goes from one record to another; undefined is no node. */
  replace(path: string, before: Node | undefined, after: Node | undefined): void {
    if (before !== undefined) this.#add(before.permissions[0].domain, -1, -nodeBytes(path, before));
    if (after !== undefined) this.#add(after.permissions[0].domain, 1, nodeBytes(path, after));
  }

  /** Whether some domain would have more than it may, because of these edits. */
  exceeds(): boolean {
    for (const [domain, { nodes, memory }] of this.#charges) {
      if (nodes > 0 && exceeds(domain, 'nodes', domain.usage.nodes + nodes)) return true;
      if (memory > 0 && exceeds(domain, 'memory', domain.usage.memory + memory)) return true;
    }
    return false;
  }

  /** Makes the charges. */
  settle(): void {
    for (const [{ usage }, { nodes, memory }] of this.#charges) {
      usage.nodes += nodes;
      usage.memory += memory;
    }
  }

  #add(domain: Domain, nodes: number, memory: number): void {
    const charge = this.#charges.get(domain);
    if (charge === undefined) this.#charges.set(domain, { nodes, memory });
    else {
      charge.nodes += nodes;
      charge.memory += memory;
    }
  }
}
