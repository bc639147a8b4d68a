// What a guest does to measure its disks (requests.ts): each load on each disk in turn, round after round, timed by its
// own clock. What it says of them comes back from its console.

/** Rounds before those that count: a backend in JavaScript is slower until its code is compiled. */
const WARM_UP_ROUNDS = 2;
/** Rounds that count. */
const ROUNDS = 7;
/** A round goes on for at least so long: the guest's clock has steps of 1/100 s. */
const LEAST_CENTISECONDS = 100;
const KIB = 1024;

/** The size of every disk. */
export const DISK_SIZE = 64 * KIB * KIB;

/** What a guest does with a disk: requests of one kind and size, one after the other, past its page cache. */
interface Load {
  readonly name: string;
  readonly bytes: number;
  /** What dd reads and writes. */
  words(disk: string): string;
}

const reads = { words: (disk: string) => `if=/dev/${disk} of=/dev/null iflag=direct` };
const writes = { words: (disk: string) => `if=/dev/zero of=/dev/${disk} oflag=direct` };

/** All loads, in the order in which they run. */
export const LOADS: readonly Load[] = [
  { name: 'read 4 KiB', bytes: 4 * KIB, ...reads },
  { name: 'read 128 KiB', bytes: 128 * KIB, ...reads },
  { name: 'write 4 KiB', bytes: 4 * KIB, ...writes },
  { name: 'write 128 KiB', bytes: 128 * KIB, ...writes },
];

/**
 * The script for ../../test/xen/guest/init, without backslashes, which xenstore-write takes for its own. It waits until
 * it has all the disks. The first round finds out how many requests dd is to do at once.
 */
export function job(disks: readonly string[]): string {
  const commands = LOADS.flatMap(({ bytes, words }, load) =>
    disks.map((disk) => `measure ${load} ${disk} ${DISK_SIZE / bytes} ${words(disk)} bs=${bytes}`),
  );
  return `
step 'wait for ${disks.join(', ')}'
for disk in ${disks.join(' ')}; do until [ -b /dev/$disk ]; do usleep 100000; done; done
clock() { read -r seconds _ </proc/uptime; now=\${seconds%.*}\${seconds#*.}; }
measure() { # LOAD DISK MOST_REQUESTS DD_WORDS
  label="$1 $2"; name=count_$1_$2; most=$3; shift 3
  eval 'count=\${'$name':-4}'
  clock; from=$now; requests=0
  until [ $((now - from)) -ge ${LEAST_CENTISECONDS} ]; do
    dd "$@" count=$count status=none
    requests=$((requests + count)); clock
    [ $round -gt 1 ] || [ $count -ge $most ] || count=$((count * 2))
  done
  eval "$name=$count"
  [ $round -le ${WARM_UP_ROUNDS} ] || tell "took $label $((now - from)) $requests"
}
for round in $(seq ${WARM_UP_ROUNDS + ROUNDS}); do
step "round $round of ${WARM_UP_ROUNDS + ROUNDS}"
${commands.join('\n')}
done
`;
}

/** The time of a request in each round, in hundredths of a second, of a load (its place in LOADS) on a disk. */
export function timesOf(said: string, load: number, disk: string): number[] {
  const lines = said.matchAll(new RegExp(`^GRANTIO took ${load} ${disk} (\\d+) (\\d+)`, 'gm'));
  const times = [...lines].map(([, spent, count]) => Number(spent) / Number(count));
  if (times.length !== ROUNDS)
    throw new Error(`the guest told ${times.length} of ${ROUNDS} times of load ${load} on ${disk}`);
  return times;
}
