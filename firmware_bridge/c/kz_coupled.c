#include "kz_coupled.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define ROUNDS 6 /* of projection and linearisation */
#define QUAD_PARENT 64 /* in `parent`: this is a quadratic's tangent */
#define MOVING 8 /* joints whose corners are walked: 256 of them */
#define FINEST 10 /* halvings of the way back to the brake */

static int32_t min32(int32_t a, int32_t b) { return a < b ? a : b; }
static int32_t max32(int32_t a, int32_t b) { return a > b ? a : b; }
static int32_t abs32(int32_t a) { return a < 0 ? -a : a; }
static double dot(const double *a, const double *b, int32_t n) {
  double s = 0;
  for (int32_t i = 0; i < n; i++) s += a[i] * b[i];
  return s;
}

/* Allowance for evaluating a sum of `terms` products whose magnitudes add up to at most `size`
 * (Higham, Accuracy and Stability of Numerical Algorithms, 2002, §3.1; doubled). */
static double allowance(double size, int32_t terms) { return 2 * (terms + 4) * (DBL_EPSILON / 2) * size; }

/* A rule on velocities is compared per period. Scaling b by dt rounds once. */
static double scaled(const kz_coupled *g, double b, int32_t on, int32_t power) {
  const double per = on == KZ_ON_POSITION ? 1 : on == KZ_ON_VELOCITY ? g->rate : g->rate * g->rate;
  const double value = power == 2 ? b / per / per : b / per;
  return on == KZ_ON_POSITION ? value : value - 4 * DBL_EPSILON * fabs(value);
}

void kz_coupled_prepare(kz_coupled *g) {
  const int32_t n = g->n;
  kz_projection *p = &g->projection;
  double most[KZ_PROJECT_N];
  for (int32_t i = 0; i < n; i++) { /* positions and what they can reach; twice a step */
    const kz_limit *l = &g->limit[i];
    most[i] = 2.0 * (max32(abs32(l->lo), abs32(l->hi)) + (double)l->w) * g->quantum[i];
  }
  for (int32_t j = 0; j < g->rows; j++) {
    kz_row *r = &g->row[j];
    double size = 0;
    for (int32_t i = 0; i < n; i++) size += fabs(r->a[i]) * most[i];
    r->bound = scaled(g, r->b, r->on, 1) - allowance(size, 2 * n);
  }
  for (int32_t k = 0; k < g->quads; k++) {
    kz_quadratic *f = &g->quad[k];
    double size = 0;
    for (int32_t i = 0; i < n; i++) {
      size += fabs(f->c[i]) * most[i];
      for (int32_t j = 0; j < n; j++) size += 4 * fabs(f->q[i][j]) * most[i] * most[j];
    }
    f->bound = scaled(g, f->r, f->on, 2) - allowance(size, 4 * n * n + 2 * (1 << MOVING));
  }
  p->n = n;
  p->quads = g->quads;
  g->soft = p->quads_soft = p->quads_enabled = 0;
  for (int32_t j = 0; j < g->rows; j++) {
    p->priority[j] = (uint8_t)g->row[j].priority;
    if (!g->row[j].hard) g->soft |= (uint64_t)1 << j;
  }
  for (int32_t k = 0; k < g->quads; k++) {
    p->quads_priority[k] = (uint8_t)g->quad[k].priority;
    p->quads_enabled |= 1u << k;
    if (!g->quad[k].hard) p->quads_soft |= 1u << k;
  }
}

/* ---- where a step leads ------------------------------------------------------------------------------------------ */

/* For each group the joint that needs most periods to rest from the steps v: the others brake in proportion with it. */
static void leaders(const kz_coupled *g, const int32_t *v, uint8_t *lead) {
  for (int32_t i = 0; i < g->n; i++) lead[i] = g->group[i];
  for (int32_t i = 0; i < g->n; i++) {
    uint8_t *l = &lead[g->group[i]];
    if ((int64_t)abs32(v[i]) * g->limit[*l].h > (int64_t)abs32(v[*l]) * g->limit[i].h) *l = (uint8_t)i;
  }
}

