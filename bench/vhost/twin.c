// The same design as our backend, in C: what the machine allows, for `npm run bench:vhost` to compare us
// with.
//
//   twin --socket PATH --disk IMAGE [--direct] [--io-uring] [--poll-us N]
//
// A vhost-user-blk backend with one thread: it polls the rings for a while, asks to be notified, looks once
// more and only then blocks in epoll. Data go straight between image and guest memory, by preadv and pwritev,
// or through io_uring. It serves one frontend at a time and is made for measuring: a frontend that breaks a
// rule loses its connection, but one that truncates its memory ends the program. After twin-ring.h and
// twin-uring.h.

#include <fcntl.h>
#include <getopt.h>
#include <linux/fs.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "twin-uring.h"

#define FEATURES \
  (F_VERSION_1 | F_EVENT_IDX | F_PROTOCOL_FEATURES | 1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_MQ)
#define PROTOCOL_FEATURES (PROTOCOL_MQ | PROTOCOL_REPLY_ACK | PROTOCOL_CONFIG)

/** Tokens of epoll beside the rings' indices. */
enum { LISTENER = 1000, CONNECTION, URING };

static struct {
  const char *socket;
  const char *disk;
  bool direct;
  bool io_uring;
  uint64_t poll_ns;
} options = {.poll_ns = 50000};

static int image;
static uint64_t capacity;
static int epoll;
static int connection = -1;
static struct memory memory;
static struct ring rings[MOST_RINGS];
static struct uring uring;

static void watch(int fd, unsigned token) {
  struct epoll_event event = {.events = EPOLLIN, .data.u32 = token};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
}

