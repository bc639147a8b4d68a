// What a change of one node means to those who watch: which paths it may be reported for, and who was or
// is allowed to see it.

import type { Node } from './node.ts';
import { isSpecial, parentOf } from './paths.ts';
import type { Permissions } from './permissions.ts';

/** A visible change. */
export interface Change {
  readonly path: string;
  /** How many nodes from `path` upwards came into being with it. */
  readonly created: number;
  /**
   * Only a watch on exactly this path concerns it: it vanished with a node above it, whose own change is
   * reported to the others, or it is one of the special names, which lie below nothing.
   */
  readonly exact: boolean;
  /** Whoever may read by one of these lists may know. */
  readonly audience: readonly Permissions[];
}

type Lookup = (path: string) => Node | undefined;

/** The change of the node at `path` between two states of the store, or undefined if there is none. */
export function changeAt(path: string, before: Lookup, after: Lookup): Change | undefined {
  const old = before(path);
  const now = after(path);
  if (old === now) return undefined;
  if (old !== undefined && now !== undefined)
    return { path, created: 0, exact: isSpecial(path), audience: [old.permissions, now.permissions] };
  // That a child comes or goes is to be seen in its parent too, by whoever may list it.
  if (old !== undefined) {
    const parent = parentOf(path);
    const above = before(parent);
    const audience = above === undefined ? [old.permissions] : [old.permissions, above.permissions];
    return { path, created: 0, exact: after(parent) === undefined, audience };
  }
  return creation(path, now!, before);
}

function creation(path: string, node: Node, before: Lookup): Change {
  let created = 1;
  let top = parentOf(path);
  while (top !== '/' && before(top) === undefined) {
    created++;
    top = parentOf(top);
  }
  const above = before(top);
  const audience = above === undefined ? [node.permissions] : [node.permissions, above.permissions];
  return { path, created, exact: false, audience };
}