/* A joint that steps by s and brakes by h a period still travels (s-h) + (s-2h) + ... = m s - h m(m+1)/2, m = floor(s/h).
 * In proportion with a leader that steps by S and brakes by H, it travels s/S times what the leader does. `coast` periods
 * of s come first. Rounded up. */
static int64_t travel(const kz_coupled *g, const int32_t *v, int32_t i, int32_t lead, uint8_t coast) {
  const int64_t s = abs32(v[i]), top = abs32(v[lead]), h = g->limit[lead].h, m = top / h;
  const int64_t brake = m * top - h * (m * (m + 1) / 2);
  int64_t far = coast * s;
  if (lead == i)
    far += brake;
  else if (brake > 0)
    far += (int64_t)ceil((double)s * (double)brake / (double)top * (1 + 8 * DBL_EPSILON));
  return v[i] < 0 ? -far : far;
}

/* The step by which joint i brakes in proportion with the leader of its group. */
static int32_t braked(const kz_coupled *g, const kz_axis *axis, int32_t i, int32_t lead) {
  const int64_t s = abs32(axis[i].v), top = abs32(axis[lead].v), h = g->limit[lead].h;
  const int64_t rest = top > h ? s - (s * h + top - 1) / top : 0; /* s*h/S <= h of joint i, which is whole */
  return (int32_t)(axis[i].v < 0 ? -rest : rest);
}

/* One step from a state, in SI units per period: position before and after, step, change of step, travel after it. */
typedef struct {
  double before[KZ_PROJECT_N], after[KZ_PROJECT_N], step[KZ_PROJECT_N], change[KZ_PROJECT_N], beyond[KZ_PROJECT_N];
  int leaves; /* a joint of a group cannot stop inside its range together with the group */
} motion;

static void look(const kz_coupled *g, const kz_axis *axis, const int32_t *v, uint8_t coast, motion *m) {
  uint8_t lead[KZ_PROJECT_N];
  leaders(g, v, lead);
  m->leaves = 0;
  for (int32_t i = 0; i < g->n; i++) {
    const kz_limit *l = &g->limit[i];
    const double u = g->quantum[i];
    const int64_t q = (int64_t)axis[i].q + v[i], s = travel(g, v, i, lead[g->group[i]], coast);
    m->before[i] = axis[i].q * u;
    m->after[i] = (double)q * u;
    m->step[i] = v[i] * u;
    m->change[i] = ((double)v[i] - axis[i].v) * u;
    m->beyond[i] = (double)s * u;
    if (s > 0 ? q + s > l->hi && axis[i].q <= l->hi : s < 0 && q + s < l->lo && axis[i].q >= l->lo) m->leaves = 1;
  }
}

static double more(double x) { return x > 0 ? x : 0; }

/* What a rule on positions allows. From a state that breaks a hard one already: no more of it. */
static double allowed(double bound, int32_t hard, double now) { return hard && now > bound ? now : bound; }

/* The largest value of the row over everything reachable, less what is allowed: > 0 is broken. */
static double row_excess(const kz_coupled *g, const kz_row *r, const motion *m) {
  double value;
  if (r->on != KZ_ON_POSITION) return dot(r->a, r->on == KZ_ON_VELOCITY ? m->step : m->change, g->n) - r->bound;
  value = dot(r->a, m->after, g->n);
  for (int32_t i = 0; i < g->n; i++) value += more(r->a[i] * m->beyond[i]);
  return value - allowed(r->bound, r->hard, dot(r->a, m->before, g->n));
}

static double form(const kz_coupled *g, const kz_quadratic *f, const double *z) {
  double s = 0;
  for (int32_t i = 0; i < g->n; i++) s += z[i] * (dot(f->q[i], z, g->n) + f->c[i]);
  return s;
}

/* The largest value of a quadratic on positions over all that can be reached: it is convex, so at a corner of that box.
 * `corner` is the one, a bit per joint that has travelled. A bound of each term settles most cases; else the corners are
 * walked in Gray code order, one joint at a time. With more than MOVING joints only the bound is used, for its far corner. */
