/* prove_coupled N SEED [naive] — N adversarial joint-steps through kz_coupled, checked in integers after each one.
 *
 * Coefficients, bounds and quanta are small integers times powers of two, so that every rule can be judged without
 * rounding. Prints one JSON line; exit status 0 if
 *  - sound: on every applied value, each joint's range, step and change of step, and each rule on positions, also while
 *    commands are missing and the node coasts and brakes joint by joint; each rule on velocities on what the guard sends;
 *  - switched: rules that are switched on while the joints move are broken no further, and hold from the first rest inside
 *    them on; speeds that are halved on the way lead to braking, together where joints are coupled;
 *  - narrowed: where the change of a step is limited, and the joints' own limits leave a choice, it stays within that
 *    unless the guard brakes or retracts;
 *  - transparent: on a sample, a proposal that brute force finds admissible (all corners of what can be reached) passes
 *    unchanged;
 *  - alive: the rules are attained, and a braking that keeps the rules was always possible.
 * With `naive` joints are guarded one by one: the harness must then find violations. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../kz_coupled.h"
#include "prove_random.h"

#define RATE 500
#define FRACTION 10 /* coefficients are multiples of 2^-10 */
#define QUANTUM 21  /* and positions of 2^-21 rad */

typedef __int128 wide;

/* The same rules as kz_coupled has, as integers: a.z <= b with z in quanta (per period), z'Qz <= r. */
typedef struct {
  int64_t a[KZ_PROJECT_N], b;
} int_row;
typedef struct {
  int64_t q[KZ_PROJECT_N][KZ_PROJECT_N];
  wide r;
} int_quad;

static int_row rows[KZ_PROJECT_ROWS];
static int_quad quads[KZ_PROJECT_QUADS];
static kz_coupled g;
static int32_t full[KZ_PROJECT_N], jerk[KZ_PROJECT_N]; /* w at full speed; largest change of the change of a step */
static uint64_t settled; /* rules on positions that hold from now on: all of them, but for those just switched on */

static wide row_value(const int_row *r, const int64_t *z) {
  wide s = 0;
  for (int32_t i = 0; i < g.n; i++) s += (wide)r->a[i] * z[i];
  return s;
}

static wide quad_value(const int_quad *f, const int64_t *z) {
  wide s = 0;
  for (int32_t i = 0; i < g.n; i++)
    for (int32_t j = 0; j < g.n; j++) s += (wide)f->q[i][j] * z[i] * z[j];
  return s;
}

static void random_rules(void) {
  const double unit = 1.0 / (1 << QUANTUM), coefficient = 1.0 / (1 << FRACTION);
  memset(&g, 0, sizeof g);
  g.n = (int32_t)between(2, 7);
  g.rate = RATE;
  g.coast = (uint8_t)between(0, 6);
  for (int32_t i = 0; i < g.n; i++) {
    kz_limit *l = &g.limit[i];
    g.quantum[i] = unit;
    g.group[i] = (uint8_t)i;
    l->hi = (int32_t)between(1 << 19, 3 << 20);
    l->lo = -(int32_t)between(1 << 19, 3 << 20);
    l->w = (int32_t)between(800, 8000);
    l->h = (int32_t)between(30, 200);
  }
  g.rows = (int32_t)between(0, 12);
  g.quads = (int32_t)(g.rows ? between(0, 2) : 1);
  for (int32_t j = 0; j < g.rows; j++) {
    int_row *r = &rows[j];
    kz_row *f = &g.row[j];
    const int on_velocity = between(0, 3) == 0;
    int64_t size = 0;
    for (int32_t i = 0; i < g.n; i++) {
      r->a[i] = between(0, 2) ? between(-1024, 1024) : 0;
      size += r->a[i] < 0 ? -r->a[i] : r->a[i];
    }
    if (!size) size = r->a[0] = 1024;
    f->on = on_velocity ? KZ_ON_VELOCITY : KZ_ON_POSITION;
    f->hard = 1;
    /* position: a.q <= b, the origin inside. velocity: rate * a.v <= b. */
    r->b = on_velocity ? size * between(200, 4000) * RATE : size * between(1 << 15, 1 << 20);
    for (int32_t i = 0; i < g.n; i++) f->a[i] = (double)r->a[i] * coefficient;
    f->b = (double)r->b * coefficient * unit;
    if (!on_velocity) continue;
    uint8_t group = 255; /* joined, as the gateway's build does: whatever shares a rule on velocities */
    for (int32_t i = 0; i < g.n; i++)
      if (r->a[i]) {
        const uint8_t old = g.group[i];
        if (group == 255) group = old;
        for (int32_t k = 0; k < g.n; k++)
          if (g.group[k] == old) g.group[k] = group;
      }
  }
  for (int32_t k = 0; k < g.quads; k++) { /* Q = L L' on positions */
    int64_t l[KZ_PROJECT_N][KZ_PROJECT_N];
    const int64_t radius = between(1 << 17, 1 << 20);
    for (int32_t i = 0; i < g.n; i++)
      for (int32_t j = 0; j < g.n; j++) l[i][j] = i == j ? between(8, 32) : between(-8, 8);
    for (int32_t i = 0; i < g.n; i++)
      for (int32_t j = 0; j < g.n; j++) {
        quads[k].q[i][j] = 0;
        for (int32_t m = 0; m < g.n; m++) quads[k].q[i][j] += l[i][m] * l[j][m];
        g.quad[k].q[i][j] = (double)quads[k].q[i][j] * coefficient;
      }
    quads[k].r = (wide)400 * radius * radius;
    g.quad[k].r = (double)quads[k].r * coefficient * unit * unit;
    g.quad[k].on = KZ_ON_POSITION;
    g.quad[k].hard = 1;
  }
  g.enabled = settled = g.rows ? ~(uint64_t)0 >> (64 - g.rows) : 0;
  g.narrowed = between(0, 2) == 0;
  for (int32_t i = 0; i < g.n; i++) {
    full[i] = g.limit[i].w;
    jerk[i] = (int32_t)between(1, g.limit[i].h);
  }
  kz_coupled_prepare(&g);
}

