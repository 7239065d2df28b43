#include "kz_rules.h"

#include <float.h>
#include <math.h>

static int32_t max32(int32_t a, int32_t b) { return a > b ? a : b; }
static int32_t abs32(int32_t a) { return a < 0 ? -a : a; }

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
    r->edge = r->bound + 3 * allowance(size, 2 * n);
  }
  for (int32_t k = 0; k < g->quads; k++) {
    kz_quadratic *f = &g->quad[k];
    double size = 0;
    for (int32_t i = 0; i < n; i++) {
      size += fabs(f->c[i]) * most[i];
      for (int32_t j = 0; j < n; j++) size += 4 * fabs(f->q[i][j]) * most[i] * most[j];
    }
    f->bound = scaled(g, f->r, f->on, 2) - allowance(size, 4 * n * n + 2 * (1 << KZ_MOVING));
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

void kz_leaders(const kz_coupled *g, const int32_t *v, uint8_t *lead) {
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

int32_t kz_braked_with(const kz_coupled *g, const kz_axis *axis, int32_t i, int32_t lead) {
  const int64_t s = abs32(axis[i].v), top = abs32(axis[lead].v), h = g->limit[lead].h;
  const int64_t rest = top > h ? s - (s * h + top - 1) / top : 0; /* s*h/S <= h of joint i, which is whole */
  return (int32_t)(axis[i].v < 0 ? -rest : rest);
}

void kz_look(const kz_coupled *g, const kz_axis *axis, const int32_t *v, uint8_t coast, kz_motion *m) {
  uint8_t lead[KZ_PROJECT_N];
  kz_leaders(g, v, lead);
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

double kz_allowed(double bound, int32_t hard, double now) { return hard && now > bound ? now : bound; }

/* 1 if a.z, times `per`, is at most b and no operation on the way rounded (Dekker's sum, the product by fma). */
static int exactly_within(const double *a, const double *z, int32_t n, double per, double b) {
  double sum = 0;
  for (int32_t i = 0; i < n; i++) {
    const double product = a[i] * z[i], next = sum + product, back = next - sum;
    if (fma(a[i], z[i], -product) != 0 || (sum - (next - back)) + (product - back) != 0) return 0;
    sum = next;
  }
  return fma(sum, per, -(sum * per)) == 0 && sum * per <= b;
}

/* The largest value of the row over everything reachable, less what is allowed: > 0 is broken. */
static double row_excess(const kz_coupled *g, const kz_row *r, const kz_motion *m) {
  double z[KZ_PROJECT_N], per = 1, value, most = r->bound;
  for (int32_t i = 0; i < g->n; i++) {
    if (r->on == KZ_ON_POSITION)
      z[i] = m->after[i] + (r->a[i] * m->beyond[i] > 0 ? m->beyond[i] : 0); /* whole quanta: exact */
    else
      z[i] = r->on == KZ_ON_VELOCITY ? m->step[i] : m->change[i];
  }
  value = kz_dot(r->a, z, g->n);
  if (r->on == KZ_ON_POSITION)
    most = kz_allowed(r->bound, r->hard, kz_dot(r->a, m->before, g->n));
  else
    per = r->on == KZ_ON_VELOCITY ? g->rate : g->rate * g->rate;
  if (value > most && value <= r->edge && exactly_within(r->a, z, g->n, per, r->b)) return 0;
  return value - most;
}

double kz_form(const kz_coupled *g, const kz_quadratic *f, const double *z) {
  double s = 0;
  for (int32_t i = 0; i < g->n; i++) s += z[i] * (kz_dot(f->q[i], z, g->n) + f->c[i]);
  return s;
}

double kz_farthest(const kz_coupled *g, const kz_quadratic *f, const kz_motion *m, double enough, uint32_t *corner) {
  const int32_t n = g->n;
  double gradient[KZ_PROJECT_N], value = kz_form(g, f, m->after), bound = value, best = value;
  uint8_t moving[KZ_PROJECT_N];
  uint32_t at = 0, count = 0;
  *corner = 0;
  for (int32_t i = 0; i < n; i++) {
    const double s = m->beyond[i];
    gradient[i] = 2 * kz_dot(f->q[i], m->after, n) + f->c[i];
    bound += more(gradient[i] * s);
    for (int32_t j = 0; j < n; j++) bound += more(f->q[i][j] * s * m->beyond[j]);
    if (s == 0) continue;
    moving[count++] = (uint8_t)i;
    if (gradient[i] * s > 0) *corner |= 1u << i;
  }
  if (bound <= enough || count > KZ_MOVING) return bound;
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

static double quad_excess(const kz_coupled *g, const kz_quadratic *f, const kz_motion *m) {
  uint32_t corner;
  double most;
  if (f->on != KZ_ON_POSITION) {
    double s = 0;
    for (int32_t i = 0; i < g->n; i++) s += m->step[i] * (kz_dot(f->q[i], m->step, g->n) + f->c[i] / g->rate);
    return s - f->bound;
  }
  most = kz_allowed(f->bound, f->hard, kz_form(g, f, m->before));
  return kz_farthest(g, f, m, most, &corner) - most;
}

uint64_t kz_broken(const kz_coupled *g, const kz_motion *m, uint64_t rows, uint32_t quads, uint8_t *broken_quads) {
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
  kz_motion m;
  kz_look(g, axis, v, coast, &m);
  return !m.leaves && !kz_broken(g, &m, g->enabled & ~g->soft, 0xFFu & ~g->projection.quads_soft, &quads) && !quads;
}
