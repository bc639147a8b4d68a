// The load generator of `npm run bench:vhost`: a vhost-user-blk frontend that keeps requests under way on a
// backend's disk for a while, and says in JSON how many were done, how long they took and what they cost the
// backend.
//
//   load --make IMAGE --bytes N [--uncached]    makes an image with the pattern that reads are checked for
//   load --socket PATH [--write] [--sequential] [--size BYTES] [--depth N] [--rings N] [--interrupts]
//        [--seconds S | --requests N] [--warm-up S] [--backend PID] [--verify [--salt N]] [--idle S]
//
// It polls the used rings, or with --interrupts blocks until the backend signals, as a guest's processor
// sleeps until its interrupt. Of each read the first and the last word are checked, with --verify all;
// --verify --write writes the pattern of another --salt, for a later read to find. After frontend.h and
// histogram.h.

#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>

#include "frontend.h"
#include "histogram.h"

struct options {
  const char *make;
  bool uncached;
  const char *socket;
  uint64_t bytes;
  size_t size;
  unsigned depth;
  unsigned rings;
  unsigned salt;
  bool write;
  bool sequential;
  bool interrupts;
  bool verify;
  double seconds;
  double warm_up;
  double idle;
  uint64_t requests;
  int backend;
};

/** What was measured between the end of the warm-up and the end of the run. */
struct result {
  struct histogram latencies;
  uint64_t first_ns;
  uint64_t begin_ns;
  uint64_t end_ns;
  uint64_t kicks;
  uint64_t interrupts;
  uint64_t cpu_ns;
  /** Time that others had on the cores of this program and of the backend. */
  int64_t others_ns;
};

static struct options options = {
  .size = 4096, .depth = 1, .rings = 1, .seconds = 1, .warm_up = 0.2, .bytes = 256 << 20};
static struct frontend frontend;
static struct result result;
static uint64_t interrupts;
static uint64_t cursor;
static uint64_t seed = 0x9e3779b97f4a7c15;

/** The word that an image has at byte `offset`, a multiple of eight: no two places of a disk are alike. */
static uint64_t pattern(uint64_t offset, unsigned salt) {
  return (offset / 8 + ((uint64_t)salt << 40) + 1) * 0x9e3779b97f4a7c15;
}

static void fill(uint8_t *target, uint64_t offset, size_t size, unsigned salt) {
  uint64_t *words = (uint64_t *)target;
  for (size_t i = 0; i < size / 8; i++) words[i] = pattern(offset + i * 8, salt);
}

static void make_image(const char *path, uint64_t bytes) {
  FILE *file = fopen(path, "wb");
  if (file == NULL) fail(path);
  static uint64_t block[8192];
  for (uint64_t at = 0; at < bytes; at += sizeof block) {
    fill((uint8_t *)block, at, sizeof block, 0);
    if (fwrite(block, sizeof block, 1, file) != 1) fail(path);
  }
  if (fflush(file) != 0 || fsync(fileno(file)) != 0) fail(path);
  if (options.uncached) posix_fadvise(fileno(file), 0, 0, POSIX_FADV_DONTNEED);
  if (fclose(file) != 0) fail(path);
}

static void check(const struct slot *slot) {
  const uint64_t *words = (const uint64_t *)slot->data;
  size_t count = options.size / 8;
  size_t step = options.verify ? 1 : count - 1;
  for (size_t i = 0; i < count; i += step) {
    if (words[i] == pattern(slot->offset + i * 8, options.salt)) continue;
    fprintf(stderr, "the disk's byte %llu is wrong\n", (unsigned long long)(slot->offset + i * 8));
    exit(1);
  }
}

/** Where the next request goes: a multiple of its size, anywhere (xorshift64) or after the one before. */
static uint64_t next_offset(void) {
  uint64_t blocks = frontend.capacity / options.size;
  if (options.sequential) return cursor++ % blocks * options.size;
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed % blocks * options.size;
}

