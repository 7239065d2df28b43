#include "guard_glue.h"

#include "kz_quick.h"

#include <math.h>
#include <string.h>

static int32_t to_raw(int64_t q) { return (int32_t)(q > KZ_RAW_MAX ? KZ_RAW_MAX : q < -KZ_RAW_MAX ? -KZ_RAW_MAX : q); }

static int32_t to_quanta(double si, double unit) {
  double x = si / unit; /* exact for the power-of-two quanta that we choose ourselves */
  if (x > KZ_RAW_MAX) return KZ_RAW_MAX;
  if (x < -KZ_RAW_MAX) return -KZ_RAW_MAX;
  return (int32_t)(x < 0 ? x - 0.5 : x + 0.5);
}

/* Standing somewhere else: what was asked and done there counts no more. */
static void forget(kzh_guard *g) {
  memset(g->change, 0, sizeof g->change);
  g->followed = 0;
}

/* A velocity's quantum makes quantum/rate in a period; a joint that turns without end stays at 0. */
static int32_t place(const kzh_guard *g, int32_t i, double position) {
  if (!g->velocity) return to_quanta(position, g->unit[i]);
  return g->limit[i].hi == KZ_RAW_MAX ? 0 : to_quanta(position * g->rate_hz, g->unit[i]);
}

void kzh_guard_seed(kzh_guard *g, const double *position) {
  for (int32_t i = 0; i < g->n; i++) kz_seed(&g->axis[i], place(g, i, position[i]));
  forget(g);
}

/* Stand on what the node says it applied, in steps of at most full speed. The step is exact unless a STATE was lost; a
 * guess that could not stop inside the limits, or that leads further out, is reduced to one that is not, so that the
 * next command is admissible whatever happened. */
void kzh_guard_rebase(kzh_guard *g, const int32_t *q, const int32_t *step) {
  for (int32_t i = 0; i < g->n; i++) {
    const kz_limit *l = &g->limit[i];
    kz_axis *a = &g->axis[i];
    const kz_axis before = *a;
    if (g->velocity) { /* what was sent; where the joint is, is measured */
      a->v = to_raw(q[i]);
      if (a->v != before.v) g->change[i] = 0;
      continue;
    }
    kz_seed(a, q[i]);
    a->v = step[i];
    if ((a->q > l->hi && a->v > 0) || (a->q < l->lo && a->v < 0)) a->v = 0;
    if (a->q >= l->lo && a->q <= l->hi && !kz_viable(l, a)) {
      if (a->v > 0)
        a->v = kz_reach(l->hi - a->q, l->h, 0) + l->h;
      else
        a->v = -kz_reach(a->q - l->lo, l->h, 0) - l->h;
    }
    if (a->q != before.q || a->v != before.v) g->change[i] = 0; /* not where we left it: how it came there is unknown */
  }
}

/* Velocity commands stand where the joint is, and go on from the last step sent. */
void kzh_guard_measure(kzh_guard *g, const double *position) {
  for (int32_t i = 0; i < g->n; i++) g->axis[i].q = place(g, i, position[i]);
}

static void emit(kzh_guard *g, float *out) {
  for (int32_t i = 0; i < g->n; i++) {
    kz_axis *a = &g->axis[i];
    out[i] = (float)((g->velocity ? a->v : a->q) * g->unit[i]);
    if (g->velocity) a->q = g->limit[i].hi == KZ_RAW_MAX ? 0 : to_raw(a->q); /* 0: turns without end */
  }
}

/* How the steps have changed; 1 if one of the changes has changed by more than the jerk limit. */
static uint32_t note_changes(kzh_guard *g, const kz_axis *before) {
  uint32_t jerked = 0;
  for (int32_t i = 0; i < g->n; i++) {
    const int32_t change = g->axis[i].v - before[i].v;
    const int64_t jerk = (int64_t)change - g->change[i];
    jerked |= g->jerk[i] && (jerk > g->jerk[i] || -jerk > g->jerk[i]);
    g->change[i] = change;
  }
  return jerked;
}