static void forget(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

// The disk.

static void finish(struct chain *chain, long result) {
  bool done = result == (long)chain->length;
  uint32_t data = done && !chain->write ? chain->length : 0;
  complete(chain, done ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR, data + 1);
}

static void transfer(struct chain *chain) {
  bool inside = chain->offset <= capacity && chain->length <= capacity - chain->offset;
  if (!inside || chain->length % 512 != 0 || chain->length == 0) {
    finish(chain, -1);
  } else if (options.io_uring) {
    uring_add(&uring, image, chain);
  } else {
    int count = (int)chain->count;
    off_t offset = (off_t)chain->offset;
    const struct iovec *data = &chain->vectors[1];
    finish(chain, chain->write ? pwritev(image, data, count, offset) : preadv(image, data, count, offset));
  }
}

static void handle(struct chain *chain, uint32_t type) {
  if (type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_OUT)
    transfer(chain);
  else if (type == VIRTIO_BLK_T_FLUSH)
    complete(chain, fdatasync(image) == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR, 1);
  else
    complete(chain, VIRTIO_BLK_S_UNSUPP, 1);
}

static bool reap(void) {
  int result;
  struct chain *chain = uring_reap(&uring, &result);
  bool any = chain != NULL;
  for (; chain != NULL; chain = uring_reap(&uring, &result)) finish(chain, result);
  return any;
}

// The frontend.

/** Waits until nothing is under way in `ring`, whose chains point into guest memory. */
static void drain(struct ring *ring) {
  while (ring->in_flight > 0) {
    if (!reap()) syscall(__NR_io_uring_enter, uring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
  }
}

static void stop_ring(struct ring *ring) {
  drain(ring);
  // The frontend has the eventfd too: closing our descriptor alone would not take it out of epoll.
  if (ring->kick >= 0) epoll_ctl(epoll, EPOLL_CTL_DEL, ring->kick, NULL);
  forget(&ring->kick);
}

/** Stops the rings, which point into it, and lets the guest's memory go. */
static void unmap_memory(void) {
  for (unsigned i = 0; i < MOST_RINGS; i++) {
    stop_ring(&rings[i]);
    rings[i].vring.desc = NULL;
  }
  for (unsigned i = 0; i < memory.count; i++)
    munmap(memory.mappings[i].mapped, memory.mappings[i].mapped_size);
  memory.count = 0;
}

static void disconnect(void) {
  unmap_memory();
  for (unsigned i = 0; i < MOST_RINGS; i++) {
    forget(&rings[i].call);
    rings[i].enabled = false;
  }
  forget(&connection);
}

static bool map_memory(const struct message *message, const int *fds) {
  unmap_memory();
  if (message->memory.count > MOST_REGIONS) return false;
  for (unsigned i = 0; i < message->memory.count; i++) {
    struct region region = message->memory.regions[i];
    struct stat file;
    if (fds[i] < 0 || fstat(fds[i], &file) != 0) return false;
    uint64_t end = region.file_offset + region.size;
    if (end < region.size || end > (uint64_t)file.st_size) return false;
    void *mapped = mmap(NULL, end, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
    if (mapped == MAP_FAILED) return false;
    memory.mappings[memory.count++] =
      (struct mapping){region, (uint8_t *)mapped + region.file_offset, mapped, end};
  }
  return true;
}

static bool place_ring(struct ring *ring, struct vhost_vring_addr places) {
  unsigned num = ring->vring.num;
  uint8_t *desc = user_bytes(&memory, places.desc_user_addr, num * sizeof(struct vring_desc));
  uint8_t *avail = user_bytes(&memory, places.avail_user_addr, 6 + num * sizeof(uint16_t));
  uint8_t *used = user_bytes(&memory, places.used_user_addr, 6 + num * sizeof(struct vring_used_elem));
  if (num == 0 || desc == NULL || avail == NULL || used == NULL) return false;
  ring->vring.desc = (struct vring_desc *)desc;
  ring->vring.avail = (struct vring_avail *)avail;
  ring->vring.used = (struct vring_used *)used;
  return true;
}

static bool start_ring(struct ring *ring, int fd) {
  stop_ring(ring);
  if (fd < 0 || ring->vring.desc == NULL) return false;
  ring->used = __atomic_load_n(&ring->vring.used->idx, __ATOMIC_RELAXED);
  ring->signalled = ring->used;
  memset(ring->chains, 0, sizeof ring->chains);
  disarm(ring);
  ring->kick = fd;
  watch(fd, (unsigned)(ring - rings));
  return true;
}

/** Applies a request of one ring. `fd`, if used, is taken over. */
static bool apply_to_ring(const struct message *message, int *fd) {
  unsigned index = message->state.index & VRING_INDEX_MASK;
  if (index >= MOST_RINGS) return false;
  struct ring *ring = &rings[index];
  unsigned number = message->state.num;
  switch (message->request) {
    case SET_VRING_NUM:
      if (ring->kick >= 0 || number == 0 || number > RING_MOST || (number & (number - 1)) != 0) return false;
      ring->vring.num = number;
      // The addresses were checked for another size.
      ring->vring.desc = NULL;
      return true;
    case SET_VRING_ADDR:
      return ring->kick < 0 && place_ring(ring, message->places);
    case SET_VRING_BASE:
      if (ring->kick >= 0) return false;
      ring->available = (uint16_t)number;
      return true;
    case SET_VRING_CALL:
      forget(&ring->call);
      ring->call = *fd;
      *fd = -1;
      return true;
    case SET_VRING_KICK:
      if (!start_ring(ring, *fd)) return false;
      *fd = -1;
      return true;
    case SET_VRING_ENABLE:
      ring->enabled = number != 0;
      return true;
    case SET_VRING_ERR:
      return true;
    default:
      return false;
  }
}

/** Fills the answer in to a request that has one of its own. Returns whether this is such a request. */
static bool answer(struct message *message) {
  message->size = sizeof message->number;
  switch (message->request) {
    case GET_FEATURES:
      message->number = FEATURES;
      return true;
    case GET_PROTOCOL_FEATURES:
      message->number = PROTOCOL_FEATURES;
      return true;
    case GET_QUEUE_NUM:
      message->number = MOST_RINGS;
      return true;
    case GET_VRING_BASE:
      if (message->state.index >= MOST_RINGS) return false;
      stop_ring(&rings[message->state.index]);
      message->state.num = rings[message->state.index].available;
      return true;
    case GET_CONFIG: {
      struct virtio_blk_config config = {.capacity = capacity / 512, .num_queues = MOST_RINGS};
      uint64_t end = (uint64_t)message->config.offset + message->config.size;
      if (end > sizeof config) return false;
      memcpy(message->config.bytes, (uint8_t *)&config + message->config.offset, message->config.size);
      message->size = (uint32_t)CONFIG_HEADER + message->config.size;
      return true;
    }
    default:
      return false;
  }
}

static bool apply(const struct message *message, int *fds) {
  switch (message->request) {
    case SET_OWNER:
    case SET_PROTOCOL_FEATURES:
      return true;
    case SET_FEATURES:
      for (unsigned i = 0; i < MOST_RINGS; i++) rings[i].event_index = (message->number & F_EVENT_IDX) != 0;
      return (message->number & ~FEATURES) == 0;
    case SET_MEM_TABLE:
      return map_memory(message, fds);
    default:
      return apply_to_ring(message, &fds[0]);
  }
}

/** Serves one message. Returns false when the connection is to end. */
static bool serve_message(void) {
  struct message message = {0};
  int fds[MOST_REGIONS];
  if (!receive_message(connection, &message, fds)) return false;
  uint32_t wanted = message.flags & NEED_REPLY;
  uint32_t size = message.size;
  bool answered = answer(&message);
  if (!answered) message.size = size;
  bool good = answered || apply(&message, fds);
  for (int i = 0; i < MOST_REGIONS; i++) forget(&fds[i]);
  if (!answered && !wanted) return good;
  message.flags = VERSION | REPLY;
  if (!answered) {
    message.size = sizeof message.number;
    message.number = good ? 0 : 1;
  }
  return send_message(connection, &message, NULL, 0) && good;
}

// The loop.

/** Serves what the driver has made available. Returns whether there was anything. */
static bool serve_ring(struct ring *ring) {
  struct chain *chain;
  uint32_t type;
  enum taken taken;
  bool any = false;
  // One round of the ring at most: others come next.
  for (unsigned i = 0; i < ring->vring.num; i++) {
    taken = take(ring, &memory, &chain, &type);
    if (taken == NOTHING) return any;
    if (taken == BROKEN) {
      fprintf(stderr, "twin: the driver broke a rule of the ring\n");
      disconnect();
      return true;
    }
    any = true;
    handle(chain, type);
  }
  return any;
}

static bool runs(const struct ring *ring) { return ring->kick >= 0 && ring->enabled; }

static bool serve_rings(void) {
  bool any = false;
  for (unsigned i = 0; i < MOST_RINGS; i++) any |= runs(&rings[i]) && serve_ring(&rings[i]);
  if (!options.io_uring) return any;
  uring_submit(&uring);
  return reap() || any;
}

/** Asks to be notified for all rings. Returns false when one has something already. */
static bool arm_rings(void) {
  bool quiet = true;
  for (unsigned i = 0; i < MOST_RINGS; i++) quiet &= !runs(&rings[i]) || arm(&rings[i]);
  return quiet;
}

static void on_event(unsigned token, int listener) {
  if (token == LISTENER) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection >= 0) {
      close(fd);
    } else if (fd >= 0) {
      connection = fd;
      watch(fd, CONNECTION);
    }
  } else if (token == CONNECTION) {
    if (!serve_message()) disconnect();
  } else if (token < MOST_RINGS && rings[token].kick >= 0) {
    uint64_t count;
    if (read(rings[token].kick, &count, sizeof count) > 0) disarm(&rings[token]);
  }
}

static void wait_for_events(int listener) {
  struct epoll_event events[16];
  // io_uring interrupts the wait to post completions (EINTR); they are found in its ring.
  int count = epoll_wait(epoll, events, 16, -1);
  for (int i = 0; i < count; i++) on_event(events[i].data.u32, listener);
}

__attribute__((noreturn)) static void serve(int listener) {
  uint64_t busy_ns = 0;
  for (;;) {
    if (serve_rings()) {
      // A clock is read when there is nothing to do, not after each request.
      busy_ns = 0;
      continue;
    }
    if (busy_ns == 0) busy_ns = now_ns();
    if (options.poll_ns > 0 && now_ns() - busy_ns < options.poll_ns) {
      relax();
    } else if (arm_rings()) {
      wait_for_events(listener);
      busy_ns = 0;
    }
  }
}

static int listen_at(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) fail("the socket's path is too long");
  strcpy(address.sun_path, path);
  unlink(path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 8) != 0) fail(path);
  return fd;
}