static void submit(struct ring *ring, struct slot *slot, uint64_t now) {
  slot->offset = next_offset();
  slot->submitted_ns = now;
  if (options.verify && options.write) fill(slot->data, slot->offset, options.size, options.salt);
  publish(&frontend, ring, slot, options.write, options.size);
}

static void complete(struct slot *slot, uint32_t written, uint64_t now) {
  errno = 0;
  if (*slot->status != VIRTIO_BLK_S_OK) fail("a request failed");
  uint32_t expected = options.write ? 1 : (uint32_t)options.size + 1;
  if (written != expected) fail("the backend says that it wrote another number of bytes");
  if (!options.write) check(slot);
  histogram_add(&result.latencies, now - slot->submitted_ns);
}

/** CPU time that the backend has used, all its threads together, also those that have ended. */
static uint64_t backend_cpu(void) {
  if (options.backend == 0) return 0;
  clockid_t clock;
  struct timespec time;
  if (clock_getcpuclockid(options.backend, &clock) != 0) fail("there is no such backend");
  if (clock_gettime(clock, &time) != 0) fail("the backend's CPU time");
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/** CPU time of this program. */
static uint64_t own_cpu(void) {
  struct timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/** The cores on which this program and the backend may run. */
static cpu_set_t cores(void) {
  cpu_set_t own;
  cpu_set_t backend;
  if (sched_getaffinity(0, sizeof own, &own) != 0) fail("sched_getaffinity");
  if (sched_getaffinity(options.backend, sizeof backend, &backend) != 0) fail("sched_getaffinity");
  CPU_OR(&own, &own, &backend);
  return own;
}

/** Time that those cores have been busy, or were taken by another virtual machine (proc(5), /proc/stat). */
static uint64_t cores_busy(void) {
  cpu_set_t set = cores();
  FILE *file = fopen("/proc/stat", "r");
  if (file == NULL) fail("/proc/stat");
  uint64_t ticks = 0;
  char line[512];
  while (fgets(line, sizeof line, file) != NULL) {
    unsigned cpu;
    unsigned long user, nice, system, idle, waiting, interrupt, soft, stolen;
    int count = sscanf(line, "cpu%u %lu %lu %lu %lu %lu %lu %lu %lu", &cpu, &user, &nice, &system, &idle,
                       &waiting, &interrupt, &soft, &stolen);
    if (count == 9 && CPU_ISSET(cpu, &set)) ticks += user + nice + system + interrupt + soft + stolen;
  }
  fclose(file);
  return ticks * (1000000000 / (uint64_t)sysconf(_SC_CLK_TCK));
}

/** Time that others have had on those cores, give or take what a clock tick is. */
static int64_t others_cpu(void) { return (int64_t)(cores_busy() - own_cpu() - backend_cpu()); }

static uint64_t all_kicks(void) {
  uint64_t kicks = 0;
  for (unsigned i = 0; i < options.rings; i++) kicks += frontend.rings[i].kicks;
  return kicks;
}

/** Forgets what was counted until now: the measurement begins. */
static void begin(uint64_t now) {
  uint64_t first = result.first_ns;
  result = (struct result){.first_ns = first,
                           .begin_ns = now,
                           .kicks = all_kicks(),
                           .interrupts = interrupts,
                           .cpu_ns = backend_cpu(),
                           .others_ns = others_cpu()};
}

static void end(uint64_t now) {
  result.end_ns = now;
  result.cpu_ns = backend_cpu() - result.cpu_ns;
  result.others_ns = others_cpu() - result.others_ns;
  result.kicks = all_kicks() - result.kicks;
  result.interrupts = interrupts - result.interrupts;
}

/** Blocks until the backend signals, unless something is finished already. */
static void wait_for_interrupt(void) {
  bool idle = true;
  for (unsigned i = 0; i < options.rings; i++) idle &= enable_interrupts(&frontend.rings[i]);
  if (idle) {
    // Some backends make the descriptor non-blocking, which a read alone would trip over.
    struct pollfd call = {.fd = frontend.call, .events = POLLIN};
    uint64_t count;
    if (poll(&call, 1, -1) < 0) fail("waiting for an interrupt");
    if (read(frontend.call, &count, sizeof count) < 0) fail("an interrupt");
    interrupts++;
  }
  for (unsigned i = 0; i < options.rings; i++) disable_interrupts(&frontend.rings[i]);
}

/** Takes what is finished and, with `again`, makes as many new requests. Returns how many were finished. */
static unsigned turn(struct ring *ring, bool again) {
  if (!has_used(ring)) return 0;
  uint64_t now = now_ns();
  unsigned count = 0;
  uint32_t written;
  for (struct slot *slot; (slot = take(ring, options.depth, &written)) != NULL; count++) {
    complete(slot, written, now);
    if (again) submit(ring, slot, now);
  }
  kick(ring);
  return count;
}

/** One turn of every ring, waiting in the way that was asked for when there was nothing. */
static unsigned turns(bool again) {
  unsigned count = 0;
  for (unsigned i = 0; i < options.rings; i++) count += turn(&frontend.rings[i], again);
  if (count > 0) return count;
  if (options.interrupts)
    wait_for_interrupt();
  else
    relax();
  return 0;
}

/** Waits for what is still under way after a run. */
static void drain(void) {
  for (unsigned under_way = options.depth * options.rings; under_way > 0;) under_way -= turns(false);
}

/** Keeps the rings full until the time is over or the wanted number of requests is done. */
static void run(void) {
  uint64_t started = now_ns();
  for (unsigned i = 0; i < options.rings; i++) {
    struct ring *ring = &frontend.rings[i];
    for (unsigned j = 0; j < options.depth; j++) submit(ring, &ring->slots[j], started);
    kick(ring);
  }
  while (turns(true) == 0);
  result.first_ns = now_ns();
  uint64_t warm = started + (uint64_t)(options.warm_up * 1e9);
  while (now_ns() < warm) turns(true);
  begin(now_ns());
  uint64_t limit = result.begin_ns + (uint64_t)(options.seconds * 1e9);
  while (now_ns() < limit) turns(true);
  end(now_ns());
}

/** Makes exactly the wanted number of requests. */
static void run_requests(void) {
  uint64_t made = 0;
  uint64_t done = 0;
  begin(now_ns());
  while (done < options.requests) {
    for (unsigned i = 0; i < options.rings; i++) {
      struct ring *ring = &frontend.rings[i];
      for (unsigned j = 0; j < options.depth && made < options.requests; j++) {
        if (ring->slots[j].under_way) continue;
        submit(ring, &ring->slots[j], now_ns());
        made++;
      }
      kick(ring);
    }
    unsigned count = turns(false);
    if (done == 0 && count > 0) result.first_ns = now_ns();
    done += count;
  }
  end(now_ns());
}

static void print_result(void) {
  double seconds = (double)(result.end_ns - result.begin_ns) / 1e9;
  double total = (double)result.latencies.total;
  printf("{\"requests\":%.0f,\"seconds\":%.6f,", total, seconds);
  printf("\"iops\":%.1f,\"us\":%.4f,", total / seconds, seconds * 1e6 / total);
  static const struct {
    const char *name;
    double share;
  } quantiles[] = {{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}};
  for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
    uint64_t value = histogram_quantile(&result.latencies, quantiles[i].share);
    printf("\"%s\":%.3f,", quantiles[i].name, (double)value / 1e3);
  }
  printf("\"cpu\":%.4f,\"kicks\":%.4f,", (double)result.cpu_ns / 1e3 / total, (double)result.kicks / total);
  printf("\"interrupts\":%.4f,", (double)result.interrupts / total);
  cpu_set_t set = cores();
  double others = (double)result.others_ns / 1e9 / seconds / CPU_COUNT(&set);
  printf("\"others\":%.4f,", others < 0 ? 0 : others);
  printf("\"firstNs\":%llu}\n", (unsigned long long)result.first_ns);
}

/** A backend that loses a request or an interrupt must not make the bench wait for ever. */
static void on_alarm(int signal) {
  (void)signal;
  static const char text[] = "the backend has stopped: a request or an interrupt is lost\n";
  (void)!write(STDERR_FILENO, text, sizeof text - 1);
  _exit(1);
}

static const struct option names[] = {
  {"make", required_argument, NULL, 'm'},
  {"bytes", required_argument, NULL, 'b'},
  {"uncached", no_argument, NULL, 'u'},
  {"socket", required_argument, NULL, 'S'},
  {"write", no_argument, NULL, 'w'},
  {"sequential", no_argument, NULL, 'q'},
  {"size", required_argument, NULL, 's'},
  {"depth", required_argument, NULL, 'd'},
  {"rings", required_argument, NULL, 'r'},
  {"interrupts", no_argument, NULL, 'i'},
  {"seconds", required_argument, NULL, 't'},
  {"requests", required_argument, NULL, 'n'},
  {"warm-up", required_argument, NULL, 'W'},
  {"backend", required_argument, NULL, 'B'},
  {"verify", no_argument, NULL, 'v'},
  {"salt", required_argument, NULL, 'a'},
  {"idle", required_argument, NULL, 'I'},
  {0},
};

static void read_options(int count, char **words) {
  for (int option; (option = getopt_long(count, words, "", names, NULL)) != -1;) {
    switch (option) {
      case 'm': options.make = optarg; break;
      case 'b': options.bytes = strtoull(optarg, NULL, 10); break;
      case 'u': options.uncached = true; break;
      case 'S': options.socket = optarg; break;
      case 'w': options.write = true; break;
      case 'q': options.sequential = true; break;
      case 's': options.size = strtoull(optarg, NULL, 10); break;
      case 'd': options.depth = (unsigned)atoi(optarg); break;
      case 'r': options.rings = (unsigned)atoi(optarg); break;
      case 'i': options.interrupts = true; break;
      case 't': options.seconds = atof(optarg); break;
      case 'n': options.requests = strtoull(optarg, NULL, 10); break;
      case 'W': options.warm_up = atof(optarg); break;
      case 'B': options.backend = atoi(optarg); break;
      case 'v': options.verify = true; break;
      case 'a': options.salt = (unsigned)atoi(optarg); break;
      case 'I': options.idle = atof(optarg); break;
      default: exit(2);
    }
  }
  errno = 0;
  if (options.make == NULL && options.socket == NULL) fail("load: --socket or --make is missing");
  if (options.size < SECTOR || options.size % SECTOR != 0) fail("load: --size is no multiple of 512");
  unsigned most = RING_SIZE / DESCRIPTORS_A_REQUEST;
  if (options.depth < 1 || options.depth > most) fail("load: --depth is not 1 to 42");
  if (options.rings < 1 || options.rings > MOST_RINGS) fail("load: --rings is not 1 to 16");
}

int main(int count, char **words) {
  read_options(count, words);
  if (options.make != NULL) {
    make_image(options.make, options.bytes);
    return 0;
  }
  frontend.depth = options.depth;
  frontend.ring_count = options.rings;
  frontend.socket = connect_to(options.socket, 10);
  signal(SIGALRM, on_alarm);
  alarm((unsigned)(options.requests > 0 ? 120 : options.warm_up + options.seconds + 20));
  start(&frontend, options.size);
  for (unsigned i = 0; i < options.rings; i++) disable_interrupts(&frontend.rings[i]);
  errno = 0;
  if (frontend.capacity < options.size) fail("the disk is smaller than a request");
  if (options.requests > 0)
    run_requests();
  else
    run();
  print_result();
  if (options.requests == 0) drain();
  if (options.idle > 0) {
    // A driver with nothing under way waits for nothing but its interrupt.
    fflush(stdout);
    alarm(0);
    for (unsigned i = 0; i < options.rings; i++) enable_interrupts(&frontend.rings[i]);
    usleep((useconds_t)(options.idle * 1e6));
  }
  stop(&frontend);
  return 0;
}