/* Where joints are coupled, they coast together or brake in proportion. */
static void stop_coupled(kzh_guard *g, int may_coast) {
  int32_t v[KZ_MAX_CH];
  for (int32_t i = 0; i < g->n; i++) {
    const kz_axis next = {g->axis[i].q + g->axis[i].v, g->axis[i].v};
    v[i] = g->axis[i].v;
    may_coast = may_coast && (v[i] == 0 || kz_viable(&g->limit[i], &next));
  }
  if (may_coast && kz_coupled_keeps(g->coupled, g->axis, v, 0))
    for (int32_t i = 0; i < g->n; i++) kz_move(&g->axis[i], v[i]);
  else
    kz_coupled_brake(g->coupled, g->axis);
}

static void stop(kzh_guard *g, int may_coast, uint8_t rule, float *out) {
  kzh_verdict *verdict = &g->verdict;
  kz_axis before[KZ_MAX_CH];
  int braked = 0;
  memcpy(before, g->axis, sizeof before);
  g->followed = 0;
  if (g->coupled)
    stop_coupled(g, may_coast);
  else
    for (int32_t i = 0; i < g->n; i++) kz_miss(&g->limit[i], &g->axis[i], may_coast);
  for (int32_t i = 0; i < g->n; i++) {
    verdict->rules[i] = rule;
    braked |= g->axis[i].v != before[i].v;
  }
  verdict->jerk_relaxed = note_changes(g, before);
  verdict->status = braked ? KZH_BRAKE : KZH_HOLD;
  verdict->shaped = verdict->relaxed = 0;
  verdict->intervention = INFINITY;
  emit(g, out);
}

void kzh_guard_coast(kzh_guard *g, uint8_t rule, float *out) { stop(g, 1, rule, out); }

void kzh_guard_brake(kzh_guard *g, uint8_t rule, float *out) { stop(g, 0, rule, out); }

/* The nearest admissible value, period after period, runs into a command that is far away at full speed, shoots past it
 * and circles it: admissible, but useless. Instead close the gap no faster than it can still be braked away, measured
 * against the command's own motion; half of h is left for that motion to change. A command that the acceleration
 * limit admits is not touched, nor is what kz_admit promises, whatever comes out of here. */
static int32_t pursue(const kzh_guard *g, int32_t i, int32_t want) {
  const kz_limit *l = &g->limit[i];
  const kz_axis *a = &g->axis[i];
  const int64_t ask = (int64_t)want - a->q;
  int64_t moves = g->followed ? (int64_t)want - g->last_want[i] : 0, gap, closing;
  if (ask - a->v <= l->h && a->v - ask <= l->h) return want;
  moves = moves > l->w ? l->w : moves < -l->w ? -l->w : moves;
  gap = ask - moves;
  closing = kz_reach(to_raw(gap < 0 ? -gap : gap), l->h > 1 ? l->h / 2 : 1, 0);
  return to_raw(a->q + moves + (gap < 0 ? -closing : closing));
}

/* The steps whose change differs from the last one by no more than the jerk limit. */
static void jerk_window(const kzh_guard *g, int32_t i, int32_t *least, int32_t *most) {
  const int64_t middle = (int64_t)g->axis[i].v + g->change[i], jerk = g->jerk[i] ? g->jerk[i] : 4ll * KZ_RAW_MAX;
  *least = to_raw(middle - jerk);
  *most = to_raw(middle + jerk);
}

/* Bits of quadratics, after those of rows; none where rows have taken all. */
static uint64_t after(uint8_t quads, int32_t rows) { return rows < 64 ? (uint64_t)quads << rows : 0; }

static int32_t admit_coupled(kzh_guard *g, const int32_t *aim, int jerk) {
  kz_coupled *c = g->coupled;
  int32_t took;
  c->narrowed = (uint8_t)jerk;
  for (int32_t i = 0; jerk && i < g->n; i++) jerk_window(g, i, &c->least[i], &c->most[i]);
  took = kz_coupled_admit(c, g->axis, aim, g->verdict.rules);
  g->verdict.shaped = c->active | after(c->active_quads, c->rows);
  g->verdict.relaxed = c->relaxed | after(c->relaxed_quads, c->rows);
  return took;
}

