// A vhost-user-blk frontend: connects to a backend, shares memory with it, starts its rings, and puts
// requests on them as Linux's virtio_blk does: three descriptors each, publish, kick if the backend asks for
// it. Between protocol.h and load.c.

#ifndef FRONTEND_H
#define FRONTEND_H

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/un.h>

#include "protocol.h"

#define SECTOR 512
#define PAGE 4096
#define RING_SIZE 128
#define DESCRIPTORS_A_REQUEST 3
/** Where the shared memory lies for the guest: neither its place in the file nor that in this process. */
#define GUEST_BASE (1ull << 32)

/** A request's place in shared memory. */
struct slot {
  struct virtio_blk_outhdr *header;
  uint8_t *status;
  uint8_t *data;
  /** Byte on the disk of the request that is under way. */
  uint64_t offset;
  uint64_t submitted_ns;
  bool under_way;
};

struct ring {
  struct vring vring;
  int kick;
  bool event_index;
  uint16_t available;
  /** The available index when the backend was last asked whether it wants a kick. */
  uint16_t announced;
  uint16_t used;
  uint64_t kicks;
  struct slot slots[RING_SIZE / DESCRIPTORS_A_REQUEST];
};

struct frontend {
  int socket;
  /** One for all rings: this program waits for any of them. */
  int call;
  bool acknowledged;
  /** Bytes of the disk. */
  uint64_t capacity;
  uint8_t *memory;
  size_t memory_size;
  unsigned depth;
  unsigned ring_count;
  struct ring rings[MOST_RINGS];
};

/** Connects to the socket at `path`, for which it waits up to `seconds`: the backend may only be starting. */
static int connect_to(const char *path, double seconds) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) fail("the socket's path is too long");
  strcpy(address.sun_path, path);
  uint64_t limit = now_ns() + (uint64_t)(seconds * 1e9);
  for (;;) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    if ((errno != ENOENT && errno != ECONNREFUSED) || now_ns() > limit) fail(path);
    close(fd);
    usleep(200);
  }
}

/** Sends a request that has no answer of its own, and waits until the backend says that it is done. */
static void tell(struct frontend *frontend, struct message *message, size_t size, int fd) {
  message->flags = VERSION | (frontend->acknowledged ? NEED_REPLY : 0);
  message->size = (uint32_t)size;
  if (!send_message(frontend->socket, message, &fd, fd >= 0 ? 1 : 0)) fail("the backend has gone away");
  if (!frontend->acknowledged) return;
  struct message reply;
  int fds[MOST_REGIONS];
  uint32_t request = message->request;
  bool answered = receive_message(frontend->socket, &reply, fds);
  errno = 0;
  if (answered && reply.request == request && reply.size == sizeof reply.number && reply.number == 0) return;
  fprintf(stderr, "request %u: ", request);
  fail(answered ? "the backend refused it" : "the backend closed the connection");
}

static void tell_number(struct frontend *frontend, enum request request, uint64_t number, int fd) {
  struct message message = {.request = request, .number = number};
  tell(frontend, &message, sizeof number, fd);
}

static void tell_state(struct frontend *frontend, enum request request, unsigned index, unsigned number) {
  struct message message = {.request = request, .state = {.index = index, .num = number}};
  tell(frontend, &message, sizeof message.state, -1);
}

/** Sends a request that has an answer, which replaces it. */
static void ask(struct frontend *frontend, struct message *message, size_t size) {
  message->flags = VERSION;
  message->size = (uint32_t)size;
  uint32_t request = message->request;
  int fds[MOST_REGIONS];
  if (!send_message(frontend->socket, message, NULL, 0)) fail("the backend has gone away");
  if (!receive_message(frontend->socket, message, fds)) fail("the backend closed the connection");
  errno = 0;
  if (message->request != request || !(message->flags & REPLY)) fail("an answer to something else");
}

static uint64_t ask_number(struct frontend *frontend, enum request request) {
  struct message message = {.request = request};
  ask(frontend, &message, 0);
  return message.number;
}

