#include "kz_rules.h"

#include <math.h>
#include <string.h>

#define ROUNDS 6 /* of projection and linearisation */
#define QUAD_PARENT 64 /* in `parent`: this is a quadratic's tangent */
#define FINEST 10 /* halvings of the way back to the brake */

static int32_t min32(int32_t a, int32_t b) { return a < b ? a : b; }
static int32_t max32(int32_t a, int32_t b) { return a > b ? a : b; }
static int32_t abs32(int32_t a) { return a < 0 ? -a : a; }

/* How the travel after a step grows with it: the slope of `travel` at v, with the leader's periods held. */
static void slopes(const kz_coupled *g, const int32_t *v, double *slope) {
  uint8_t lead[KZ_PROJECT_N];
  kz_leaders(g, v, lead);
  for (int32_t i = 0; i < g->n; i++) {
    const int32_t l = lead[g->group[i]];
    const double top = abs32(v[l]), h = g->limit[l].h, m = floor(top / h);
    slope[i] = g->coast + (l == i || m == 0 ? m : m - h * m * (m + 1) / (2 * top));
  }
}

/* Row j as a row of the step x (SI units per period), its reach linearised at the step that m describes. The reach is
 * convex: it lies above all its tangents, so that a row of the projection, once found, stays true. */
static void tangent(const kz_coupled *g, int32_t j, const kz_motion *m, const double *slope, double *a, double *b) {
  const kz_row *r = &g->row[j];
  *b = r->bound;
  if (r->on == KZ_ON_POSITION) {
    const double now = kz_dot(r->a, m->before, g->n);
    *b = kz_allowed(r->bound, r->hard, now) - now;
  }
  for (int32_t i = 0; i < g->n; i++) {
    a[i] = r->a[i];
    if (r->on == KZ_ON_POSITION && r->a[i] * m->beyond[i] > 0) {
      a[i] *= 1 + slope[i];
      *b -= r->a[i] * (m->beyond[i] - slope[i] * m->step[i]);
    } else if (r->on == KZ_ON_ACCELERATION) {
      *b += r->a[i] * (m->step[i] - m->change[i]) - fabs(r->a[i]) * g->quantum[i]; /* room to round to the lattice */
    }
  }
}

/* Quadratic k as a quadratic of the step x: on positions, at the corner of the reach that is farthest now, as that moves
 * with x. */
static void bend(kz_coupled *g, int32_t k, const kz_motion *m, const double *slope) {
  const kz_quadratic *f = &g->quad[k];
  const int32_t n = g->n;
  kz_projection *p = &g->projection;
  double from[KZ_PROJECT_N] = {0}, scale[KZ_PROJECT_N], b = f->bound;
  for (int32_t i = 0; i < n; i++) scale[i] = 1;
  if (f->on == KZ_ON_POSITION) {
    uint32_t corner;
    b = kz_allowed(f->bound, f->hard, kz_form(g, f, m->before));
    kz_farthest(g, f, m, -HUGE_VAL, &corner);
    for (int32_t i = 0; i < n; i++) {
      from[i] = m->before[i];
      if (!(corner >> i & 1)) continue;
      from[i] += m->beyond[i] - slope[i] * m->step[i];
      scale[i] += slope[i];
    }
  }
  p->r[k] = b - kz_form(g, f, from);
  for (int32_t i = 0; i < n; i++) {
    const double c = f->on == KZ_ON_POSITION ? f->c[i] : f->c[i] / g->rate;
    p->c[k][i] = (c + 2 * kz_dot(f->q[i], from, n)) * scale[i];
    for (int32_t j = 0; j < n; j++) p->q[k][i][j] = f->q[i][j] * scale[i] * scale[j];
  }
}

/* The problem of the first round: every rule, linearised at the clamped command. */
static void pose(kz_coupled *g, const kz_motion *m, const double *slope) {
  kz_projection *p = &g->projection;
  p->rows = g->rows;
  p->enabled = g->enabled;
  p->soft = g->soft;
  for (int32_t j = 0; j < g->rows; j++) tangent(g, j, m, slope, p->a[j], &p->b[j]);
  for (int32_t k = 0; k < g->quads; k++) bend(g, k, m, slope);
}

/* The tangent of quadratic k, as `bend` has just left it, at the step that m describes. */
static void flatten(const kz_coupled *g, int32_t k, const kz_motion *m, double *a, double *b) {
  const kz_projection *p = &g->projection;
  *b = p->r[k];
  for (int32_t i = 0; i < g->n; i++) {
    const double half = kz_dot(p->q[k][i], m->step, g->n);
    a[i] = 2 * half + p->c[k][i];
    *b += half * m->step[i];
  }
}

static void add(kz_coupled *g, int32_t parent, int32_t priority, int32_t hard) {
  kz_projection *p = &g->projection;
  g->parent[p->rows] = (uint8_t)parent;
  p->priority[p->rows] = (uint8_t)priority;
  p->enabled |= (uint64_t)1 << p->rows;
  if (!hard) p->soft |= (uint64_t)1 << p->rows;
  p->rows++;
}

