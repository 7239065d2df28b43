/* kz_guard — the motion guard on the integer lattice (docs/guardrails.md).
 *
 * Promise, for three consecutive applied positions q0, q1, q2 of one channel, in quanta, without tolerance:
 *
 *     lo <= q2 <= hi        |q2 - q1| <= w        |q2 - 2*q1 + q0| <= h
 *
 * provided the first applied position is at rest inside [lo, hi] (kz_seed). Position, velocity and
 * acceleration limits can only be kept together if every admitted state can still brake before the limit:
 * the guard therefore keeps the axis inside the exact discrete viable set
 *
 *     { (q, v) : v + (v-h) + (v-2h) + ... <= distance to the limit in the direction of v, after q },
 *
 * not behind a clamp. With a miss budget of M the largest velocity it grants also leaves room for M periods of
 * coasting at that velocity, so that lost commands do not turn into jerks.
 *
 * C99, no floating point, no libc, no memory of its own. The same object code semantics hold on every target:
 * int32 state, int64 intermediates, and every intermediate fits (bounds are proved in the comments).
 */
#ifndef KZ_GUARD_H
#define KZ_GUARD_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KZ_MAX_CH 16
#define KZ_RAW_MAX 0x3FFFFFFF /* |lo|, |hi|, w, h: so that differences of positions fit in int32 */

/* Limits of one channel: position range [quanta], largest step w [quanta/period], largest change of step
 * h [quanta/period^2]. */
typedef struct {
  int32_t lo, hi, w, h;
} kz_limit;

/* Motion state of one channel: the last applied position and the step that led to it. */
typedef struct {
  int32_t q, v;
} kz_axis;

/* Which rules shaped the admitted value (bit set). */
enum {
  KZ_RULE_POSITION = 1,     /* the viable set of [lo, hi]: braking distance, with coasting room if granted */
  KZ_RULE_VELOCITY = 2,     /* |step| <= w */
  KZ_RULE_ACCELERATION = 4, /* |change of step| <= h */
  KZ_RULE_RECOVERY = 8      /* the axis is outside [lo, hi] and may only move inwards, at w/8 */
};

/* 1 if the limits can be guarded at all: lo <= hi, 0 < w, 0 < h, all within KZ_RAW_MAX. */
int kz_limit_ok(const kz_limit *l);

/* Largest step v >= 0 such that coast more periods at v and then braking by h a period stays within d:
 *   (1 + coast)*v + (v-h) + (v-2h) + ... <= d.   d < 0 gives 0. h > 0. */
int32_t kz_reach(int32_t d, int32_t h, uint8_t coast);

/* 1 if the axis can brake to rest inside [lo, hi] from here, i.e. it is in the viable set. */
int kz_viable(const kz_limit *l, const kz_axis *a);

/* Put the axis at rest at q (a measured position; it may lie outside the limits). */
void kz_seed(kz_axis *a, int32_t q);

/* The steps that are admissible from here: every v with down <= v <= up, never empty; and which rules set each end. */
typedef struct {
  int32_t down, up;
  uint8_t down_rules, up_rules;
} kz_window;

kz_window kz_admissible(const kz_limit *l, const kz_axis *a, uint8_t coast);

/* Take the step v, which must be admissible; returns the new position. */
int32_t kz_move(kz_axis *a, int32_t v);

/* The step that brakes by h, towards rest. */
int32_t kz_braked(const kz_limit *l, const kz_axis *a);

/* Move the axis to the admissible position nearest to `want`; returns the new position and adds to *rules what
 * shaped it (nothing if `want` itself was admissible). */
int32_t kz_admit(const kz_limit *l, kz_axis *a, int32_t want, uint8_t coast, uint8_t *rules);

/* One period without a usable proposal. If `may_coast` and repeating the last step keeps the axis viable, repeat
 * it; else brake by h towards rest. Always keeps the promise. Returns the new position. */
int32_t kz_miss(const kz_limit *l, kz_axis *a, int may_coast);

#ifdef __cplusplus
}
#endif
#endif
