#include "kz_guard.h"

static int32_t min32(int32_t a, int32_t b) { return a < b ? a : b; }
static int32_t max32(int32_t a, int32_t b) { return a > b ? a : b; }

int kz_limit_ok(const kz_limit *l) {
  return l->lo <= l->hi && l->lo >= -KZ_RAW_MAX && l->hi <= KZ_RAW_MAX && l->w > 0 && l->w <= KZ_RAW_MAX && l->h > 0 &&
         l->h <= KZ_RAW_MAX;
}

/* The distance D(v) = (1+coast)*v + sum_k max(v - k*h, 0) is increasing and piecewise linear, with its corners at
 * multiples of h: D(m*h) = h*((1+coast)*m + m*(m-1)/2). Find the last corner before d, m < 2^16 bit by bit, and from
 * there solve (1+coast+m)*v = d + h*m*(m+1)/2. Nothing passes 32 bits: m*(m-1)/2 <= d/h < 2^31, and the right side is
 * at most 2*d, since h*m*(m+1)/2 <= D(m*h) <= d. */
int32_t kz_reach(int32_t d, int32_t h, uint8_t coast) {
  uint32_t fits, m = 0, step;
  if (d <= 0) return 0;
  fits = (uint32_t)d / (uint32_t)h;
  for (step = 0x8000u; step != 0; step >>= 1) {
    const uint32_t more = m + step;
    if ((1u + coast) * more + more * (more - 1) / 2 <= fits) m = more;
  }
  return (int32_t)(((uint32_t)d + m * (m + 1) / 2 * (uint32_t)h) / (1u + coast + m));
}

int kz_viable(const kz_limit *l, const kz_axis *a) {
  /* After the last step the axis must be able to take v-h, v-2h, ... : that next step must be within reach. */
  if (a->q < l->lo || a->q > l->hi) return 0;
  return a->v > 0 ? a->v - l->h <= kz_reach(l->hi - a->q, l->h, 0) : -a->v - l->h <= kz_reach(a->q - l->lo, l->h, 0);
}

void kz_seed(kz_axis *a, int32_t q) {
  a->q = max32(min32(q, KZ_RAW_MAX), -KZ_RAW_MAX);
  a->v = 0;
}

int32_t kz_braked(const kz_limit *l, const kz_axis *a) { return a->v - max32(min32(a->v, l->h), -l->h); }

int32_t kz_move(kz_axis *a, int32_t v) {
  a->v = v;
  a->q += v;
  return a->q;
}

/* The furthest admissible step to one side, 1 or -1, and the rules that set it: one code for both, in a mirror.
 * Braking is admissible by recursion, so no bound may exclude it: where a missed command has used up the room for
 * coasting, the position bound falls back to it. */
static int32_t furthest(const kz_limit *l, const kz_axis *a, int32_t side, uint8_t coast, uint8_t *rules) {
  const int outside = a->q < l->lo || a->q > l->hi;
  const int32_t w = outside ? max32(l->w / 8, 1) : l->w;
  const int32_t d = side > 0 ? l->hi - a->q : a->q - l->lo;
  const int32_t brake = side * kz_braked(l, a);
  const int32_t accelerated = side * a->v + l->h; /* both within KZ_RAW_MAX: the sum fits */
  const int32_t position = max32(kz_reach(d, l->h, coast), brake);
  const int32_t v = min32(min32(max32(w, brake), accelerated), position);
  *rules = outside ? KZ_RULE_RECOVERY : 0;
  if (v == position) *rules |= KZ_RULE_POSITION;
  if (v == w) *rules |= KZ_RULE_VELOCITY;
  if (v == accelerated) *rules |= KZ_RULE_ACCELERATION;
  return side * v;
}

kz_window kz_admissible(const kz_limit *l, const kz_axis *a, uint8_t coast) {
  kz_window k;
  k.up = furthest(l, a, 1, coast, &k.up_rules);
  k.down = furthest(l, a, -1, coast, &k.down_rules);
  return k;
}

int32_t kz_admit(const kz_limit *l, kz_axis *a, int32_t want, uint8_t coast, uint8_t *rules) {
  /* Braking is always admissible, so that only the end beyond it can matter. |q| + |v| <= 2^31 - 2. */
  const int32_t side = want > a->q + kz_braked(l, a) ? 1 : -1;
  uint8_t bound_by;
  const int32_t v = furthest(l, a, side, coast, &bound_by), end = a->q + v;
  if (side > 0 ? want <= end : want >= end) return kz_move(a, want - a->q);
  *rules |= bound_by;
  return kz_move(a, v);
}

int32_t kz_miss(const kz_limit *l, kz_axis *a, int may_coast) {
  if (may_coast && a->v != 0) {
    kz_axis next;
    next.v = a->v;
    next.q = a->q + a->v; /* |q| + w <= 2^31 - 2 */
    if (kz_viable(l, &next)) {
      *a = next;
      return a->q;
    }
  }
  return kz_move(a, kz_braked(l, a));
}
