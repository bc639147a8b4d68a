// Grant table hypercalls as a kernel makes them, and entries as a kernel writes them: for guests that only know
// the ABI, and do with it what they like.

import { GTF_PERMIT_ACCESS, GTF_SUB_PAGE, GTF_TRANSITIVE } from '../../src/abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import { TEST_PAGES, type TestDomain } from '../../src/hosts/model/domains.test.helper.ts';
import { headerWord, statusWord } from '../../src/hosts/model/grants/shared-entry.ts';

/** Where a domain puts its arguments, and the lists that they point to: its last two pages. */
const ARGUMENTS = (TEST_PAGES - 1) * XEN_PAGE_SIZE;
export const LIST = (TEST_PAGES - 2) * XEN_PAGE_SIZE;

/** A structure that an operation takes. */
interface Argument<Values> {
  readonly size: number;
  make(values: Partial<Values>): { readonly bytes: Uint8Array };
  over(bytes: Uint8Array): Values;
}

/** Makes a hypercall on a batch of arguments. Returns its result, and what Xen has made of the arguments. */
export function hypercall<Values>(
  { ports }: TestDomain,
  command: number,
  type: Argument<Values>,
  ...batch: readonly Partial<Values>[]
): { result: number; done: Values[] } {
  for (const [index, values] of batch.entries())
    ports.addressSpace.write(ARGUMENTS + index * type.size, type.make(values).bytes);
  const result = ports.grantTableOp(command, ARGUMENTS, batch.length);
  const done = batch.map((_, index) =>
    type.over(ports.addressSpace.read(ARGUMENTS + index * type.size, type.size)),
  );
  return { result, done };
}

/** Entries of a domain's table of version 2, and what Xen says of them. */
export function entriesV2({ record, xen }: TestDomain) {
  const words = new Int32Array(xen.state.memory);
  const statuses = new Uint16Array(xen.state.memory);
  const write = (ref: number, header: number, ...rest: number[]) => {
    const word = headerWord(record, ref, 2);
    for (let index = 0; index < 3; index++) words[word + 1 + index] = rest[index] ?? 0;
    words[word] = header;
  };
  return {
    page: (ref: number, peer: number, frame: number) =>
      write(ref, GTF_PERMIT_ACCESS | (peer << 16), 0, frame),
    part: (ref: number, peer: number, frame: number, offset: number, length: number) =>
      write(ref, GTF_PERMIT_ACCESS | GTF_SUB_PAGE | (peer << 16), offset | (length << 16), frame),
    passOn: (ref: number, peer: number, from: number, fromRef: number) =>
      write(ref, GTF_TRANSITIVE | (peer << 16), from, fromRef),
    status: (ref: number) => statuses[statusWord(record, ref)],
  };
}
