#include "kz_guard.h"

static int32_t min32(int32_t a, int32_t b) { return a < b ? a : b; }
static int32_t max32(int32_t a, int32_t b) { return a > b ? a : b; }

int kz_limit_ok(const kz_limit *l) {
  return l->lo <= l->hi && l->lo >= -KZ_RAW_MAX && l->hi <= KZ_RAW_MAX && l->w > 0 && l->w <= KZ_RAW_MAX && l->h > 0 &&
         l->h <= KZ_RAW_MAX;
}

/* Distance used by a step of exactly m*h, the coasting periods after it and the braking after those:
 * (1+coast)*m*h + h*m*(m-1)/2. Searched only up to twice the m that fits d < 2^31, so (m-1)^2*h < 2^34. */
static int64_t used(int64_t m, int32_t h, uint8_t coast) {
  return (1 + (int64_t)coast) * m * h + (m * (m - 1) / 2) * h;
}

/* The distance D(v) = (1+coast)*v + sum_k max(v - k*h, 0) is increasing and piecewise linear, with its corners at
 * multiples of h. Find the piece by bisection on m = floor(v/h), by multiplication only, then solve it: on
 * m*h <= v <= (m+1)*h, D(v) = (1+coast+m)*v - h*m*(m+1)/2. */
int32_t kz_reach(int32_t d, int32_t h, uint8_t coast) {
  int64_t lo = 0, hi, m;
  if (d <= 0) return 0;
  hi = 1;
  while (used(hi, h, coast) <= d) hi *= 2;
  while (hi - lo > 1) {
    m = (lo + hi) / 2;
    if (used(m, h, coast) <= d)
      lo = m;
    else
      hi = m;
  }
  return (int32_t)((d + (lo * (lo + 1) / 2) * h) / (1 + (int64_t)coast + lo));
}

int kz_viable(const kz_limit *l, const kz_axis *a) {
  /* After the last step the axis must be able to take v-h, v-2h, ... : that next step must be within reach. */
  if (a->q < l->lo || a->q > l->hi) return 0;
  if (a->v > l->h) return a->v - l->h <= kz_reach(l->hi - a->q, l->h, 0);
  if (a->v < -l->h) return -a->v - l->h <= kz_reach(a->q - l->lo, l->h, 0);
  return 1;
}

void kz_seed(kz_axis *a, int32_t q) {
  a->q = max32(min32(q, KZ_RAW_MAX), -KZ_RAW_MAX);
  a->v = 0;
}

int32_t kz_braked(const kz_limit *l, const kz_axis *a) {
  if (a->v > l->h) return a->v - l->h;
  if (a->v < -l->h) return a->v + l->h;
  return 0;
}

int32_t kz_move(kz_axis *a, int32_t v) {
  a->v = v;
  a->q += v;
  return a->q;
}

kz_window kz_admissible(const kz_limit *l, const kz_axis *a, uint8_t coast) {
  const uint8_t recovery = a->q < l->lo || a->q > l->hi ? KZ_RULE_RECOVERY : 0;
  const int32_t w = recovery ? max32(l->w / 8, 1) : l->w;
  const int32_t brake = kz_braked(l, a);
  int32_t acc_up, acc_down, pos_up, pos_down;
  kz_window k;

  /* Braking is admissible by recursion, so no bound may exclude it: where a missed command has used up the room
   * for coasting, the position bound falls back to it. */
  acc_up = a->v + l->h; /* both within KZ_RAW_MAX: the sum fits */
  acc_down = a->v - l->h;
  pos_up = max32(kz_reach(l->hi - a->q, l->h, coast), brake);
  pos_down = min32(-kz_reach(a->q - l->lo, l->h, coast), brake);
  k.up = min32(min32(max32(w, brake), acc_up), pos_up);
  k.down = max32(max32(min32(-w, brake), acc_down), pos_down);
  k.up_rules = k.down_rules = recovery;
  if (k.up == pos_up) k.up_rules |= KZ_RULE_POSITION;
  if (k.up == w) k.up_rules |= KZ_RULE_VELOCITY;
  if (k.up == acc_up) k.up_rules |= KZ_RULE_ACCELERATION;
  if (k.down == pos_down) k.down_rules |= KZ_RULE_POSITION;
  if (k.down == -w) k.down_rules |= KZ_RULE_VELOCITY;
  if (k.down == acc_down) k.down_rules |= KZ_RULE_ACCELERATION;
  return k;
}

/* 1 if v is in the window, judged without finding its ends: v > 0 is within kz_reach(d) where D(v) <= d. From inside
 * only; what it refuses may still be admissible (braking, where coasting has used up the room for it). */
static int admissible(const kz_limit *l, const kz_axis *a, int64_t v, uint8_t coast) {
  const int64_t d = v < 0 ? (int64_t)a->q - l->lo : (int64_t)l->hi - a->q, change = v - a->v;
  int64_t m;
  if (a->q < l->lo || a->q > l->hi || change > l->h || change < -l->h) return 0;
  if (v < 0) v = -v;
  if (v > l->w) return 0;
  m = (int32_t)v / l->h;
  return (1 + coast + m) * v - (m * (m + 1) / 2) * l->h <= d;
}

int32_t kz_admit(const kz_limit *l, kz_axis *a, int32_t want, uint8_t coast, uint8_t *rules) {
  const int64_t ask = (int64_t)want - a->q;
  kz_window k;
  if (admissible(l, a, ask, coast)) return kz_move(a, (int32_t)ask);
  k = kz_admissible(l, a, coast);
  if (ask > k.up) {
    *rules |= k.up_rules;
    return kz_move(a, k.up);
  }
  if (ask < k.down) {
    *rules |= k.down_rules;
    return kz_move(a, k.down);
  }
  return kz_move(a, (int32_t)ask);
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
