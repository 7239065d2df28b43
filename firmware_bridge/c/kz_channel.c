#include "kz_channel.h"

static int32_t within(int32_t x, int32_t lo, int32_t hi) { return x < lo ? lo : x > hi ? hi : x; }

static int endless(const kz_channel *c) { return c->limit.lo == -KZ_RAW_MAX && c->limit.hi == KZ_RAW_MAX; }

/* The exponent of an f32 x = m * 2^(e - 150) with m < 2^24: bounded, so that no product overflows; no negative x, no NaN. */
static int damping_ok(uint32_t bits) { return bits >> 23 <= 150; }

int kz_channel_ok(const kz_channel *c) {
  const kz_limit *l = &c->limit;
  if (!kz_limit_ok(l)) return 0;
  if (c->mode == KZ_MODE_TORQUE) return l->lo <= 0 && l->hi >= 0 && damping_ok((uint32_t)c->fallback);
  return c->mode == KZ_MODE_VELOCITY || c->fallback == KZ_NO_SAFE || (l->lo <= c->fallback && c->fallback <= l->hi);
}

void kz_channel_seed(kz_channel *c, int32_t measured) {
  kz_seed(&c->axis, c->mode == KZ_MODE_TORQUE ? 0 : measured);
  c->was = c->mode == KZ_MODE_TORQUE ? measured : 0;
}

/* A velocity stands where the joint is measured, and goes on from the last step sent. */
static void stand(kz_channel *c, int32_t measured) {
  if (c->mode != KZ_MODE_VELOCITY) return;
  c->axis.q = endless(c) ? 0 : within(measured, -KZ_RAW_MAX, KZ_RAW_MAX);
  c->was = c->axis.v;
}

/* Against the motion, in proportion to it: rounded towards zero, so that encoder noise below a quantum makes no torque.
 * m * far / 2^shift, from the lowest digit of `far` upwards: what is shifted out is what rounding drops, and nothing
 * passes 32 bits. */
static int32_t damping(uint32_t bits, int32_t moved) {
  const uint32_t m = (bits & 0x7FFFFFu) | 0x800000u;
  uint32_t far = moved < 0 ? 0u - (uint32_t)moved : (uint32_t)moved, x = 0;
  uint8_t shift = (uint8_t)(150 - (bits >> 23));
  if (bits >> 23 == 0) return 0;
  for (; shift != 0; --shift, far >>= 1) x = (x + (far & 1 ? m : 0)) >> 1;
  x = far < 128 ? x + m * far : KZ_RAW_MAX; /* m >= 2^23 */
  if (x > KZ_RAW_MAX) x = KZ_RAW_MAX;
  return moved < 0 ? (int32_t)x : -(int32_t)x;
}

/* Towards `want`, by w at most; the last torque was in range, or the way leads back there. */
static int set_torque(kz_channel *c, int32_t measured, int32_t want) {
  const kz_limit *l = &c->limit;
  const int32_t torque = within(within(want, l->lo, l->hi), c->axis.q - l->w, c->axis.q + l->w);
  c->was = measured;
  kz_move(&c->axis, torque - c->axis.q);
  return torque != want;
}

int kz_channel_follow(kz_channel *c, int32_t measured, int32_t want, uint8_t miss_budget) {
  uint8_t rules = 0;
  if (c->mode == KZ_MODE_TORQUE) return set_torque(c, measured, want);
  stand(c, measured);
  if (c->mode == KZ_MODE_VELOCITY) want = c->axis.q + within(want, -KZ_RAW_MAX, KZ_RAW_MAX);
  kz_admit(&c->limit, &c->axis, want, miss_budget, &rules);
  return rules != 0;
}

void kz_channel_idle(kz_channel *c, int32_t measured, uint8_t idle) {
  if (c->mode == KZ_MODE_TORQUE) {
    const int32_t moved = (int32_t)((uint32_t)measured - (uint32_t)c->was); /* an encoder may wrap */
    const int32_t damped = damping((uint32_t)c->fallback, moved);
    set_torque(c, measured, idle == KZ_IDLE_COAST ? c->axis.q : idle == KZ_IDLE_REST ? 0 : damped);
  } else if (idle == KZ_IDLE_RETREAT && c->mode == KZ_MODE_POSITION && c->fallback != KZ_NO_SAFE) {
    kz_limit slow = c->limit;
    uint8_t rules = 0;
    slow.w = slow.w > 8 ? slow.w / 8 : 1;
    kz_admit(&slow, &c->axis, c->fallback, 0, &rules);
  } else {
    stand(c, measured);
    kz_miss(&c->limit, &c->axis, idle == KZ_IDLE_COAST);
  }
}

void kz_channel_cut(kz_channel *c) {
  c->axis.v = 0;
  if (c->mode == KZ_MODE_TORQUE) c->axis.q = 0;
}

int32_t kz_channel_sent(const kz_channel *c) { return c->mode == KZ_MODE_VELOCITY ? c->axis.v : c->axis.q; }

int32_t kz_channel_between(const kz_channel *c, uint16_t left) {
  const int32_t change = c->mode == KZ_MODE_VELOCITY ? c->axis.v - c->was : c->axis.v;
  const int32_t whole = change / 4096, rest = change % 4096;
  return kz_channel_sent(c) - whole * left - rest * left / 4096;
}

int kz_channel_rests(const kz_channel *c) { return c->axis.v == 0 && (c->mode != KZ_MODE_TORQUE || c->axis.q == 0); }
