// The grant table hypercall as a guest's kernel makes it: arguments in its own memory, and what it finds there after.

import type { ByteView } from '../../../abi/struct.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { TestDomain } from '../domains.test.helper.ts';
import { GuestCopy } from '../guest-copy.ts';
import { Machine } from '../state.ts';
import { type GrantTableCaller, grantTableOp } from './hypercall.ts';

/** Address at which a test's kernel has its arguments: sixteen pages of the test domain's memory, from page 40. */
export const ARGUMENTS = 40 * XEN_PAGE_SIZE;
/** What a status is before Xen sets it; no status of Xen's. */
export const UNSET = 0x7777;

/** A struct of the ABI, as far as batches of it go. */
interface Layout<R> {
  readonly name: string;
  readonly size: number;
  over(view: ByteView): R & { at(offset: number): unknown };
  make(values?: Partial<R>): { readonly bytes: Uint8Array };
}

/** Writes a batch into a domain's memory. */
export function putArguments<R>(
  { ports }: TestDomain,
  layout: Layout<R>,
  elements: readonly Partial<R>[],
  at = ARGUMENTS,
): void {
  for (const [index, element] of elements.entries())
    ports.addressSpace.write(at + index * layout.size, layout.make(element).bytes);
}

/** Reads a batch back. */
export function getArguments<R>(
  { ports }: TestDomain,
  layout: Layout<R>,
  count: number,
  at = ARGUMENTS,
): R[] {
  return Array.from({ length: count }, (_, index) =>
    layout.over(ports.addressSpace.read(at + index * layout.size, layout.size)),
  );
}

/** Carries out a batch. Returns what the hypercall answers, and the elements as Xen has left them. */
export function call<R>(
  domain: TestDomain,
  command: number,
  layout: Layout<R>,
  elements: readonly Partial<R>[],
  count = elements.length,
): { readonly result: number; readonly elements: R[] } {
  putArguments(domain, layout, elements);
  const result = domain.ports.grantTableOp(command, ARGUMENTS, count);
  return { result, elements: getArguments(domain, layout, elements.length) };
}

/** One element, which must be answered with 0. Returns it as Xen has left it. */
export function callOne<R>(domain: TestDomain, command: number, layout: Layout<R>, element: Partial<R>): R {
  const { result, elements } = call(domain, command, layout, [element]);
  if (result !== 0) throw new Error(`${layout.name}: expected 0, got ${result}`);
  return elements[0];
}

/** The same hypercall with the parts of Xen that a test puts in place of others. */
export function callWith(
  domain: TestDomain,
  parts: Partial<GrantTableCaller>,
  command: number,
  count: number,
  at = ARGUMENTS,
): number {
  const { xen, ports } = domain;
  const caller: GrantTableCaller = {
    machine: new Machine(xen.state),
    domains: xen.domains,
    mapping: xen.grants,
    copying: xen.copies,
    domain: xen.domain(domain.id),
    memory: new GuestCopy(ports.addressSpace),
    vcpu: 0,
    pause: () => undefined,
    ...parts,
  };
  return grantTableOp(caller, command, at, count);
}
