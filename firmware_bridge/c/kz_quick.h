/* The gateway's short way past kz_admit: most commands are admissible, and that is seen sooner than where the ends of
 * the window are. Firmware does without: it costs flash, and a command that is shaped costs more. */
#ifndef KZ_QUICK_H
#define KZ_QUICK_H

#include "kz_guard.h"

/* 1 only if the step v is admissible: v > 0 is within kz_reach(d) where D(v) <= d (kz_guard.c). Judged from inside the
 * range only; what it refuses may still be admissible (braking, where coasting has used up the room for it). */
static inline int kz_quick(const kz_limit *l, const kz_axis *a, int64_t v, uint8_t coast) {
  const int64_t d = v < 0 ? (int64_t)a->q - l->lo : (int64_t)l->hi - a->q, change = v - a->v;
  int64_t m;
  if (a->q < l->lo || a->q > l->hi || change > l->h || change < -l->h) return 0;
  if (v < 0) v = -v;
  if (v > l->w) return 0;
  m = (int32_t)v / l->h;
  return (1 + coast + m) * v - (m * (m + 1) / 2) * l->h <= d;
}

#endif
