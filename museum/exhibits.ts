// Everything that the museum shows, in the order in which it is printed.

import type { Exhibit } from './exhibit.ts';
import { EVENTS } from './exhibits/events.ts';
import { FRONTEND } from './exhibits/frontend.ts';
import { GRANTS } from './exhibits/grants.ts';
import { RINGS } from './exhibits/rings.ts';
import { STORAGE } from './exhibits/storage.ts';
import { XENSTORE } from './exhibits/xenstore.ts';

export const EXHIBITS: readonly Exhibit[] = [
  ...FRONTEND,
  ...RINGS,
  ...GRANTS,
  ...EVENTS,
  ...XENSTORE,
  ...STORAGE,
];
