// The twin's side of a split ring: guest memory by its addresses, and chains taken off the ring with the
// checks that our own backend makes. Everything in shared memory is read once, into a copy, and only the copy
// is believed. Between protocol.h and twin.c.

#ifndef TWIN_RING_H
#define TWIN_RING_H

#include "protocol.h"

#define RING_MOST 256

/** A piece of the guest's memory, mapped here. */
struct mapping {
  struct region region;
  uint8_t *address;
  void *mapped;
  size_t mapped_size;
};

struct memory {
  unsigned count;
  struct mapping mappings[MOST_REGIONS];
};

/** A request on its way through the disk. */
struct chain {
  struct ring *ring;
  uint16_t head;
  bool in_flight;
  bool write;
  uint32_t length;
  uint64_t offset;
  uint8_t *status;
  /** Header, data and status; the data alone begin at index 1 and are `count` vectors. */
  struct iovec vectors[RING_MOST];
  unsigned count;
};

struct ring {
  struct vring vring;
  bool event_index;
  bool enabled;
  int kick;
  int call;
  uint16_t available;
  uint16_t used;
  uint16_t signalled;
  unsigned in_flight;
  struct chain chains[RING_MOST];
};

enum taken { TAKEN, NOTHING, BROKEN };

/** Where `length` bytes from guest address `address` on are; NULL unless they lie in one region. */
static uint8_t *guest_bytes(const struct memory *memory, uint64_t address, uint64_t length) {
  for (unsigned i = 0; i < memory->count; i++) {
    const struct region *region = &memory->mappings[i].region;
    uint64_t at = address - region->guest_address;
    if (at < region->size && length <= region->size - at) return memory->mappings[i].address + at;
  }
  return NULL;
}

/** The same for an address of the frontend's own, which rings have. */
static uint8_t *user_bytes(const struct memory *memory, uint64_t address, uint64_t length) {
  for (unsigned i = 0; i < memory->count; i++) {
    const struct region *region = &memory->mappings[i].region;
    uint64_t at = address - region->user_address;
    if (at < region->size && length <= region->size - at) return memory->mappings[i].address + at;
  }
  return NULL;
}

/** Follows the descriptors from `head` on into `vectors`. Returns how many, 0 when they break a rule. */
static unsigned follow(const struct ring *ring, const struct memory *memory, uint16_t head,
                       struct iovec *vectors, unsigned *readable) {
  unsigned count = 0;
  *readable = 0;
  for (uint16_t at = head; count < ring->vring.num;) {
    if (at >= ring->vring.num) return 0;
    struct vring_desc copy = *(volatile struct vring_desc *)&ring->vring.desc[at];
    bool writable = (copy.flags & VRING_DESC_F_WRITE) != 0;
    if (copy.flags & VRING_DESC_F_INDIRECT) return 0;
    if (!writable && *readable < count) return 0;
    uint8_t *bytes = guest_bytes(memory, copy.addr, copy.len);
    if (bytes == NULL || copy.len == 0) return 0;
    vectors[count++] = (struct iovec){bytes, copy.len};
    if (!writable) *readable = count;
    if (!(copy.flags & VRING_DESC_F_NEXT)) return count;
    at = copy.next;
  }
  return 0;
}

/**
 * Takes the next chain off the ring and reads its header.
 *
 * @param type becomes the request's type; its data are in the chain's vectors
 */
static enum taken take(struct ring *ring, const struct memory *memory, struct chain **taken, uint32_t *type) {
  const struct vring_avail *avail = ring->vring.avail;
  uint16_t pending = (uint16_t)(__atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE) - ring->available);
  if (pending == 0) return NOTHING;
  if (pending > ring->vring.num) return BROKEN;
  uint16_t head = __atomic_load_n(&avail->ring[ring->available % ring->vring.num], __ATOMIC_RELAXED);
  if (head >= ring->vring.num || ring->chains[head].in_flight) return BROKEN;
  struct chain *chain = &ring->chains[head];
  unsigned readable;
  unsigned count = follow(ring, memory, head, chain->vectors, &readable);
  // The twin serves drivers that give header and status a descriptor each, as load.c and Linux do.
  struct virtio_blk_outhdr header;
  if (count < 2 || readable == 0 || readable == count) return BROKEN;
  if (chain->vectors[0].iov_len != sizeof header || chain->vectors[count - 1].iov_len != 1) return BROKEN;
  memcpy(&header, chain->vectors[0].iov_base, sizeof header);
  bool write = header.type == VIRTIO_BLK_T_OUT;
  uint64_t length = 0;
  for (unsigned i = 1; i < count - 1; i++) length += chain->vectors[i].iov_len;
  // Data of a write are readable, of anything else writable.
  if (readable != (write ? count - 1 : 1) || length > UINT32_MAX - 1) return BROKEN;
  chain->ring = ring;
  chain->head = head;
  chain->write = write;
  chain->length = (uint32_t)length;
  chain->offset = header.sector > UINT64_MAX / 512 ? UINT64_MAX : header.sector * 512;
  chain->status = chain->vectors[count - 1].iov_base;
  chain->count = count - 2;
  chain->in_flight = true;
  ring->in_flight++;
  ring->available++;
  *type = header.type;
  *taken = chain;
  return TAKEN;
}

/** Returns a chain to the driver, and interrupts it if it wants that. */
static void complete(struct chain *chain, uint8_t status, uint32_t written) {
  struct ring *ring = chain->ring;
  struct vring *vring = &ring->vring;
  *chain->status = status;
  chain->in_flight = false;
  ring->in_flight--;
  vring->used->ring[ring->used % vring->num] = (struct vring_used_elem){chain->head, written};
  ring->used++;
  __atomic_store_n(&vring->used->idx, ring->used, __ATOMIC_RELEASE);
  // The index has to be visible before the driver's wish is read.
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  uint16_t event = __atomic_load_n(&vring_used_event(vring), __ATOMIC_RELAXED);
  uint16_t flags = __atomic_load_n(&vring->avail->flags, __ATOMIC_RELAXED);
  bool wanted = ring->event_index ? vring_need_event(event, ring->used, ring->signalled)
                                  : !(flags & VRING_AVAIL_F_NO_INTERRUPT);
  ring->signalled = ring->used;
  if (wanted && ring->call >= 0 && write(ring->call, &(uint64_t){1}, sizeof(uint64_t)) < 0 && errno != EAGAIN)
    fail("interrupt");
}

/** Asks to be notified of the next chain. Returns false when there is one already. */
static bool arm(struct ring *ring) {
  if (ring->event_index)
    __atomic_store_n(&vring_avail_event(&ring->vring), ring->available, __ATOMIC_RELAXED);
  else
    __atomic_store_n(&ring->vring.used->flags, 0, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  return __atomic_load_n(&ring->vring.avail->idx, __ATOMIC_ACQUIRE) == ring->available;
}

/** With event indices, leaving avail_event behind is enough. */
static void disarm(struct ring *ring) {
  if (!ring->event_index) ring->vring.used->flags = VRING_USED_F_NO_NOTIFY;
}

#endif
