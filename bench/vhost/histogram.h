// Latencies in buckets whose width grows with the value, so that each is known to 1.6 % from a nanosecond to
// an hour (the idea of HdrHistogram). Counting is a shift and an addition. Used by load.c.

#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

/** Buckets of each power of two. */
#define STEPS_LOG 6
#define STEPS (1 << STEPS_LOG)
#define OCTAVES 36

struct histogram {
  uint64_t total;
  uint64_t counts[OCTAVES * STEPS];
};

static inline void histogram_add(struct histogram *histogram, uint64_t value) {
  uint64_t most = (1ull << (OCTAVES + STEPS_LOG - 1)) - 1;
  if (value > most) value = most;
  unsigned octave = 0;
  if (value >= STEPS) octave = 64 - STEPS_LOG - (unsigned)__builtin_clzll(value);
  // Past the first octave a step has the value's leading bit, so it counts from STEPS on.
  unsigned step = (unsigned)(value >> (octave > 0 ? octave - 1 : 0));
  unsigned bucket = octave == 0 ? step : octave * STEPS + step - STEPS;
  histogram->counts[bucket]++;
  histogram->total++;
}

/** The value that a share of all values does not exceed: the upper end of its bucket. */
static inline uint64_t histogram_quantile(const struct histogram *histogram, double share) {
  uint64_t wanted = (uint64_t)((double)histogram->total * share);
  uint64_t seen = 0;
  for (unsigned bucket = 0; bucket < OCTAVES * STEPS; bucket++) {
    seen += histogram->counts[bucket];
    if (seen <= wanted) continue;
    unsigned octave = bucket / STEPS;
    if (octave == 0) return bucket;
    uint64_t step = bucket % STEPS + STEPS;
    return ((step + 1) << (octave - 1)) - 1;
  }
  return 0;
}

#endif
