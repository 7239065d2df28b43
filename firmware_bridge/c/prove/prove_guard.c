/* prove_guard N SEED [naive] — N adversarial steps through kz_admit/kz_miss, checked in integers after each one.
 *
 * Prints one JSON line; exit status 0 if the promise of kz_guard.h held and the guard was not merely frozen:
 *  - sound: range, step and change of step, at every step, misses and miss bursts included;
 *  - transparent: on a sample, a proposal that brute-force simulation finds admissible passes unchanged, and a
 *    changed one lands on the admissible value nearest to it;
 *  - alive: a driver that asks for a limit gets there, and each of the three limits is attained.
 * With `naive` the guard is replaced by clamping step, change and range in turn: the harness must then find
 * violations, or it proves nothing. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../kz_guard.h"

static uint64_t state;

static uint64_t random64(void) { /* xorshift64* */
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return state * 0x2545F4914F6CDD1Dull;
}

static int64_t between(int64_t lo, int64_t hi) { return lo + (int64_t)(random64() % (uint64_t)(hi - lo + 1)); }

/* Spread over magnitudes, so that small values are as common as large ones. */
static int64_t magnitude(int64_t most) {
  const int64_t v = (int64_t)(random64() >> 34) >> between(0, 30);
  return v < 1 ? 1 : v > most ? most : v;
}

static kz_limit random_limit(void) {
  kz_limit l;
  int64_t range, middle;
  switch (between(0, 3)) {
    case 0: /* an arm: 24-bit positions, steps of thousands, changes of tens */
      l.w = (int32_t)between(500, 20000);
      l.h = (int32_t)between(1, 400);
      range = between(1000000, 1 << 25);
      break;
    case 1: /* a corner: a handful of quanta */
      l.w = (int32_t)between(1, 6);
      l.h = (int32_t)between(1, 4);
      range = between(0, 40);
      break;
    case 2: /* tiny h: braking takes hundreds of periods */
      l.h = (int32_t)between(1, 3);
      l.w = (int32_t)between(1, 2000);
      range = magnitude(1 << 22);
      break;
    default: /* anything that kz_limit_ok takes */
      l.w = (int32_t)magnitude(KZ_RAW_MAX);
      l.h = (int32_t)magnitude(KZ_RAW_MAX);
      range = magnitude(2 * (int64_t)KZ_RAW_MAX);
  }
  middle = between(-KZ_RAW_MAX, KZ_RAW_MAX - range);
  l.lo = (int32_t)middle;
  l.hi = (int32_t)(middle + range);
  return l;
}

enum { ANYWHERE, BANG_BANG, STICK, NUDGE, EXTREME, CHATTER, DRIVERS };

static int32_t clip32(int64_t v) { return (int32_t)(v < -INT32_MAX ? -INT32_MAX : v > INT32_MAX ? INT32_MAX : v); }

static int32_t propose(int driver, const kz_limit *l, const kz_axis *a, int64_t step, int64_t steps, int *side) {
  const int64_t edge = *side ? l->hi : l->lo;
  switch (driver) {
    case ANYWHERE: return clip32(between((int64_t)l->lo - l->w, (int64_t)l->hi + l->w));
    case BANG_BANG:
      if (random64() % 64 == 0) *side = !*side;
      return clip32(edge);
    case STICK:
      if (step == steps / 2) *side = !*side;
      return clip32(*side ? l->hi : l->lo);
    case NUDGE: return clip32(a->q + a->v + between(-(int64_t)l->h - 2, (int64_t)l->h + 2));
    case EXTREME: return random64() & 1 ? INT32_MAX : -INT32_MAX;
    default:
      if (random64() % 512 == 0) *side = !*side;
      return clip32(edge + between(-3, 3));
  }
}

/* Brute force, on purpose without kz_reach: step, coast, brake, and look at every position on the way. */
static int admissible(const kz_limit *l, const kz_axis *a, int64_t v, int coast) {
  int64_t q = a->q, u = v;
  int i;
  if (v > l->w || v < -(int64_t)l->w) return 0;
  if (v - a->v > l->h || a->v - v > l->h) return 0;
  for (i = 0; i <= coast; ++i) {
    q += v;
    if (q < l->lo || q > l->hi) return 0;
  }
  while (u != 0) {
    u = u > l->h ? u - l->h : u < -l->h ? u + l->h : 0;
    q += u;
    if (q < l->lo || q > l->hi) return 0;
  }
  return 1;
}

static int32_t naive_admit(const kz_limit *l, kz_axis *a, int32_t want) {
  int64_t v = (int64_t)want - a->q, q;
  if (v > l->w) v = l->w;
  if (v < -l->w) v = -(int64_t)l->w;
  if (v > (int64_t)a->v + l->h) v = (int64_t)a->v + l->h;
  if (v < (int64_t)a->v - l->h) v = (int64_t)a->v - l->h;
  q = a->q + v;
  if (q > l->hi) q = l->hi;
  if (q < l->lo) q = l->lo;
  a->v = (int32_t)(q - a->q);
  a->q = (int32_t)q;
  return a->q;
}

