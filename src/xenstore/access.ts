// The operations on nodes with their rules (paths, permissions, quotas), for one domain on one view:
// the same code serves the store itself and a transaction, the wire protocol and the local port.

import { XS_PERMISSION_ANY_DOMAIN } from '../abi/xenstore.ts';
import { type NodePermission, XenstoreError } from '../xen/xenstore.ts';
import { type Domain, type Domains, isOrdinaryDomain } from './domains.ts';
import { ChildNames, type Edits, type Node, removal, type View } from './node.ts';
import { isSpecial, nameOf, parentOf, resolvePath } from './paths.ts';
import { inherited, MAY_OWN, MAY_READ, MAY_WRITE, rightsOf, understand } from './permissions.ts';
import { exceeds } from './quotas.ts';

const NO_BYTES = new Uint8Array(0);

/** What `domain` may do with the nodes of `view`. What throws a XenstoreError has changed nothing. */
export class NodeAccess {
  readonly #domains: Domains;
  readonly #domain: Domain;
  readonly #view: View;

  constructor(domains: Domains, domain: Domain, view: View) {
    this.#domains = domains;
    this.#domain = domain;
    this.#view = view;
  }

  /** The node that `path` names, to read its value or its children. */
  read(path: string): Node {
    return this.#permitted('read', path, this.#resolve('read', path), MAY_READ);
  }

  /** The node that `path` names, to read its permissions; the special names have some too. */
  permissions(path: string): Node {
    const operation = 'get permissions of';
    return this.#permitted(operation, path, this.#resolve(operation, path, true), MAY_READ);
  }

  /** Sets the value; keeps `value` itself, so it must never change. */
  write(path: string, value: Uint8Array): void {
    const full = this.#resolve('write', path);
    if (exceeds(this.#domain, 'node-size', value.length)) throw new XenstoreError('ENOSPC', 'write', path);
    const node = this.#view.get(full);
    if (node === undefined) this.#create('write', path, full, value);
    else {
      this.#demand('write', path, node, MAY_WRITE);
      this.#replace(full, { ...node, value, generation: this.#view.nextGeneration() });
    }
  }

  /** Makes the node if it is not there. */
  makeDirectory(path: string): void {
    const full = this.#resolve('make', path);
    const node = this.#view.get(full);
    if (node === undefined) this.#create('make', path, full, NO_BYTES);
    else this.#demand('make', path, node, MAY_WRITE);
  }

  /** Removes the node with all below it; only the node itself is asked for permission. */
  remove(path: string): void {
    const full = this.#resolve('remove', path);
    const node = this.#view.get(full);
    if (node === undefined) {
      const refusal = this.#missing('remove', path, full, MAY_WRITE);
      if (refusal.code === 'ENOENT' && this.#view.get(parentOf(full)) !== undefined) return;
      throw refusal;
    }
    this.#demand('remove', path, node, MAY_WRITE);
    if (full === '/') throw new XenstoreError('EINVAL', 'remove', path);
    const { edits, removed } = removal(this.#view, full);
    this.#view.apply(this.#domain, edits, removed);
  }

  /** Replaces the permission list; the special names' too. */
  setPermissions(path: string, description: readonly NodePermission[]): void {
    const operation = 'set permissions of';
    const full = this.#resolve(operation, path, true);
    const possible = ({ domain }: NodePermission) =>
      isOrdinaryDomain(domain) || domain === XS_PERMISSION_ANY_DOMAIN;
    if (description.length === 0 || !description.every(possible))
      throw new XenstoreError('EINVAL', operation, path);
    if (exceeds(this.#domain, 'permissions', description.length))
      throw new XenstoreError('ENOSPC', operation, path);
    const node = this.#permitted(operation, path, full, MAY_WRITE | MAY_OWN);
    if (!this.#domain.privileged && description[0]?.domain !== node.permissions[0].domain.id)
      throw new XenstoreError('EPERM', operation, path);
    const permissions = understand(description, this.#domains, this.#domain);
    if (permissions === undefined) throw new XenstoreError('EINVAL', operation, path);
    this.#replace(full, { ...node, permissions, generation: this.#view.nextGeneration() });
  }

  #resolve(operation: string, path: string, special = false): string {
    const full = resolvePath(path, this.#domain.home);
    if (full === undefined || (isSpecial(full) && !special))
      throw new XenstoreError('EINVAL', operation, path);
    return full;
  }

  /** The node, if the domain has all the `rights` to it. */
  #permitted(operation: string, path: string, full: string, rights: number): Node {
    const node = this.#view.get(full);
    if (node === undefined) throw this.#missing(operation, path, full, rights);
    this.#demand(operation, path, node, rights);
    return node;
  }

  #demand(operation: string, path: string, node: Node, rights: number): void {
    if ((rightsOf(this.#domain, node.permissions) & rights) !== rights)
      throw new XenstoreError('EACCES', operation, path);
  }

  /** The refusal for a missing node; that it is missing is told only if its nearest ancestor lets know. */
  #missing(operation: string, path: string, full: string, rights: number): XenstoreError {
    const known =
      this.#domain.privileged || (rightsOf(this.#domain, this.#ancestor(full).permissions) & rights) !== 0;
    return new XenstoreError(known ? 'ENOENT' : 'EACCES', operation, path);
  }

  /** The nearest node above a path; the root is always there. */
  #ancestor(full: string): Node {
    for (let path = parentOf(full); ; path = parentOf(path)) {
      const node = this.#view.get(path);
      if (node !== undefined) return node;
    }
  }

  #replace(full: string, node: Node): void {
    this.#view.apply(this.#domain, new Map([[full, node]]), [full]);
  }

  /** Makes the node and what is missing above it, all with the permissions of the nearest node above. */
  #create(operation: string, path: string, full: string, value: Uint8Array): void {
    const missing = [full];
    let top = parentOf(full);
    let ancestor = this.#view.get(top);
    while (ancestor === undefined) {
      missing.push(top);
      top = parentOf(top);
      ancestor = this.#view.get(top);
    }
    this.#demand(operation, path, ancestor, MAY_WRITE);
    this.#view.apply(this.#domain, this.#chain(missing, value, top, ancestor), [full]);
  }

  /** The edits that make the `missing` nodes, deepest first, below `ancestor` at `top`. */
  #chain(missing: readonly string[], value: Uint8Array, top: string, ancestor: Node): Edits {
    const edits = new Map<string, Node | undefined>();
    const permissions = inherited(ancestor.permissions, this.#domain);
    let children = ChildNames.none;
    let bytes = value;
    for (const each of missing) {
      edits.set(each, { value: bytes, permissions, children, generation: this.#view.nextGeneration() });
      children = ChildNames.none.with(nameOf(each));
      bytes = NO_BYTES;
    }
    const name = nameOf(missing[missing.length - 1]!);
    edits.set(top, {
      ...ancestor,
      children: ancestor.children.with(name),
      generation: this.#view.nextGeneration(),
    });
    return edits;
  }
}
