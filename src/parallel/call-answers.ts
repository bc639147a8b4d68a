// Calls of the main thread to this one, answered. The other end is call-thread.ts.

import type { CallTable, FromThread, ToThread } from './calls.ts';

/** Does what the main thread asks for. Never rejects: what goes wrong is the answer. */
export async function answer(table: CallTable, call: ToThread): Promise<FromThread> {
  try {
    const value = await (table[call.name] as (argument: unknown) => unknown)(call.argument);
    return { kind: 'result', id: call.id, value };
  } catch (error) {
    const { name, message } = error instanceof Error ? error : new Error(`${error}`);
    return { kind: 'error', id: call.id, errorName: name, message };
  }
}
