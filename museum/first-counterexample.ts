// Loaded into every test process of a visit: a property that fails stops at its first counterexample. To look for
// the smallest one takes half a minute, and nobody reads it here.

import fc from 'fast-check';

fc.configureGlobal({ endOnFailure: true });
