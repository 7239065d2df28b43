/* prove_guard N SEED [GUARD] — N adversarial steps through a guard, checked in integers after each one.
 *
 * Prints one JSON line; exit status 0 if the promise of kz_guard.h held and the guard was not merely frozen:
 *  - sound: range, step and change of step, at every step, with miss bursts within and beyond the budget;
 *  - transparent: on a sample, a proposal that brute-force simulation finds admissible passes unchanged, and a
 *    changed one lands on the admissible value nearest to it;
 *  - alive: a driver that asks for a limit gets there, and each of the three limits is attained;
 *  - one guard: kz_admit, which looks at one end only, does what the window of kz_admissible says, from any state, and
 *    kz_quick admits nothing that is not in it;
 *  - velocity: where each period puts the axis where a joint was measured, step and change hold as ever, and the joint
 *    stays in its range to within the error of that measurement.
 * GUARD is kz_guard (the default) or one of the limiters in common use below, in each of which the harness must find
 * violations, or it proves nothing. Reports of several seeds add up: every field but least_reach is a count. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../kz_guard.h"
#include "../kz_quick.h"
#include "prove_random.h"

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
    case NUDGE: return clip32((int64_t)a->q + a->v + between(-(int64_t)l->h - 2, (int64_t)l->h + 2));
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

/* The limiters in common use. Each takes what kz_admit takes, so that all see the same proposals; what they send is
 * one lattice position a period, and the plant stands where it was sent: nothing here is lost to tracking. */

typedef int32_t (*admit)(const kz_limit *l, kz_axis *a, int32_t want, uint8_t coast, uint8_t *rules);

static int64_t clamp(int64_t v, int64_t lo, int64_t hi) { return v < lo ? lo : v > hi ? hi : v; }

/* Send q. Far outside any range it saturates: the violations before that are what is counted. */
static int32_t apply(kz_axis *a, int32_t want, int64_t q, uint8_t *rules) {
  const int32_t sent = (int32_t)clamp(q, -KZ_RAW_MAX, KZ_RAW_MAX);
  a->v = sent - a->q;
  a->q = sent;
  if (sent != want) *rules |= KZ_RULE_POSITION;
  return sent;
}

/* Clamp the step, its change and the range, in turn. */
static int32_t naive_admit(const kz_limit *l, kz_axis *a, int32_t want, uint8_t coast, uint8_t *rules) {
  int64_t v = clamp((int64_t)want - a->q, -(int64_t)l->w, l->w);
  (void)coast;
  v = clamp(v, (int64_t)a->v - l->h, (int64_t)a->v + l->h);
  return apply(a, want, clamp(a->q + v, l->lo, l->hi), rules);
}

/* Brake along the continuous-time parabola: |v| <= sqrt(2 A d), then the acceleration limit. */
static int32_t parabola_admit(const kz_limit *l, kz_axis *a, int32_t want, uint8_t coast, uint8_t *rules) {
  const double up = sqrt(2.0 * l->h * fmax((double)l->hi - a->q, 0));
  const double down = sqrt(2.0 * l->h * fmax((double)a->q - l->lo, 0));
  int64_t v = clamp((int64_t)want - a->q, -(int64_t)l->w, l->w);
  (void)coast;
  v = clamp(v, -(int64_t)down, (int64_t)up);
  v = clamp(v, (int64_t)a->v - l->h, (int64_t)a->v + l->h);
  return apply(a, want, a->q + v, rules);
}

/* ros2_control, joint_limits: compute_position_limits, by which the resource manager's JointSaturationLimiter clamps
 * a position command: |v| + A dt, at most V, on either side of the previous command. */
static int32_t ros2_range_admit(const kz_limit *l, kz_axis *a, int32_t want, uint8_t coast, uint8_t *rules) {
  const int64_t speed = llabs((int64_t)a->v) + l->h, most = speed < l->w ? speed : l->w;
  const int64_t lower = clamp(a->q - most, l->lo, l->hi), upper = clamp(a->q + most, lower, l->hi);
  (void)coast;
  return apply(a, want, clamp(want, lower, upper), rules);
}

/* ros2_control, joint_limits: JointSaturationLimiter on trajectory points with positions: position, velocity and
 * acceleration limits in sequence, then braking if the stopping distance v^2/2A, or the way gone at full speed while
 * stopping, v^2/A, is not left. Positions follow by q + v0 dt + a dt^2/2, as there. */