/* And of the next: one more tangent for each rule that the last answer broke, while there is room. */
static void sharpen(kz_coupled *g, const kz_motion *m, const double *slope, uint64_t rows, uint32_t quads) {
  kz_projection *p = &g->projection;
  for (int32_t k = 0; k < g->quads && p->rows < KZ_PROJECT_ROWS; k++) {
    if (!(quads >> k & 1)) continue;
    bend(g, k, m, slope);
    flatten(g, k, m, p->a[p->rows], &p->b[p->rows]);
    add(g, QUAD_PARENT + k, g->quad[k].priority, g->quad[k].hard);
  }
  for (int32_t j = 0; j < g->rows && p->rows < KZ_PROJECT_ROWS; j++) {
    if (!(rows >> j & 1) || g->row[j].on != KZ_ON_POSITION) continue;
    tangent(g, j, m, slope, p->a[p->rows], &p->b[p->rows]);
    add(g, j, g->row[j].priority, g->row[j].hard);
  }
}

kz_window kz_narrow(kz_window w, int32_t least, int32_t most) {
  const int32_t down = min32(max32(w.down, least), w.up), up = max32(min32(w.up, most), w.down);
  if (down > w.down) w.down_rules = 0;
  if (up < w.up) w.up_rules = 0;
  w.down = down;
  w.up = up;
  return w;
}

static void commit(kz_axis *axis, const int32_t *v, int32_t n) {
  for (int32_t i = 0; i < n; i++) kz_move(&axis[i], v[i]);
}

/* What each joint may do alone, and how it brakes with its group. That belongs to the window, as braking alone does, also
 * where missed commands have used up the room for coasting or where w is now less than the step: as long as it ends
 * inside the range. */
static void windows(const kz_coupled *g, const kz_axis *axis, kz_window *w, int32_t *brake) {
  uint8_t lead[KZ_PROJECT_N];
  int beyond = 0;
  kz_motion m;
  for (int32_t i = 0; i < g->n; i++) brake[i] = axis[i].v;
  kz_leaders(g, brake, lead);
  for (int32_t i = 0; i < g->n; i++) {
    const int32_t l = lead[g->group[i]];
    w[i] = kz_admissible(&g->limit[i], &axis[i], g->coast);
    brake[i] = l == i ? kz_braked(&g->limit[i], &axis[i]) : kz_braked_with(g, axis, i, l);
    beyond |= brake[i] > w[i].up || brake[i] < w[i].down;
  }
  if (!beyond) return;
  kz_look(g, axis, brake, 0, &m);
  for (int32_t i = 0; i < g->n; i++) {
    const double end = (m.after[i] + m.beyond[i]) / g->quantum[i];
    if (brake[i] > w[i].up && end <= g->limit[i].hi) w[i].up = brake[i];
    if (brake[i] < w[i].down && end >= g->limit[i].lo) w[i].down = brake[i];
    brake[i] = max32(min32(brake[i], w[i].up), w[i].down);
  }
}

void kz_coupled_brake(const kz_coupled *g, kz_axis *axis) {
  kz_window w[KZ_PROJECT_N];
  int32_t v[KZ_PROJECT_N];
  windows(g, axis, w, v);
  commit(axis, v, g->n);
}

/* Outside a row on positions, as outside a range, joints move slowly. */
static void slow_down(const kz_coupled *g, const kz_axis *axis, const int32_t *brake, kz_window *w, uint8_t *rules) {
  double now[KZ_PROJECT_N];
  for (int32_t i = 0; i < g->n; i++) now[i] = axis[i].q * g->quantum[i];
  for (int32_t j = 0; j < g->rows; j++) {
    const kz_row *r = &g->row[j];
    if (r->on != KZ_ON_POSITION || !(g->enabled >> j & 1) || !r->hard || kz_dot(r->a, now, g->n) <= r->edge) continue;
    for (int32_t i = 0; i < g->n; i++) {
      const int32_t slow = max32(g->limit[i].w / 8, 1);
      if (r->a[i] == 0) continue;
      w[i].up = min32(w[i].up, max32(slow, brake[i]));
      w[i].down = max32(w[i].down, min32(-slow, brake[i]));
      rules[i] |= KZ_RULE_RECOVERY;
    }
  }
}

/* Rules behind rows of the projection: a bit per row, and per quadratic. */
static uint64_t rules_of(const kz_coupled *g, uint64_t rows, uint8_t *quads) {
  uint64_t found = 0;
  for (int32_t j = 0; j < g->projection.rows; j++) {
    const int32_t rule = j < g->rows ? j : g->parent[j];
    if (!(rows >> j & 1)) continue;
    if (rule < QUAD_PARENT)
      found |= (uint64_t)1 << rule;
    else
      *quads |= (uint8_t)(1u << (rule - QUAD_PARENT));
  }
  return found;
}

