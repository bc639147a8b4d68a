// What a console may have at most. Apart from devices/console.ts for those who check options and have no other use for
// the device: `grantio serve` starts with the fewest modules (cli/serve-call.ts).

/** So many ports have a pair of queues each, beside the pair for control, among the 64 that can be notified. */
export const MAX_CONSOLE_PORTS = 31;
/** Bytes of a port's name: it fits into any buffer that a driver will post for control messages. */
export const MAX_CONSOLE_NAME = 64;