/** Agrees on features. Returns those of the rings. */
static uint64_t negotiate(struct frontend *frontend) {
  tell(frontend, &(struct message){.request = SET_OWNER}, 0, -1);
  uint64_t offered = ask_number(frontend, GET_FEATURES);
  errno = 0;
  if (!(offered & F_VERSION_1)) fail("the backend does not offer VIRTIO_F_VERSION_1");
  if (!(offered & F_PROTOCOL_FEATURES)) fail("the backend has no configuration space to ask for");
  uint64_t protocol = ask_number(frontend, GET_PROTOCOL_FEATURES);
  uint64_t wanted = PROTOCOL_MQ | PROTOCOL_REPLY_ACK | PROTOCOL_CONFIG;
  tell_number(frontend, SET_PROTOCOL_FEATURES, protocol & wanted, -1);
  frontend->acknowledged = (protocol & PROTOCOL_REPLY_ACK) != 0;
  uint64_t most = protocol & PROTOCOL_MQ ? ask_number(frontend, GET_QUEUE_NUM) : 1;
  errno = 0;
  if (frontend->ring_count > most) fail("the backend has fewer queues");
  uint64_t flush = 1ull << VIRTIO_BLK_F_FLUSH;
  uint64_t features = offered & (F_VERSION_1 | F_EVENT_IDX | F_PROTOCOL_FEATURES | flush);
  tell_number(frontend, SET_FEATURES, features, -1);
  // The disk's size comes first in the configuration space.
  uint64_t sectors;
  struct message message = {.request = GET_CONFIG, .config = {.size = sizeof sectors}};
  ask(frontend, &message, CONFIG_HEADER + sizeof sectors);
  errno = 0;
  if (message.size == 0) fail("the backend does not give its configuration space");
  memcpy(&sectors, message.config.bytes, sizeof sectors);
  frontend->capacity = sectors * SECTOR;
  return features;
}

static size_t round_up(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }

/** Makes the shared memory, which can no longer change its size (sealed), and tells the backend of it. */
static void share_memory(struct frontend *frontend, size_t size) {
  int fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0 || ftruncate(fd, (off_t)size) != 0) fail("memory to share");
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) fail("sealing memory");
  frontend->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  frontend->memory_size = size;
  if (frontend->memory == MAP_FAILED) fail("memory to share");
  struct message message = {.request = SET_MEM_TABLE};
  message.memory.count = 1;
  message.memory.regions[0] = (struct region){
    .guest_address = GUEST_BASE, .size = size, .user_address = (uint64_t)(uintptr_t)frontend->memory};
  tell(frontend, &message, offsetof(struct message, memory.regions[1]) - MESSAGE_HEADER, fd);
  close(fd);
}

static void start_ring(struct frontend *frontend, unsigned index) {
  struct ring *ring = &frontend->rings[index];
  tell_state(frontend, SET_VRING_NUM, index, RING_SIZE);
  tell_state(frontend, SET_VRING_BASE, index, 0);
  struct message message = {.request = SET_VRING_ADDR,
                            .places = {.index = index,
                                       .desc_user_addr = (uint64_t)(uintptr_t)ring->vring.desc,
                                       .used_user_addr = (uint64_t)(uintptr_t)ring->vring.used,
                                       .avail_user_addr = (uint64_t)(uintptr_t)ring->vring.avail}};
  tell(frontend, &message, sizeof message.places, -1);
  ring->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (ring->kick < 0) fail("eventfd");
  tell_number(frontend, SET_VRING_CALL, index, frontend->call);
  tell_number(frontend, SET_VRING_KICK, index, ring->kick);
  tell_state(frontend, SET_VRING_ENABLE, index, 1);
}

/** Lays rings and requests of `request_size` bytes out in shared memory and starts the rings. */
static void start(struct frontend *frontend, size_t request_size) {
  uint64_t features = negotiate(frontend);
  size_t ring_bytes = round_up(vring_size(RING_SIZE, PAGE), PAGE);
  // Headers and status bytes have a cache line each; data begins on a page, as a guest's page cache has it.
  size_t headers = round_up(frontend->depth * 128, PAGE);
  size_t data = round_up(request_size, PAGE);
  size_t stride = ring_bytes + headers + frontend->depth * data;
  share_memory(frontend, stride * frontend->ring_count);
  memset(frontend->memory, 0, frontend->memory_size);
  frontend->call = eventfd(0, EFD_CLOEXEC);
  if (frontend->call < 0) fail("eventfd");
  for (unsigned index = 0; index < frontend->ring_count; index++) {
    struct ring *ring = &frontend->rings[index];
    uint8_t *memory = frontend->memory + index * stride;
    vring_init(&ring->vring, RING_SIZE, memory, PAGE);
    ring->event_index = (features & F_EVENT_IDX) != 0;
    for (unsigned i = 0; i < frontend->depth; i++) {
      struct slot *slot = &ring->slots[i];
      slot->header = (struct virtio_blk_outhdr *)(memory + ring_bytes + (size_t)i * 128);
      slot->status = (uint8_t *)slot->header + 64;
      slot->data = memory + ring_bytes + headers + (size_t)i * data;
    }
    start_ring(frontend, index);
  }
}

