// Names of nodes: what a path may look like, where a relative one starts, and what lies above and below
// (docs/misc/xenstore.txt, introduction).

import { XENSTORE_ABS_PATH_MAX, XENSTORE_REL_PATH_MAX } from '../abi/xenstore.ts';

const PERMITTED = /^[A-Za-z0-9/_@-]+$/;

/** The two events that the store itself raises; their nodes carry permissions and nothing else. */
export const INTRODUCE_DOMAIN = '@introduceDomain';
export const RELEASE_DOMAIN = '@releaseDomain';

/** Whether `path` names an event of the store instead of a node in the tree. */
export function isSpecial(path: string): boolean {
  return path.startsWith('@');
}

/** Whether `path` is relative to its client's home. */
export function isRelative(path: string): boolean {
  return !path.startsWith('/') && !isSpecial(path);
}

/** Where a domain's relative paths start. */
export function homeOf(domain: number): string {
  return `/local/domain/${domain}`;
}

/** The absolute form of a client's path, or undefined if it is malformed or too long. */
export function resolvePath(path: string, home: string): string | undefined {
  if (!PERMITTED.test(path)) return undefined;
  const relative = isRelative(path);
  if (path.length > (relative ? XENSTORE_REL_PATH_MAX : XENSTORE_ABS_PATH_MAX)) return undefined;
  if (path === '/') return path;
  if (path.endsWith('/') || path.includes('//')) return undefined;
  return relative ? `${home}/${path}` : path;
}

/** The path one level up; `/` for `/a`, and for the special names, which have no parent of their own. */
export function parentOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash <= 0 ? '/' : path.slice(0, slash);
}

/** The last name of a path. */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** The path of a node's child. */
export function childOf(path: string, name: string): string {
  return path === '/' ? `/${name}` : `${path}/${name}`;
}

/** How many names `path` has; the root has none. Of two paths on one branch the longer is deeper. */
export function depthOf(path: string): number {
  if (path === '/') return 0;
  let depth = isSpecial(path) ? 1 : 0;
  for (let at = path.indexOf('/'); at !== -1; at = path.indexOf('/', at + 1)) depth++;
  return depth;
}