static void read_options(int count, char **words) {
  static const struct option names[] = {
    {"socket", required_argument, NULL, 's'}, {"disk", required_argument, NULL, 'd'},
    {"direct", no_argument, NULL, 'D'},       {"io-uring", no_argument, NULL, 'u'},
    {"poll-us", required_argument, NULL, 'p'}, {0}};
  for (int option; (option = getopt_long(count, words, "", names, NULL)) != -1;) {
    switch (option) {
      case 's': options.socket = optarg; break;
      case 'd': options.disk = optarg; break;
      case 'D': options.direct = true; break;
      case 'u': options.io_uring = true; break;
      case 'p': options.poll_ns = strtoull(optarg, NULL, 10) * 1000; break;
      default: exit(2);
    }
  }
  errno = 0;
  if (options.socket == NULL || options.disk == NULL) fail("twin: --socket or --disk is missing");
}

int main(int count, char **words) {
  read_options(count, words);
  image = open(options.disk, O_RDWR | O_CLOEXEC | (options.direct ? O_DIRECT : 0));
  struct stat file;
  if (image < 0 || fstat(image, &file) != 0) fail(options.disk);
  capacity = (uint64_t)file.st_size / 512 * 512;
  for (unsigned i = 0; i < MOST_RINGS; i++) {
    rings[i].kick = -1;
    rings[i].call = -1;
  }
  epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) fail("epoll_create1");
  int listener = listen_at(options.socket);
  watch(listener, LISTENER);
  if (options.io_uring) {
    uring_open(&uring);
    watch(uring.fd, URING);
  }
  serve(listener);
}