/** Stops the rings, as a driver that lets the device go, and closes the connection. */
static void stop(struct frontend *frontend) {
  for (unsigned index = 0; index < frontend->ring_count; index++) {
    struct message message = {.request = GET_VRING_BASE, .state = {.index = index}};
    ask(frontend, &message, sizeof message.state);
    errno = 0;
    if (message.state.num != frontend->rings[index].available) fail("the backend stopped at another request");
  }
  close(frontend->socket);
}

static uint64_t guest_address(const struct frontend *frontend, const void *pointer) {
  return GUEST_BASE + (uint64_t)((const uint8_t *)pointer - frontend->memory);
}

/** Puts the request in `slot` on the ring, for the backend to see at once. */
static void publish(const struct frontend *frontend, struct ring *ring, struct slot *slot, bool write,
                    size_t size) {
  struct vring *vring = &ring->vring;
  uint16_t head = (uint16_t)((slot - ring->slots) * DESCRIPTORS_A_REQUEST);
  slot->under_way = true;
  struct vring_desc *descriptors = &vring->desc[head];
  *slot->header = (struct virtio_blk_outhdr){.type = write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN,
                                             .sector = slot->offset / SECTOR};
  *slot->status = 0xff;
  descriptors[0] = (struct vring_desc){
    guest_address(frontend, slot->header), sizeof *slot->header, VRING_DESC_F_NEXT, (uint16_t)(head + 1)};
  descriptors[1] = (struct vring_desc){guest_address(frontend, slot->data), (uint32_t)size,
                                       (uint16_t)(VRING_DESC_F_NEXT | (write ? 0 : VRING_DESC_F_WRITE)),
                                       (uint16_t)(head + 2)};
  descriptors[2] = (struct vring_desc){guest_address(frontend, slot->status), 1, VRING_DESC_F_WRITE, 0};
  vring->avail->ring[ring->available % RING_SIZE] = head;
  ring->available++;
  __atomic_store_n(&vring->avail->idx, ring->available, __ATOMIC_RELEASE);
}

/** Kicks the backend if it asked to be told of what was published since the last call. */
static void kick(struct ring *ring) {
  if (ring->available == ring->announced) return;
  // The index has to be visible before the backend's wish is read (virtio 1.3, §2.7.13.4.1).
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  struct vring *vring = &ring->vring;
  uint16_t event = __atomic_load_n(&vring_avail_event(vring), __ATOMIC_RELAXED);
  uint16_t flags = __atomic_load_n(&vring->used->flags, __ATOMIC_RELAXED);
  bool wanted = ring->event_index ? vring_need_event(event, ring->available, ring->announced)
                                  : !(flags & VRING_USED_F_NO_NOTIFY);
  ring->announced = ring->available;
  if (!wanted) return;
  ring->kicks++;
  if (write(ring->kick, &(uint64_t){1}, sizeof(uint64_t)) < 0 && errno != EAGAIN) fail("kick");
}

static bool has_used(struct ring *ring) {
  return __atomic_load_n(&ring->vring.used->idx, __ATOMIC_ACQUIRE) != ring->used;
}

/** Takes a finished request off the ring. Returns its slot, or NULL when none is finished. */
static struct slot *take(struct ring *ring, unsigned depth, uint32_t *written) {
  if (!has_used(ring)) return NULL;
  const struct vring_used_elem *element = &ring->vring.used->ring[ring->used % RING_SIZE];
  uint32_t id = element->id;
  *written = element->len;
  errno = 0;
  if (id % DESCRIPTORS_A_REQUEST != 0 || id / DESCRIPTORS_A_REQUEST >= depth) fail("used: not a head");
  struct slot *slot = &ring->slots[id / DESCRIPTORS_A_REQUEST];
  if (!slot->under_way) fail("used: a request that was not under way");
  slot->under_way = false;
  ring->used++;
  return slot;
}

/** Asks for no interrupts, as a driver that polls: with event indices, at a place that is never reached. */
static void disable_interrupts(struct ring *ring) {
  if (ring->event_index)
    vring_used_event(&ring->vring) = (uint16_t)(ring->used - RING_SIZE - 1);
  else
    ring->vring.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
}

/** Asks to be interrupted at the next request. Returns false when one is done already: look again. */
static bool enable_interrupts(struct ring *ring) {
  if (ring->event_index)
    __atomic_store_n(&vring_used_event(&ring->vring), ring->used, __ATOMIC_RELAXED);
  else
    __atomic_store_n(&ring->vring.avail->flags, 0, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  return !has_used(ring);
}

#endif