/* Now and then a few rows off, now and then all of them on. */
static void switch_rows(void) {
  const uint64_t every = ~(uint64_t)0 >> (64 - g.rows), before = g.enabled;
  g.enabled = random64() & 1 ? every : before & random64();
  settled &= before & g.enabled;
}

/* At full speed, or at half of it. */
static void change_speed(void) {
  const int slow = (int)(random64() & 1);
  for (int32_t i = 0; i < g.n; i++) g.limit[i].w = slow ? full[i] / 2 : full[i];
}

/* At rest, and inside: from here on a rule holds. */
static void settle(const kz_axis *axis) {
  int64_t q[KZ_PROJECT_N];
  if (settled == g.enabled) return;
  for (int32_t i = 0; i < g.n; i++) {
    q[i] = axis[i].q;
    if (axis[i].v) return;
  }
  for (int32_t j = 0; j < g.rows; j++)
    if ((g.enabled >> j & 1) && (g.row[j].on != KZ_ON_POSITION || row_value(&rows[j], q) <= rows[j].b))
      settled |= (uint64_t)1 << j;
}

static int position_rules_hold(const int64_t *q) {
  for (int32_t j = 0; j < g.rows; j++)
    if ((settled >> j & 1) && g.row[j].on == KZ_ON_POSITION && row_value(&rows[j], q) > rows[j].b) return 0;
  for (int32_t k = 0; k < g.quads; k++)
    if (quad_value(&quads[k], q) > quads[k].r) return 0;
  return 1;
}

/* Of rules that have just been switched on: none is broken, or broken further. */
static int broken_no_further(const int64_t *before, const int64_t *after) {
  for (int32_t j = 0; j < g.rows; j++) {
    const wide was = row_value(&rows[j], before), is = row_value(&rows[j], after);
    if ((g.enabled & ~settled) >> j & 1 && g.row[j].on == KZ_ON_POSITION && is > rows[j].b && is > was) return 0;
  }
  return 1;
}

static int velocity_rules_hold(const int64_t *v) {
  for (int32_t j = 0; j < g.rows; j++)
    if ((g.enabled >> j & 1) && g.row[j].on == KZ_ON_VELOCITY && row_value(&rows[j], v) * RATE > rows[j].b) return 0;
  return 1;
}

/* Whether each change of a step is as near to the last one as `least` and `most` say, where the joint's own limits leave
 * that choice. */
static int kept_narrow(const kz_axis *before, const kz_axis *after) {
  for (int32_t i = 0; i < g.n; i++) {
    const kz_window w = kz_admissible(&g.limit[i], &before[i], g.coast);
    if (w.up < g.least[i] || w.down > g.most[i]) continue;
    if (after[i].v < g.least[i] || after[i].v > g.most[i]) return 0;
  }
  return 1;
}

/* Brute force: is every corner of what can be reached after this step inside everything? Travel is simulated: coasting,
 * then each joint braking by its limit, those of a group in proportion to the slowest to stop. A quadratic is convex, so
 * corners suffice. */
