// io_uring without a library: submit a batch of reads and writes with one system call, and find the
// completions in memory (io_uring(7)). After twin-ring.h, used by twin.c for images that are opened with
// O_DIRECT.

#ifndef TWIN_URING_H
#define TWIN_URING_H

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "twin-ring.h"

#define URING_ENTRIES 1024

struct uring {
  int fd;
  unsigned *submission_tail;
  unsigned *submission_array;
  unsigned *completion_head;
  unsigned *completion_tail;
  unsigned mask;
  unsigned completion_mask;
  struct io_uring_sqe *entries;
  struct io_uring_cqe *completions;
  /** Entries filled and not yet submitted. */
  unsigned filled;
};

static void uring_open(struct uring *uring) {
  struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_CQSIZE,
                                   .cq_entries = MOST_RINGS * RING_MOST};
  uring->fd = (int)syscall(__NR_io_uring_setup, URING_ENTRIES, &params);
  if (uring->fd < 0) fail("io_uring_setup");
  size_t submissions = params.sq_off.array + params.sq_entries * sizeof(unsigned);
  size_t completions = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
  size_t size = submissions > completions ? submissions : completions;
  int protection = PROT_READ | PROT_WRITE;
  uint8_t *rings = mmap(NULL, size, protection, MAP_SHARED | MAP_POPULATE, uring->fd, IORING_OFF_SQ_RING);
  size = params.sq_entries * sizeof(struct io_uring_sqe);
  uring->entries = mmap(NULL, size, protection, MAP_SHARED | MAP_POPULATE, uring->fd, IORING_OFF_SQES);
  if (rings == MAP_FAILED || uring->entries == MAP_FAILED) fail("io_uring's memory");
  uring->submission_tail = (unsigned *)(rings + params.sq_off.tail);
  uring->submission_array = (unsigned *)(rings + params.sq_off.array);
  uring->completion_head = (unsigned *)(rings + params.cq_off.head);
  uring->completion_tail = (unsigned *)(rings + params.cq_off.tail);
  uring->completions = (struct io_uring_cqe *)(rings + params.cq_off.cqes);
  uring->mask = params.sq_entries - 1;
  uring->completion_mask = params.cq_entries - 1;
}

/** Hands everything that was filled to the kernel. */
static void uring_submit(struct uring *uring) {
  while (uring->filled > 0) {
    long count = syscall(__NR_io_uring_enter, uring->fd, uring->filled, 0, 0, NULL, 0);
    if (count < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY) fail("io_uring_enter");
    if (count > 0) uring->filled -= (unsigned)count;
  }
}

/** Fills an entry for the chain's read or write. */
static void uring_add(struct uring *uring, int file, struct chain *chain) {
  if (uring->filled == URING_ENTRIES) uring_submit(uring);
  unsigned tail = *uring->submission_tail;
  bool single = chain->count == 1;
  uint8_t scalar = chain->write ? IORING_OP_WRITE : IORING_OP_READ;
  uint8_t vectored = chain->write ? IORING_OP_WRITEV : IORING_OP_READV;
  uring->entries[tail & uring->mask] = (struct io_uring_sqe){
    .opcode = single ? scalar : vectored,
    .fd = file,
    .off = chain->offset,
    .addr = (uint64_t)(uintptr_t)(single ? chain->vectors[1].iov_base : &chain->vectors[1]),
    .len = single ? chain->length : chain->count,
    .user_data = (uint64_t)(uintptr_t)chain};
  uring->submission_array[tail & uring->mask] = tail & uring->mask;
  __atomic_store_n(uring->submission_tail, tail + 1, __ATOMIC_RELEASE);
  uring->filled++;
}

/** Takes a completion, if there is one. Returns its chain, or NULL. */
static struct chain *uring_reap(struct uring *uring, int *result) {
  unsigned head = *uring->completion_head;
  if (head == __atomic_load_n(uring->completion_tail, __ATOMIC_ACQUIRE)) return NULL;
  const struct io_uring_cqe *completion = &uring->completions[head & uring->completion_mask];
  struct chain *chain = (struct chain *)(uintptr_t)completion->user_data;
  *result = completion->res;
  __atomic_store_n(uring->completion_head, head + 1, __ATOMIC_RELEASE);
  return chain;
}

#endif