int main(int argc, char **argv) {
  uint64_t bad_range = 0, bad_step = 0, bad_change = 0, checked = 0, passed = 0, altered = 0, not_nearest = 0;
  uint64_t at_position = 0, at_velocity = 0, at_acceleration = 0, sticks = 0, frozen = 0, misses = 0, silent = 0;
  double least_reach = 1.0, seconds;
  const int naive = argc > 3 && strcmp(argv[3], "naive") == 0;
  int64_t total, done = 0;
  struct timespec t0, t1;
  if (argc < 3 || (total = strtoll(argv[1], NULL, 10)) <= 0) {
    fprintf(stderr, "usage: prove_guard N SEED [naive]\n");
    return 2;
  }
  state = strtoull(argv[2], NULL, 10) * 0x9E3779B97F4A7C15ull + 1;
  timespec_get(&t0, TIME_UTC);
  while (done < total) {
    const kz_limit l = random_limit();
    const int coast = (int)between(0, 8), driver = (int)between(0, DRIVERS - 1);
    const int with_misses = driver != STICK && (random64() & 1);
    const int64_t range = (int64_t)l.hi - l.lo;
    /* Long enough to cross the range and to brake. With coasting room the last stretch is geometric: a (1+coast)th
     * of what is left, each period. */
    const int64_t crossing = 2 * (range / l.w + l.w / l.h) + 40 * (1 + coast) + 2 * (range / l.h > 40000 ? 400 : range / l.h);
    const int64_t steps = driver == STICK ? 2 * crossing : 4000;
    int side = (int)(random64() & 1), burst = 0, missed = 0;
    int64_t step, high, low;
    kz_axis a;
    if (driver == STICK && steps > 400000) continue;
    kz_seed(&a, (int32_t)between(l.lo, l.hi));
    high = low = a.q;
    for (step = 0; step < steps && done < total; ++step, ++done) {
      const kz_axis before = a;
      int64_t change;
      if (with_misses && burst == 0 && random64() % 50 == 0) burst = (int)between(1, 2 * coast + 4);
      if (burst > 0) {
        --burst;
        ++misses;
        if (naive)
          naive_admit(&l, &a, clip32((int64_t)a.q + a.v));
        else
          kz_miss(&l, &a, missed++ < coast);
      } else {
        const int32_t want = propose(driver, &l, &a, step, steps, &side);
        uint8_t rules = 0;
        missed = 0;
        if (naive) {
          naive_admit(&l, &a, want);
        } else {
          kz_admit(&l, &a, want, (uint8_t)coast, &rules);
          if (rules == 0 && a.q != want) silent++;
          if ((random64() & 15) == 0 && before.v / l.h < 3000 && before.v / l.h > -3000) {
            const int64_t ask = (int64_t)want - before.q;
            checked++;
            if (admissible(&l, &before, ask, coast)) {
              passed++;
              if (a.q != want || rules) altered++;
            } else if (a.q != want && admissible(&l, &before, (int64_t)a.v + (ask > a.v ? 1 : -1), coast)) {
              not_nearest++;
            }
          }
        }
      }
      change = (int64_t)a.v - before.v;
      if (a.q < l.lo || a.q > l.hi) bad_range++;
      if (a.v > l.w || a.v < -l.w || (int64_t)a.q - before.q != a.v) bad_step++;
      if (change > l.h || change < -(int64_t)l.h) bad_change++;
      if (a.q == l.hi || a.q == l.lo) at_position++;
      if (a.v == l.w || a.v == -l.w) at_velocity++;
      if (change == l.h || change == -(int64_t)l.h) at_acceleration++;
      if (a.q > high) high = a.q;
      if (a.q < low) low = a.q;
    }
    if (driver == STICK && step == steps && !naive) {
      /* Room for `coast` periods at one quantum is all that may stay unused. */
      sticks++;
      if (high < l.hi - coast || low > l.lo + coast) frozen++;
      if (range >= 2000) {
        const double reach = (double)(high - low) / (double)range;
        if (reach < least_reach) least_reach = reach;
      }
    }
  }
  timespec_get(&t1, TIME_UTC);
  seconds = (double)(t1.tv_sec - t0.tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0.tv_nsec);
  printf("{\"steps\": %" PRId64 ", \"seed\": %s, \"guard\": \"%s\", \"violations\": {\"range\": %" PRIu64
         ", \"step\": %" PRIu64 ", \"change\": %" PRIu64 "}, \"misses\": %" PRIu64 ", \"checked\": %" PRIu64
         ", \"admissible\": %" PRIu64 ", \"altered\": %" PRIu64 ", \"not_nearest\": %" PRIu64 ", \"silent\": %" PRIu64
         ", \"sticks\": %" PRIu64 ", \"frozen\": %" PRIu64
         ", \"least_reach\": %.6f, \"attained\": {\"position\": %" PRIu64 ", \"velocity\": %" PRIu64
         ", \"acceleration\": %" PRIu64 "}, \"steps_per_s\": %.0f}\n",
         done, argv[2], naive ? "naive" : "kz_guard", bad_range, bad_step, bad_change, misses, checked, passed, altered,
         not_nearest, silent, sticks, frozen, least_reach, at_position, at_velocity, at_acceleration,
         (double)done / seconds);
  return bad_range || bad_step || bad_change || altered || not_nearest || silent || frozen || least_reach <= 0.99 ||
         !sticks || !passed || !at_position || !at_velocity || !at_acceleration;
}