static int admissible(const kz_axis *axis, const int64_t *v) {
  int64_t end[KZ_PROJECT_N], q[KZ_PROJECT_N];
  for (int32_t i = 0; i < g.n; i++) {
    if (g.narrowed && (v[i] < g.least[i] || v[i] > g.most[i])) return 0;
    const kz_limit *l = &g.limit[i];
    const int64_t s = v[i] < 0 ? -v[i] : v[i], change = v[i] - axis[i].v;
    double share = (double)l->h / (double)(s ? s : 1), far = (double)(g.coast * s); /* of s, braked a period */
    if (s > l->w || change > l->h || change < -(int64_t)l->h) return 0;
    for (int32_t k = 0; k < g.n; k++) {
      const double other = (double)g.limit[k].h / (double)(v[k] < 0 ? -v[k] : v[k]);
      if (g.group[k] == g.group[i] && v[k] && other < share) share = other;
    }
    for (double rest = 1 - share; rest > 0; rest -= share) far += rest * (double)s;
    q[i] = axis[i].q + v[i];
    far = ceil(far - 1e-6) + (g.group[i] == i ? 0 : 1);
    end[i] = q[i] + (v[i] < 0 ? -(int64_t)far : (int64_t)far);
    if (end[i] > g.limit[i].hi || end[i] < g.limit[i].lo || q[i] > g.limit[i].hi || q[i] < g.limit[i].lo) return 0;
  }
  for (uint32_t corner = 0; corner < 1u << g.n; corner++) {
    int64_t at[KZ_PROJECT_N];
    for (int32_t i = 0; i < g.n; i++) at[i] = corner >> i & 1 ? end[i] : q[i];
    if (!position_rules_hold(at)) return 0;
  }
  return velocity_rules_hold(v) && settled == g.enabled;
}