static double farthest(const kz_coupled *g, const kz_quadratic *f, const motion *m, double enough, uint32_t *corner) {
  const int32_t n = g->n;
  double gradient[KZ_PROJECT_N], value = form(g, f, m->after), bound = value, best = value;
  uint8_t moving[KZ_PROJECT_N];
  uint32_t at = 0, count = 0;
  *corner = 0;
  for (int32_t i = 0; i < n; i++) {
    const double s = m->beyond[i];
    gradient[i] = 2 * dot(f->q[i], m->after, n) + f->c[i];
    bound += more(gradient[i] * s);
    for (int32_t j = 0; j < n; j++) bound += more(f->q[i][j] * s * m->beyond[j]);
    if (s == 0) continue;
    moving[count++] = (uint8_t)i;
    if (gradient[i] * s > 0) *corner |= 1u << i;
  }
  if (bound <= enough || count > MOVING) return bound;
  *corner = 0;
  for (uint32_t k = 1; k < 1u << count; k++) {
    uint32_t flip = 0, i;
    double by;
    while (!(k >> flip & 1)) flip++;
    i = moving[flip];
    by = at >> i & 1 ? -m->beyond[i] : m->beyond[i];
    value += by * (gradient[i] + by * f->q[i][i]);
    for (int32_t j = 0; j < n; j++) gradient[j] += 2 * by * f->q[j][i];
    at ^= 1u << i;
    if (value > best) {
      best = value;
      *corner = at;
    }
  }
  return best;
}

static double quad_excess(const kz_coupled *g, const kz_quadratic *f, const motion *m) {
  uint32_t corner;
  double most;
  if (f->on != KZ_ON_POSITION) {
    double s = 0;
    for (int32_t i = 0; i < g->n; i++) s += m->step[i] * (dot(f->q[i], m->step, g->n) + f->c[i] / g->rate);
    return s - f->bound;
  }
  most = allowed(f->bound, f->hard, form(g, f, m->before));
  return farthest(g, f, m, most, &corner) - most;
}

static uint64_t broken(const kz_coupled *g, const motion *m, uint64_t rows, uint32_t quads, uint8_t *broken_quads) {
  uint64_t found = 0;
  *broken_quads = 0;
  for (int32_t j = 0; j < g->rows; j++)
    if ((rows >> j & 1) && row_excess(g, &g->row[j], m) > 0) found |= (uint64_t)1 << j;
  for (int32_t k = 0; k < g->quads; k++)
    if ((quads >> k & 1) && quad_excess(g, &g->quad[k], m) > 0) *broken_quads |= (uint8_t)(1u << k);
  return found;
}

int kz_coupled_keeps(const kz_coupled *g, const kz_axis *axis, const int32_t *v, uint8_t coast) {
  uint8_t quads;
  motion m;
  look(g, axis, v, coast, &m);
  return !m.leaves && !broken(g, &m, g->enabled & ~g->soft, 0xFFu & ~g->projection.quads_soft, &quads) && !quads;
}

/* ---- the nearest admissible step --------------------------------------------------------------------------------- */

/* How the travel after a step grows with it: the slope of `travel` at v, with the leader's periods held. */
static void slopes(const kz_coupled *g, const int32_t *v, double *slope) {
  uint8_t lead[KZ_PROJECT_N];
  leaders(g, v, lead);
  for (int32_t i = 0; i < g->n; i++) {
    const int32_t l = lead[g->group[i]];
    const double top = abs32(v[l]), h = g->limit[l].h, m = floor(top / h);
    slope[i] = g->coast + (l == i || m == 0 ? m : m - h * m * (m + 1) / (2 * top));
  }
}

/* Row j as a row of the step x (SI units per period), its reach linearised at the step that m describes. The reach is
 * convex: it lies above all its tangents, so that a row of the projection, once found, stays true. */