/* Nearest point of the linearised rules to `ask`; 0 if there is none. */
static int solve(kz_coupled *g, const double *ask, double *x) {
  kz_projection *p = &g->projection;
  if (kz_project_prepare(p) != 0 || kz_project(p, ask, 0, x) < 0) return 0;
  g->relaxed_quads = (uint8_t)p->quads_relaxed;
  g->relaxed = rules_of(g, p->relaxed, &g->relaxed_quads);
  g->active_quads |= (uint8_t)p->quads_active;
  g->active |= rules_of(g, p->active, &g->active_quads);
  return 1;
}

/* From the brake towards the command that was nearly admissible, as far as the hard rules let it: by halves, then into the
 * last half. Braking itself needs no rule's leave. */
static int32_t retract(kz_coupled *g, kz_axis *axis, const int32_t *v, const int32_t *brake, uint64_t hard, uint32_t quads) {
  const int32_t n = g->n;
  int32_t best[KZ_PROJECT_N], took = KZ_TOOK_BRAKE, reach = 0; /* of 1 << FINEST parts */
  uint8_t bad_quads;
  kz_motion m;
  memcpy(best, brake, sizeof(int32_t) * (size_t)n);
  for (int32_t part = 1 << (FINEST - 1); part > 0; part >>= 1) {
    int32_t try[KZ_PROJECT_N];
    for (int32_t i = 0; i < n; i++)
      try[i] = brake[i] + (int32_t)(((int64_t)v[i] - brake[i]) * (reach + part) / (1 << FINEST));
    kz_look(g, axis, try, g->coast, &m);
    if (kz_broken(g, &m, g->enabled & hard, quads, &bad_quads) || bad_quads || m.leaves) continue;
    reach += part;
    memcpy(best, try, sizeof best);
    took = KZ_TOOK_RETRACTED;
  }
  if (took == KZ_TOOK_BRAKE) {
    kz_look(g, axis, best, 0, &m);
    g->braking_broke = kz_broken(g, &m, g->enabled & hard, quads, &bad_quads) || bad_quads || m.leaves;
  }
  commit(axis, best, n);
  return took;
}

int32_t kz_coupled_admit(kz_coupled *g, kz_axis *axis, const int32_t *want, uint8_t *rules) {
  const int32_t n = g->n;
  kz_projection *p = &g->projection;
  kz_window w[KZ_PROJECT_N] = {{0, 0, 0, 0}};
  int32_t v[KZ_PROJECT_N] = {0}, brake[KZ_PROJECT_N], took = KZ_TOOK_PROPOSAL;
  double ask[KZ_PROJECT_N], x[KZ_PROJECT_N], slope[KZ_PROJECT_N];
  uint64_t hard = g->enabled & ~g->soft, found;
  uint32_t hard_quads = 0xFFu & ~p->quads_soft;
  uint8_t found_quads;
  kz_motion m;

  g->active = g->relaxed = 0;
  g->active_quads = g->relaxed_quads = g->braking_broke = 0;
  windows(g, axis, w, brake);
  slow_down(g, axis, brake, w, rules);
  for (int32_t i = 0; g->narrowed && i < n; i++) w[i] = kz_narrow(w[i], g->least[i], g->most[i]);
  for (int32_t i = 0; i < n; i++) {
    const int64_t q = (int64_t)want[i] - axis[i].q;
    ask[i] = (double)q * g->quantum[i];
    v[i] = q > w[i].up ? w[i].up : q < w[i].down ? w[i].down : (int32_t)q;
    if (v[i] != q) {
      rules[i] |= q > w[i].up ? w[i].up_rules : w[i].down_rules;
      took = KZ_TOOK_CLAMPED;
    }
  }
  kz_look(g, axis, v, g->coast, &m);
  found = kz_broken(g, &m, g->enabled, 0xFF, &found_quads);
  if (!found && !found_quads && !m.leaves) { /* the clamped command is the projection if it keeps every rule */
    commit(axis, v, n);
    return took;
  }

  g->active = found;
  g->active_quads = found_quads;
  for (int32_t i = 0; i < n; i++) {
    p->lo[i] = w[i].down * g->quantum[i];
    p->hi[i] = w[i].up * g->quantum[i];
  }
  for (int32_t round = 0; round < ROUNDS; round++) {
    slopes(g, v, slope);
    if (round == 0)
      pose(g, &m, slope);
    else
      sharpen(g, &m, slope, found, found_quads);
    if (!solve(g, ask, x)) break;
    for (int32_t i = 0; i < n; i++) {
      const double quanta = x[i] / g->quantum[i]; /* rounded towards braking, where there is more room */
      v[i] = max32(min32((int32_t)(quanta > brake[i] ? floor(quanta) : ceil(quanta)), w[i].up), w[i].down);
    }
    kz_look(g, axis, v, g->coast, &m);
    found = kz_broken(g, &m, (g->enabled & ~g->relaxed), 0xFFu & ~(uint32_t)g->relaxed_quads, &found_quads);
    if (!found && !found_quads && !m.leaves) {
      commit(axis, v, n);
      return KZ_TOOK_PROJECTED;
    }
  }
  return retract(g, axis, v, brake, hard, hard_quads);
}