int main(int argc, char **argv) {
  uint64_t bad_joint = 0, bad_position = 0, bad_velocity = 0, checked = 0, passed = 0, altered = 0, stuck = 0;
  uint64_t took[5] = {0}, missed_steps = 0, near = 0, episodes = 0, bad_switched = 0, switched = 0, bad_jerk = 0;
  uint64_t narrow = 0, slowed = 0;
  const int naive = argc > 3 && strcmp(argv[3], "naive") == 0;
  int64_t total, done = 0;
  struct timespec t0, t1;
  if (argc < 3 || (total = strtoll(argv[1], NULL, 10)) <= 0) {
    fprintf(stderr, "usage: prove_coupled N SEED [naive]\n");
    return 2;
  }
  state = strtoull(argv[2], NULL, 10) * 0x9E3779B97F4A7C15ull + 1;
  timespec_get(&t0, TIME_UTC);
  while (done < total) {
    kz_axis axis[KZ_PROJECT_N] = {{0, 0}};
    int32_t change[KZ_PROJECT_N] = {0};
    int32_t far[KZ_PROJECT_N] = {0};
    int burst = 0, missed = 0, room = 1;
    const int steps = 3000;
    const int driver = (int)between(0, 3), switching = between(0, 2) == 0;
    random_rules();
    episodes++;
    for (int step = 0; step < steps && done < total; step++, done += g.n) {
      kz_axis before[KZ_PROJECT_N];
      int64_t q[KZ_PROJECT_N], v[KZ_PROJECT_N], at[KZ_PROJECT_N];
      int commanded = 1, broke = 0;
      memcpy(before, axis, sizeof before);
      if (switching && !naive && g.rows && random64() % 150 == 0) switch_rows();
      if (switching && random64() % 300 == 0) change_speed();
      settle(axis);
      /* A burst that follows before the guard has stopped braking counts as the same one. */
      if (burst == 0 && room && random64() % 120 == 0) burst = (int)between(1, 2 * g.coast + 4);
      if (step > 2700 && room) burst = steps; /* the link is cut: the node stops alone */
      if (burst > 0) {
        burst--;
        commanded = 0;
        missed_steps++;
        for (int32_t i = 0; i < g.n; i++) kz_miss(&g.limit[i], &axis[i], missed < g.coast);
        missed++;
      } else {
        int32_t want[KZ_PROJECT_N];
        uint8_t rules[KZ_PROJECT_N] = {0};
        int64_t ask[KZ_PROJECT_N];
        const int redraw = random64() % 200 == 0 || step == 0;
        missed = 0;
        for (int32_t i = 0; i < g.n; i++) {
          const kz_limit *l = &g.limit[i];
          if (redraw) far[i] = (int32_t)between((int64_t)l->lo * 2, (int64_t)l->hi * 2);
          if (driver == 1 && redraw) far[i] = random64() & 1 ? l->hi * 2 : l->lo * 2;
          want[i] = driver == 2   ? (int32_t)(axis[i].q + axis[i].v + between(-l->h, l->h))
                    : driver == 3 ? (int32_t)between((int64_t)l->lo * 2, (int64_t)l->hi * 2)
                                  : far[i];
          ask[i] = (int64_t)want[i] - axis[i].q;
        }
        if (naive) {
          for (int32_t i = 0; i < g.n; i++) kz_admit(&g.limit[i], &axis[i], want[i], g.coast, &rules[i]);
        } else {
          int32_t how;
          for (int32_t i = 0; g.narrowed && i < g.n; i++) {
            g.least[i] = axis[i].v + change[i] - jerk[i];
            g.most[i] = axis[i].v + change[i] + jerk[i];
          }
          how = kz_coupled_admit(&g, axis, want, rules);
          took[how]++;
          room = how != KZ_TOOK_BRAKE;
          broke = g.braking_broke;
          for (int32_t i = 0; i < g.n; i++) v[i] = before[i].v;
          stuck += broke && velocity_rules_hold(v) && settled == g.enabled;
          if (g.narrowed && settled == g.enabled && how < KZ_TOOK_RETRACTED) {
            narrow++;
            bad_jerk += !kept_narrow(before, axis);
          }
          if (g.quads == 0 && random64() % 8 == 0) { /* of quadratics the guard knows a bound, not the corners */
            checked++;
            if (admissible(before, ask)) {
              passed++;
              for (int32_t i = 0; i < g.n; i++)
                if (axis[i].q != want[i]) {
                  altered++;
                  break;
                }
            }
          }
        }
      }
      for (int32_t i = 0; i < g.n; i++) {
        const kz_limit *l = &g.limit[i];
        const int64_t speed = axis[i].v < 0 ? -(int64_t)axis[i].v : axis[i].v;
        const int64_t was = before[i].v < 0 ? -(int64_t)before[i].v : before[i].v;
        change[i] = axis[i].v - before[i].v;
        q[i] = axis[i].q;
        v[i] = axis[i].v;
        if (q[i] < l->lo || q[i] > l->hi || speed > full[i] || (speed > l->w && speed > was) || change[i] > l->h ||
            change[i] < -l->h || q[i] - before[i].q != v[i])
          bad_joint++;
        slowed += speed > l->w;
      }
      if (!position_rules_hold(q)) bad_position++;
      for (int32_t i = 0; i < g.n; i++) at[i] = before[i].q;
      if (settled != g.enabled) switched++;
      if (commanded && !broke && !broken_no_further(at, q)) bad_switched++;
      for (int32_t i = 0; i < g.n; i++) q[i] = before[i].v;
      /* A node that stops alone does not keep joints in proportion; from there the guard only brakes. */
      if (commanded && !velocity_rules_hold(v) && velocity_rules_hold(q)) bad_velocity++;
      for (int32_t i = 0; i < g.n; i++) q[i] = axis[i].q;
      for (int32_t j = 0; j < g.rows; j++)
        if (g.row[j].on == KZ_ON_POSITION && row_value(&rows[j], q) > rows[j].b - rows[j].b / 50) {
          near++;
          break;
        }
    }
  }
  timespec_get(&t1, TIME_UTC);
  printf("{\"joint_steps\": %" PRId64 ", \"seed\": %s, \"guard\": \"%s\", \"episodes\": %" PRIu64
         ", \"violations\": {\"joint\": %" PRIu64 ", \"position\": %" PRIu64 ", \"velocity\": %" PRIu64
         ", \"switched\": %" PRIu64 ", \"jerk\": %" PRIu64 "}, \"switched\": %" PRIu64 ", \"narrowed\": %" PRIu64
         ", \"slowed\": %" PRIu64 ", \"misses\": %" PRIu64 ", \"checked\": %" PRIu64 ", \"admissible\": %" PRIu64 ", \"altered\": %" PRIu64
         ", \"braking_broke\": %" PRIu64 ", \"near_a_row\": %" PRIu64 ", \"took\": {\"proposal\": %" PRIu64
         ", \"clamped\": %" PRIu64 ", \"projected\": %" PRIu64 ", \"retracted\": %" PRIu64 ", \"brake\": %" PRIu64
         "}, \"joint_steps_per_s\": %.0f}\n",
         done, argv[2], naive ? "naive" : "kz_coupled", episodes, bad_joint, bad_position, bad_velocity,
         bad_switched, bad_jerk, switched, narrow, slowed, missed_steps, checked, passed, altered, stuck, near, took[0], took[1], took[2], took[3], took[4],
         (double)done / ((double)(t1.tv_sec - t0.tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0.tv_nsec)));
  return bad_joint || bad_position || bad_velocity || bad_switched || bad_jerk || altered || !passed || !near || !took[2] ||
         stuck || !switched || !narrow || !slowed;
}
