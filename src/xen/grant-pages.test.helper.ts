// Lists of granted pages for tests.

import { GrantPages } from './grant-mapper.ts';

/** A list of these references. */
export function grantPages(...refs: number[]): GrantPages {
  const pages = new GrantPages();
  for (const ref of refs) pages.add(ref);
  return pages;
}