static void tangent(const kz_coupled *g, int32_t j, const motion *m, const double *slope, double *a, double *b) {
  const kz_row *r = &g->row[j];
  *b = r->bound;
  if (r->on == KZ_ON_POSITION) {
    const double now = dot(r->a, m->before, g->n);
    *b = allowed(r->bound, r->hard, now) - now;
  }
  for (int32_t i = 0; i < g->n; i++) {
    a[i] = r->a[i];
    if (r->on == KZ_ON_POSITION && r->a[i] * m->beyond[i] > 0) {
      a[i] *= 1 + slope[i];
      *b -= r->a[i] * (m->beyond[i] - slope[i] * m->step[i]);
    } else if (r->on == KZ_ON_ACCELERATION) {
      *b += r->a[i] * (m->step[i] - m->change[i]);
    }
  }
}

/* Quadratic k as a quadratic of the step x: on positions, at the corner of the reach that is farthest now, as that moves
 * with x. */
static void bend(kz_coupled *g, int32_t k, const motion *m, const double *slope) {
  const kz_quadratic *f = &g->quad[k];
  const int32_t n = g->n;
  kz_projection *p = &g->projection;
  double from[KZ_PROJECT_N] = {0}, scale[KZ_PROJECT_N], b = f->bound;
  for (int32_t i = 0; i < n; i++) scale[i] = 1;
  if (f->on == KZ_ON_POSITION) {
    uint32_t corner;
    b = allowed(f->bound, f->hard, form(g, f, m->before));
    farthest(g, f, m, -HUGE_VAL, &corner);
    for (int32_t i = 0; i < n; i++) {
      from[i] = m->before[i];
      if (!(corner >> i & 1)) continue;
      from[i] += m->beyond[i] - slope[i] * m->step[i];
      scale[i] += slope[i];
    }
  }
  p->r[k] = b - form(g, f, from);
  for (int32_t i = 0; i < n; i++) {
    const double c = f->on == KZ_ON_POSITION ? f->c[i] : f->c[i] / g->rate;
    p->c[k][i] = (c + 2 * dot(f->q[i], from, n)) * scale[i];
    for (int32_t j = 0; j < n; j++) p->q[k][i][j] = f->q[i][j] * scale[i] * scale[j];
  }
}

/* The problem of the first round: every rule, linearised at the clamped command. */
static void pose(kz_coupled *g, const motion *m, const double *slope) {
  kz_projection *p = &g->projection;
  p->rows = g->rows;
  p->enabled = g->enabled;
  p->soft = g->soft;
  for (int32_t j = 0; j < g->rows; j++) tangent(g, j, m, slope, p->a[j], &p->b[j]);
  for (int32_t k = 0; k < g->quads; k++) bend(g, k, m, slope);
}

