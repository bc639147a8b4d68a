// Ctrl-C and SIGTERM: the first one ends the work in order, a second one ends the process.

/** What has happened so far. */
export interface Interruption {
  /** The signal that came, if one has. */
  readonly signal: NodeJS.Signals | undefined;
  /** Calls `action` when a signal comes, or at once when one has. */
  onSignal(action: () => void): void;
  /** Stops listening. */
  release(): void;
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Starts listening. `does` says what the first signal makes happen. */
export function onInterrupt(does = 'stopping the queues and revoking all grants'): Interruption {
  const actions: (() => void)[] = [];
  let came: NodeJS.Signals | undefined;
  const handler = (signal: NodeJS.Signals) => {
    if (came !== undefined) process.exit(1);
    came = signal;
    process.stderr.write(`\ngrantio: ${signal}: ${does} (again: end at once)\n`);
    for (const action of actions) action();
  };
  for (const signal of SIGNALS) process.on(signal, handler);
  return {
    get signal() {
      return came;
    },
    onSignal(action) {
      if (came) action();
      else actions.push(action);
    },
    release() {
      for (const signal of SIGNALS) process.off(signal, handler);
    },
  };
}
