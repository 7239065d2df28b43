#include "guard_glue.h"

#include <math.h>

static int32_t to_raw(int64_t q) { return (int32_t)(q > KZ_RAW_MAX ? KZ_RAW_MAX : q < -KZ_RAW_MAX ? -KZ_RAW_MAX : q); }

static int32_t to_quanta(double si, double quantum) {
  double x = si / quantum; /* exact for the power-of-two quanta that we choose ourselves */
  if (x > KZ_RAW_MAX) return KZ_RAW_MAX;
  if (x < -KZ_RAW_MAX) return -KZ_RAW_MAX;
  return (int32_t)(x < 0 ? x - 0.5 : x + 0.5);
}

void kzh_guard_seed(kzh_guard *g, const double *position) {
  for (int32_t i = 0; i < g->n; i++) kz_seed(&g->axis[i], to_quanta(position[i], g->quantum[i]));
  kzh_guard_clear(g);
}

/* Stand on what the node says it applied. The step is exact unless a STATE was lost; a guess that is beyond w, that
 * could not stop inside the limits, or that leads further out is reduced to one that is not, so that the next command
 * is admissible whatever happened. */
void kzh_guard_rebase(kzh_guard *g, const int32_t *q, const int32_t *step) {
  for (int32_t i = 0; i < g->n; i++) {
    const kz_limit *l = &g->limit[i];
    kz_axis *a = &g->axis[i];
    kz_seed(a, q[i]);
    a->v = step[i] > l->w ? l->w : step[i] < -l->w ? -l->w : step[i];
    if ((a->q > l->hi && a->v > 0) || (a->q < l->lo && a->v < 0)) a->v = 0;
    if (a->q >= l->lo && a->q <= l->hi && !kz_viable(l, a)) {
      if (a->v > 0)
        a->v = kz_reach(l->hi - a->q, l->h, 0) + l->h;
      else
        a->v = -kz_reach(a->q - l->lo, l->h, 0) - l->h;
    }
  }
}

static void emit(const kzh_guard *g, float *out) {
  for (int32_t i = 0; i < g->n; i++) out[i] = (float)(g->axis[i].q * g->quantum[i]);
}

static void no_rows(kzh_guard *g) {
  g->rows = g->relaxed = 0;
  g->quads = g->relaxed_quads = 0;
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

static void without_command(kzh_guard *g, int may_coast, uint8_t rule, float *out) {
  int32_t last[KZ_MAX_CH];
  int braked = 0;
  g->followed = 0;
  no_rows(g);
  for (int32_t i = 0; i < g->n; i++) last[i] = g->axis[i].v;
  if (g->coupled)
    stop_coupled(g, may_coast);
  else
    for (int32_t i = 0; i < g->n; i++) kz_miss(&g->limit[i], &g->axis[i], may_coast);
  for (int32_t i = 0; i < g->n; i++) {
    g->rules[i] = rule;
    braked |= g->axis[i].v != last[i];
  }
  g->status = g->latched ? KZH_ESTOP : braked ? KZH_BRAKE : KZH_HOLD;
  g->intervention = INFINITY;
  emit(g, out);
}

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

void kzh_guard_step(kzh_guard *g, const float *command, float *out) {
  int32_t want[KZ_MAX_CH], aim[KZ_MAX_CH], took = KZH_PASS;
  int finite = 1;
  double norm2 = 0;
  for (int32_t i = 0; i < g->n; i++) finite &= isfinite(command[i]) != 0;
  g->bad_run = finite ? 0 : g->bad_run + (g->bad_run < UINT32_MAX);
  if (g->bad_run >= g->nan_ticks) g->latched = 1;
  if (!finite || g->latched) {
    without_command(g, !g->latched && g->bad_run == 1, finite ? 0 : KZH_RULE_NON_FINITE, out);
    return;
  }
  g->miss_run = 0;
  no_rows(g);
  for (int32_t i = 0; i < g->n; i++) {
    want[i] = to_quanta(command[i], g->quantum[i]);
    aim[i] = g->approach ? pursue(g, i, want[i]) : want[i];
    g->rules[i] = 0;
  }
  if (g->coupled) {
    took = kz_coupled_admit(g->coupled, g->axis, aim, g->rules);
    g->rows = g->coupled->active;
    g->relaxed = g->coupled->relaxed;
    g->quads = g->coupled->active_quads;
    g->relaxed_quads = g->coupled->relaxed_quads;
  } else {
    for (int32_t i = 0; i < g->n; i++)
      kz_admit(&g->limit[i], &g->axis[i], aim[i], (uint8_t)g->miss_budget, &g->rules[i]);
  }
  for (int32_t i = 0; i < g->n; i++) {
    const int32_t q = g->axis[i].q;
    const double d = q * g->quantum[i] - command[i];
    if (took >= KZH_PROJECTED && q != aim[i])
      g->rules[i] |= KZH_RULE_COUPLED;
    else if (q != want[i] && !g->rules[i])
      g->rules[i] = KZH_RULE_APPROACH;
    g->last_want[i] = want[i];
    if (!g->rules[i]) continue;
    norm2 += d * d;
    if (took == KZH_PASS) took = KZH_CLAMPED;
  }
  g->followed = 1;
  g->status = took;
  g->intervention = sqrt(norm2);
  emit(g, out);
}

void kzh_guard_miss(kzh_guard *g, float *out) {
  g->miss_run += g->miss_run < UINT32_MAX;
  without_command(g, !g->latched && g->miss_run <= g->miss_budget, KZH_RULE_MISS, out);
}

void kzh_guard_estop(kzh_guard *g) { g->latched = 1; }

void kzh_guard_clear(kzh_guard *g) {
  g->latched = 0;
  g->bad_run = g->miss_run = 0;
  g->followed = 0;
}