static int32_t ros2_saturation_admit(const kz_limit *l, kz_axis *a, int32_t want, uint8_t coast, uint8_t *rules) {
  const double h = l->h, v0 = a->v;
  double position = (double)clamp(want, l->lo, l->hi), v = fmax(fmin(position - a->q, l->w), -(double)l->w), left, acc;
  (void)coast;
  position = a->q + v;
  if (fabs(v - v0) > h) {
    acc = copysign(h, v - v0);
    v = v0 + acc;
    position = a->q + v0 + 0.5 * acc;
  }
  left = v < 0 ? (double)a->q - l->lo : (double)l->hi - a->q;
  if (v != 0 && left < v * v / h) {
    acc = copysign(fmin(fabs(v0), h), -v0);
    position = a->q + v0 + 0.5 * acc;
  }
  return apply(a, want, llround(position), rules);
}

static const struct {
  const char *name;
  admit admit;
} GUARDS[] = {{"kz_guard", kz_admit},
              {"naive", naive_admit},
              {"parabola", parabola_admit},
              {"ros2_range", ros2_range_admit},
              {"ros2_saturation", ros2_saturation_admit}};

/* The others know no misses: the nearest to it is the last step again. */
static void miss(size_t guard, const kz_limit *l, kz_axis *a, int may_coast) {
  uint8_t rules = 0;
  if (guard == 0)
    kz_miss(l, a, may_coast);
  else
    GUARDS[guard].admit(l, a, clip32((int64_t)a->q + a->v), 0, &rules);
}

/* Whether kz_admit or kz_quick does anything else than the window says. */
static int differs(const kz_limit *l, const kz_axis *before, int32_t want, uint8_t coast) {
  const kz_window k = kz_admissible(l, before, coast);
  const int64_t ask = (int64_t)want - before->q, v = clamp(ask, k.down, k.up);
  const uint8_t expected = ask > k.up ? k.up_rules : ask < k.down ? k.down_rules : 0;
  kz_axis a = *before;
  uint8_t rules = 0;
  const int32_t q = kz_admit(l, &a, want, coast, &rules);
  return k.down > k.up || (kz_quick(l, before, ask, coast) && v != ask) || q != a.q || a.v != v || (int64_t)a.q - before->q != v || rules != expected;
}

/* Any state that can come about: outside the range too, and faster than w where w has just been reduced. */
static int differs_anywhere(const kz_limit *l, uint8_t coast) {
  const int64_t room = between(0, 3) ? 0 : l->w;
  kz_axis a;
  kz_seed(&a, (int32_t)clamp(between((int64_t)l->lo - room, (int64_t)l->hi + room), -KZ_RAW_MAX, KZ_RAW_MAX));
  a.v = (int32_t)(between(-1, 1) * magnitude(clamp(2 * (int64_t)l->w, 1, KZ_RAW_MAX)));
  return differs(l, &a, clip32((int64_t)a.q + a.v + between(-3 * (int64_t)l->h, 3 * (int64_t)l->h)), coast);
}

typedef struct {
  uint64_t steps, range, step, change, at_range;
} followed;

/* A joint that goes as it is told, and is measured with an error of at most `error` quanta each period. What it does is
 * judged by where it is, not by what was measured. While commands are missing nothing is measured either. */
static void follow_a_joint(followed *f, size_t guard, int64_t steps) {
  kz_limit l = random_limit();
  const int coast = (int)between(0, 8);
  const int64_t error = between(0, 2) ? magnitude(1 << 20) : 0;
  int burst = 0, missed = 0, side = 1;
  int64_t real;
  kz_axis a;
  l.lo /= 2; /* room for the error on both sides */
  l.hi /= 2;
  l.w = (int32_t)clamp(l.w, 1, KZ_RAW_MAX / 4);
  real = between(l.lo, l.hi);
  kz_seed(&a, (int32_t)real);
  for (int64_t step = 0; step < steps; ++step) {
    const kz_axis before = a;
    int64_t change;
    if (burst == 0 && random64() % 100 == 0) burst = (int)between(1, 2 * coast + 4);
    if (burst > 0) {
      --burst;
      miss(guard, &l, &a, missed++ < coast);
    } else {
      uint8_t rules = 0;
      missed = 0;
      a.q = (int32_t)(real + between(-error, error));
      if (random64() % 256 == 0) side = -side;
      GUARDS[guard].admit(&l, &a, clip32(a.q + between(-(int64_t)l.w, 3 * (int64_t)l.w) * side), (uint8_t)coast, &rules);
    }
    change = (int64_t)a.v - before.v;
    real += a.v;
    f->steps++;
    if (real > l.hi + error || real < l.lo - error) f->range++;
    if (real >= l.hi || real <= l.lo) f->at_range++;
    if (a.v > l.w || a.v < -l.w) f->step++;
    if (change > l.h || change < -(int64_t)l.h) f->change++;
  }
}

