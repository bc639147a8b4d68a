// The vhost-user protocol as the load generator and the C twin speak it: a message as it is on the wire, and
// how it travels with file descriptors (vhost-user specification, "Message Specification"). Used by
// frontend.h and twin.c.

#ifndef PROTOCOL_H
#define PROTOCOL_H

#include <errno.h>
#include <linux/vhost_types.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum request {
  GET_FEATURES = 1,
  SET_FEATURES = 2,
  SET_OWNER = 3,
  SET_MEM_TABLE = 5,
  SET_VRING_NUM = 8,
  SET_VRING_ADDR = 9,
  SET_VRING_BASE = 10,
  GET_VRING_BASE = 11,
  SET_VRING_KICK = 12,
  SET_VRING_CALL = 13,
  SET_VRING_ERR = 14,
  GET_PROTOCOL_FEATURES = 15,
  SET_PROTOCOL_FEATURES = 16,
  GET_QUEUE_NUM = 17,
  SET_VRING_ENABLE = 18,
  GET_CONFIG = 24,
};

#define VERSION 0x1
#define REPLY 0x4
#define NEED_REPLY 0x8

#define F_PROTOCOL_FEATURES (1ull << 30)
#define F_EVENT_IDX (1ull << VIRTIO_RING_F_EVENT_IDX)
#define F_VERSION_1 (1ull << VIRTIO_F_VERSION_1)
#define PROTOCOL_MQ (1ull << 0)
#define PROTOCOL_REPLY_ACK (1ull << 3)
#define PROTOCOL_CONFIG (1ull << 9)

#define MOST_RINGS 16
#define MOST_REGIONS 8
#define VRING_INDEX_MASK 0xff
#define VRING_NO_FD 0x100

struct region {
  uint64_t guest_address;
  uint64_t size;
  uint64_t user_address;
  uint64_t file_offset;
};

struct message {
  uint32_t request;
  uint32_t flags;
  uint32_t size;
  union {
    uint64_t number;
    struct vhost_vring_state state;
    struct vhost_vring_addr places;
    struct {
      uint32_t count;
      uint32_t padding;
      struct region regions[MOST_REGIONS];
    } memory;
    struct {
      uint32_t offset;
      uint32_t size;
      uint32_t flags;
      uint8_t bytes[256];
    } config;
  };
} __attribute__((packed));

#define MESSAGE_HEADER offsetof(struct message, number)
#define CONFIG_HEADER (offsetof(struct message, config.bytes) - MESSAGE_HEADER)
#define MOST_PAYLOAD (sizeof(struct message) - MESSAGE_HEADER)

/** Ends the program: what failed, and the system's reason if there is one. */
__attribute__((noreturn)) static inline void fail(const char *what) {
  if (errno != 0)
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
  else
    fprintf(stderr, "%s\n", what);
  exit(1);
}

/** Nanoseconds of the monotonic clock, which is Node's process.hrtime as well. */
static inline uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/** A rest inside a loop that looks at memory: leaves the core's other thread, or the host, some room. */
static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  __asm__ volatile("" ::: "memory");
#endif
}

/** Sends `message`, whose size is set, with `count` file descriptors. Returns whether it went. */
static inline bool send_message(int socket, const struct message *message, const int *fds, size_t count) {
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(MOST_REGIONS * sizeof(int))];
  } control = {0};
  struct iovec vector = {(void *)message, MESSAGE_HEADER + message->size};
  struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1};
  if (count > 0) {
    header.msg_control = &control;
    header.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
  }
  return sendmsg(socket, &header, MSG_NOSIGNAL) == (ssize_t)vector.iov_len;
}

/** Reads exactly `length` bytes. Returns false at the end of the stream and on an error. */
static inline bool read_all(int socket, void *target, size_t length) {
  for (size_t at = 0; at < length;) {
    ssize_t count = read(socket, (char *)target + at, length - at);
    if (count <= 0) return false;
    at += (size_t)count;
  }
  return true;
}

/**
 * Waits for a message and the file descriptors that come with it.
 *
 * @param fds room for MOST_REGIONS descriptors, which are the caller's to close; unused ones become -1
 * @return false when the stream has ended or what came is no message
 */
static inline bool receive_message(int socket, struct message *message, int *fds) {
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(MOST_REGIONS * sizeof(int))];
  } control;
  struct iovec vector = {message, MESSAGE_HEADER};
  struct msghdr header = {
    .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  for (int i = 0; i < MOST_REGIONS; i++) fds[i] = -1;
  ssize_t length = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  if (length <= 0) return false;
  struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
  if (rights != NULL && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS)
    memcpy(fds, CMSG_DATA(rights), rights->cmsg_len - CMSG_LEN(0));
  if (!read_all(socket, (char *)message + length, MESSAGE_HEADER - (size_t)length)) return false;
  return message->size <= MOST_PAYLOAD && read_all(socket, &message->number, message->size);
}

#endif