/* The tangent of quadratic k, as `bend` has just left it, at the step that m describes. */
static void flatten(const kz_coupled *g, int32_t k, const motion *m, double *a, double *b) {
  const kz_projection *p = &g->projection;
  *b = p->r[k];
  for (int32_t i = 0; i < g->n; i++) {
    const double half = dot(p->q[k][i], m->step, g->n);
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
static void sharpen(kz_coupled *g, const motion *m, const double *slope, uint64_t rows, uint32_t quads) {
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

static void commit(kz_axis *axis, const int32_t *v, int32_t n) {
  for (int32_t i = 0; i < n; i++) kz_move(&axis[i], v[i]);
}

static void brake_steps(const kz_coupled *g, const kz_axis *axis, const kz_window *w, int32_t *v) {
  uint8_t lead[KZ_PROJECT_N];
  for (int32_t i = 0; i < g->n; i++) v[i] = axis[i].v;
  leaders(g, v, lead);
  /* Inside the window already, but where missed commands have used up the room that the group needs. */
  for (int32_t i = 0; i < g->n; i++) v[i] = max32(min32(braked(g, axis, i, lead[g->group[i]]), w[i].up), w[i].down);
}

static void windows(const kz_coupled *g, const kz_axis *axis, kz_window *w) {
  for (int32_t i = 0; i < g->n; i++) w[i] = kz_admissible(&g->limit[i], &axis[i], g->coast);
}

void kz_coupled_brake(const kz_coupled *g, kz_axis *axis) {
  kz_window w[KZ_PROJECT_N] = {{0, 0, 0, 0}};
  int32_t v[KZ_PROJECT_N];
  windows(g, axis, w);
  brake_steps(g, axis, w, v);
  commit(axis, v, g->n);
}

/* Outside a row on positions, as outside a range, joints move slowly. */
static void slow_down(const kz_coupled *g, const kz_axis *axis, kz_window *w, uint8_t *rules) {
  double now[KZ_PROJECT_N];
  for (int32_t i = 0; i < g->n; i++) now[i] = axis[i].q * g->quantum[i];
  for (int32_t j = 0; j < g->rows; j++) {
    const kz_row *r = &g->row[j];
    if (r->on != KZ_ON_POSITION || !(g->enabled >> j & 1) || !r->hard || dot(r->a, now, g->n) <= r->bound) continue;
    for (int32_t i = 0; i < g->n; i++) {
      const int32_t brake = kz_braked(&g->limit[i], &axis[i]), slow = max32(g->limit[i].w / 8, 1);
      if (r->a[i] == 0) continue;
      w[i].up = min32(w[i].up, max32(slow, brake));
      w[i].down = max32(w[i].down, min32(-slow, brake));
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
  motion m;
  memcpy(best, brake, sizeof(int32_t) * (size_t)n);
  for (int32_t part = 1 << (FINEST - 1); part > 0; part >>= 1) {
    int32_t try[KZ_PROJECT_N];
    for (int32_t i = 0; i < n; i++)
      try[i] = brake[i] + (int32_t)(((int64_t)v[i] - brake[i]) * (reach + part) / (1 << FINEST));
    look(g, axis, try, g->coast, &m);
    if (broken(g, &m, g->enabled & hard, quads, &bad_quads) || bad_quads || m.leaves) continue;
    reach += part;
    memcpy(best, try, sizeof best);
    took = KZ_TOOK_RETRACTED;
  }
  if (took == KZ_TOOK_BRAKE) {
    look(g, axis, best, 0, &m);
    g->braking_broke = broken(g, &m, g->enabled & hard, quads, &bad_quads) || bad_quads || m.leaves;
  }
  commit(axis, best, n);
  return took;
}

int32_t kz_coupled_admit(kz_coupled *g, kz_axis *axis, const int32_t *want, uint8_t *rules) {
  const int32_t n = g->n;
  kz_projection *p = &g->projection;
  kz_window w[KZ_PROJECT_N];
  int32_t v[KZ_PROJECT_N] = {0}, brake[KZ_PROJECT_N], took = KZ_TOOK_PROPOSAL;
  double ask[KZ_PROJECT_N], x[KZ_PROJECT_N], slope[KZ_PROJECT_N];
  uint64_t hard = g->enabled & ~g->soft, found;
  uint32_t hard_quads = 0xFFu & ~p->quads_soft;
  uint8_t found_quads;
  motion m;

  g->active = g->relaxed = 0;
  g->active_quads = g->relaxed_quads = g->braking_broke = 0;
  windows(g, axis, w);
  slow_down(g, axis, w, rules);
  for (int32_t i = 0; i < n; i++) {
    const int64_t q = (int64_t)want[i] - axis[i].q;
    ask[i] = (double)q * g->quantum[i];
    v[i] = q > w[i].up ? w[i].up : q < w[i].down ? w[i].down : (int32_t)q;
    if (v[i] != q) {
      rules[i] |= q > w[i].up ? w[i].up_rules : w[i].down_rules;
      took = KZ_TOOK_CLAMPED;
    }
  }
  look(g, axis, v, g->coast, &m);
  found = broken(g, &m, g->enabled, 0xFF, &found_quads);
  if (!found && !found_quads && !m.leaves) { /* the clamped command is the projection if it keeps every rule */
    commit(axis, v, n);
    return took;
  }

  g->active = found;
  g->active_quads = found_quads;
  brake_steps(g, axis, w, brake);
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
    look(g, axis, v, g->coast, &m);
    found = broken(g, &m, (g->enabled & ~g->relaxed), 0xFFu & ~(uint32_t)g->relaxed_quads, &found_quads);
    if (!found && !found_quads && !m.leaves) {
      commit(axis, v, n);
      return KZ_TOOK_PROJECTED;
    }
  }
  return retract(g, axis, v, brake, hard, hard_quads);
}