int main(int argc, char **argv) {
  uint64_t bad_range = 0, bad_step = 0, bad_change = 0, checked = 0, passed = 0, altered = 0, not_nearest = 0;
  uint64_t at_position = 0, at_velocity = 0, at_acceleration = 0, sticks = 0, frozen = 0, silent = 0;
  uint64_t misses = 0, beyond = 0, differ = 0;
  followed joint = {0, 0, 0, 0, 0};
  double least_reach = 1.0, seconds;
  const char *name = argc > 3 ? argv[3] : GUARDS[0].name;
  size_t guard = 0;
  int64_t total, done = 0;
  struct timespec t0, t1;
  while (guard < sizeof GUARDS / sizeof *GUARDS && strcmp(GUARDS[guard].name, name) != 0) ++guard;
  if (argc < 3 || (total = strtoll(argv[1], NULL, 10)) <= 0 || guard == sizeof GUARDS / sizeof *GUARDS) {
    fprintf(stderr, "usage: prove_guard N SEED [kz_guard | naive | parabola | ros2_range | ros2_saturation]\n");
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
    const int64_t last = range / l.h > 40000 ? 400 : range / l.h;
    const int64_t crossing = 2 * (range / l.w + l.w / l.h) + 40 * (1 + coast) + 2 * last;
    const int64_t steps = driver == STICK ? 2 * crossing : 4000;
    int side = (int)(random64() & 1), burst = 0, missed = 0;
    int64_t step, high, low;
    kz_axis a;
    if (driver == STICK && steps > 400000) continue;
    follow_a_joint(&joint, guard, 400);
    kz_seed(&a, (int32_t)between(l.lo, l.hi));
    high = low = a.q;
    for (step = 0; step < steps && done < total; ++step, ++done) {
      const kz_axis before = a;
      int64_t change;
      if (with_misses && burst == 0 && random64() % 50 == 0) burst = (int)between(1, 2 * coast + 4);
      if (burst > 0) {
        const int within = missed++ < coast;
        --burst;
        ++misses;
        if (!within) ++beyond;
        miss(guard, &l, &a, within);
      } else {
        const int32_t want = propose(driver, &l, &a, step, steps, &side);
        uint8_t rules = 0;
        missed = 0;
        GUARDS[guard].admit(&l, &a, want, (uint8_t)coast, &rules);
        if (rules == 0 && a.q != want) silent++;
        if (guard == 0 && (random64() & 7) == 0)
          differ += differs(&l, &before, want, (uint8_t)coast) + differs_anywhere(&l, (uint8_t)coast);
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
    if (driver == STICK && step == steps) {
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
         ", \"step\": %" PRIu64 ", \"change\": %" PRIu64 "}, \"misses\": %" PRIu64
         ", \"misses_beyond_budget\": %" PRIu64 ", \"checked\": %" PRIu64
         ", \"admissible\": %" PRIu64 ", \"altered\": %" PRIu64 ", \"not_nearest\": %" PRIu64 ", \"silent\": %" PRIu64
         ", \"sticks\": %" PRIu64 ", \"frozen\": %" PRIu64
         ", \"least_reach\": %.6f, \"attained\": {\"position\": %" PRIu64 ", \"velocity\": %" PRIu64
         ", \"acceleration\": %" PRIu64 "}, \"differs\": %" PRIu64 ", \"joint\": {\"steps\": %" PRIu64
         ", \"range\": %" PRIu64 ", \"step\": %" PRIu64 ", \"change\": %" PRIu64 ", \"at_range\": %" PRIu64
         "}, \"steps_per_s\": %.0f}\n",
         done, argv[2], name, bad_range, bad_step, bad_change, misses, beyond, checked, passed, altered,
         not_nearest, silent, sticks, frozen, least_reach, at_position, at_velocity, at_acceleration, differ,
         joint.steps, joint.range, joint.step, joint.change, joint.at_range, (double)done / seconds);
  return bad_range || bad_step || bad_change || altered || not_nearest || silent || frozen || least_reach <= 0.99 ||
         !sticks || !passed || !at_position || !at_velocity || !at_acceleration || differ || joint.range ||
         joint.step || joint.change || !joint.at_range;
}