static void admit_each(kzh_guard *g, const int32_t *aim, int jerk) {
  for (int32_t i = 0; i < g->n; i++) {
    const kz_limit *l = &g->limit[i];
    uint8_t *rules = &g->verdict.rules[i];
    kz_window w;
    int32_t least, most, ask;
    if (!jerk) {
      const int64_t step = (int64_t)aim[i] - g->axis[i].q;
      if (kz_quick(l, &g->axis[i], step, g->miss_budget))
        kz_move(&g->axis[i], (int32_t)step);
      else
        kz_admit(l, &g->axis[i], aim[i], g->miss_budget, rules);
      continue;
    }
    jerk_window(g, i, &least, &most);
    w = kz_narrow(kz_admissible(l, &g->axis[i], g->miss_budget), least, most);
    ask = to_raw((int64_t)aim[i] - g->axis[i].q);
    if (ask > w.up || ask < w.down) *rules |= ask > w.up ? w.up_rules : w.down_rules;
    kz_move(&g->axis[i], ask > w.up ? w.up : ask < w.down ? w.down : ask);
  }
}

static int32_t asked(const kzh_guard *g, int32_t i, float command) {
  const int32_t raw = to_quanta(command, g->unit[i]);
  return g->velocity ? to_raw((int64_t)g->axis[i].q + raw) : raw;
}

int kzh_guard_follow(kzh_guard *g, const float *command, float *out) {
  kzh_verdict *verdict = &g->verdict;
  int32_t want[KZ_MAX_CH], aim[KZ_MAX_CH], took = KZH_PASS, jerk = 0, found = KZH_FINE;
  kz_axis before[KZ_MAX_CH];
  double norm2 = 0;
  for (int32_t i = 0; i < g->n; i++)
    if (!isfinite(command[i])) return KZH_NON_FINITE;
  for (int32_t i = 0; i < g->n; i++) {
    want[i] = asked(g, i, command[i]);
    aim[i] = g->approach ? pursue(g, i, want[i]) : want[i];
    verdict->rules[i] = 0;
    jerk |= g->jerk[i];
    if (g->axis[i].q < g->limit[i].lo || g->axis[i].q > g->limit[i].hi) found |= KZH_OUTSIDE;
  }
  memcpy(before, g->axis, sizeof(kz_axis) * (size_t)g->n);
  if (g->coupled) {
    took = admit_coupled(g, aim, jerk != 0);
    if (g->coupled->braking_broke) found |= KZH_INFEASIBLE;
  } else {
    admit_each(g, aim, jerk != 0);
  }
  verdict->jerk_relaxed = note_changes(g, before);
  for (int32_t i = 0; i < g->n; i++) {
    const int32_t q = g->axis[i].q;
    const double d = (g->velocity ? g->axis[i].v : q) * g->unit[i] - command[i];
    if (took >= KZH_PROJECTED && q != aim[i])
      verdict->rules[i] |= KZH_RULE_COUPLED;
    else if (q != want[i] && !verdict->rules[i])
      verdict->rules[i] = KZH_RULE_APPROACH;
    g->last_want[i] = want[i];
    if (!verdict->rules[i]) continue;
    norm2 += d * d;
    if (took == KZH_PASS) took = KZH_CLAMPED;
  }
  if (verdict->jerk_relaxed) took = KZH_BRAKE; /* the jerk limit holds outside of braking */
  g->followed = 1;
  verdict->status = took;
  verdict->intervention = norm2 > 0 ? sqrt(norm2) : 0;
  emit(g, out);
  return found;
}

void kzh_guard_motion(const kzh_guard *g, int32_t *q, int32_t *step) {
  for (int32_t i = 0; i < g->n; i++) {
    q[i] = g->axis[i].q;
    step[i] = g->axis[i].v;
  }
}

/* The same in SI units. */
void kzh_guard_applied(const kzh_guard *g, double *position, double *velocity) {
  for (int32_t i = 0; i < g->n; i++) {
    const double unit = g->unit[i];
    position[i] = g->axis[i].q * (g->velocity ? unit / g->rate_hz : unit);
    velocity[i] = g->axis[i].v * (g->velocity ? unit : unit * g->rate_hz);
  }
}

int kzh_guard_at_rest(const kzh_guard *g) {
  for (int32_t i = 0; i < g->n; i++)
    if (g->axis[i].v != 0) return 0;
  return 1;
}

/* Within one period at full speed of where the joints stand; of zero, for velocities, within one period's acceleration. */
int kzh_guard_asks_no_motion(const kzh_guard *g, const float *command) {
  for (int32_t i = 0; i < g->n; i++) {
    const int32_t most = g->velocity ? g->limit[i].h : g->limit[i].w;
    int64_t ask;
    if (!isfinite(command[i])) return 0;
    ask = (int64_t)asked(g, i, command[i]) - g->axis[i].q;
    if (ask > most || -ask > most) return 0;
  }
  return 1;
}
