/* The call of kz_project: the problem checked, the answer chosen. */
#include "kz_project_parts.h"

#define FAR 1e5 /* u is not further from the box than this many of its half widths */

int32_t kz_project_prepare(kz_projection *p) {
  int i, j;
  p->prepared = 0;
  p->k = 0;
  memset(p->mu, 0, sizeof p->mu);
  if (p->n < 1 || p->n > N || p->rows < 0 || p->rows > ROWS || p->quads < 0 || p->quads > QUADS)
    return KZ_PROJECT_BAD_INPUT;
  for (j = 0; j < p->rows; j++) {
    const double most = kzp_biggest(p->a[j], p->n);
    double s = 0;
    if (isinf(most)) return KZ_PROJECT_BAD_INPUT;
    memset(p->unit[j], 0, sizeof p->unit[j]);
    p->inverse[j] = 1;
    if (most < 1 / LARGEST) continue; /* 0.x <= b: met or not, whatever x */
    for (i = 0; i < p->n; i++) s += (p->a[j][i] / most) * (p->a[j][i] / most);
    p->inverse[j] = 1 / (most * sqrt(s));
    for (i = 0; i < p->n; i++) p->unit[j][i] = p->a[j][i] * p->inverse[j];
  }
  for (j = 0; j < p->quads; j++) {
    if (isinf(kzp_biggest(p->c[j], p->n))) return KZ_PROJECT_BAD_INPUT;
    for (i = 0; i < p->n; i++)
      if (isinf(kzp_biggest(p->q[j][i], p->n))) return KZ_PROJECT_BAD_INPUT;
  }
  p->prepared = 1;
  return 0;
}

/* The problem of this call, checked. u is brought nearer if it is so far that the answer cannot tell: pulling it to
 * FAR half widths of the box costs at most 2n/FAR^2 of the squared distance. */
static int pose(const kz_projection *p, const double *u, task *t) {
  double width = 0, distance = 0, size = 0, middle[N];
  int i, j;
  memset(t, 0, sizeof *t);
  t->n = p->n;
  t->padded = (p->n + 3) & ~3;
  if (!p->prepared) return 0;
  for (i = 0; i < p->n; i++) {
    if (!isfinite(u[i]) || !(p->lo[i] <= p->hi[i]) || !(p->lo[i] >= -LARGEST) || !(p->hi[i] <= LARGEST)) return 0;
    t->bound[UPPER + i] = p->hi[i];
    t->bound[LOWER + i] = -p->lo[i];
    t->scale = fmax(t->scale, fmax(fabs(p->lo[i]), fabs(p->hi[i])));
    middle[i] = p->lo[i] + 0.5 * (p->hi[i] - p->lo[i]);
    width = fmax(width, 0.5 * (p->hi[i] - p->lo[i]));
    distance = fmax(distance, fabs(u[i] - middle[i]));
  }
  for (i = 0; i < p->n; i++) {
    t->u[i] = distance > FAR * width ? middle[i] + (u[i] - middle[i]) / distance * (FAR * width) : u[i];
    size = fmax(size, fabs(t->u[i]));
  }
  for (j = 0; j < p->rows; j++) {
    if (!(fabs(p->b[j]) <= LARGEST)) return 0;
    t->bound[j] = p->b[j] * p->inverse[j];
  }
  for (j = 0; j < p->quads; j++) {
    if (!(fabs(p->r[j]) <= LARGEST)) return 0;
    t->r[j] = p->r[j];
  }
  t->close = CLOSE * t->scale + 1e-15 * size;
  t->rows = p->enabled & (p->rows == 64 ? ~(uint64_t)0 : BIT(p->rows) - 1);
  t->quads = p->quads_enabled & (uint32_t)(BIT(p->quads) - 1);
  return 1;
}

static void report_working_set(kz_projection *p) {
  int i;
  for (i = 0; i < p->k; i++) {
    const int id = p->id[i];
    if (!(p->multiplier[i] > 0)) continue;
    if (id < ROWS)
      p->active |= BIT(id);
    else if (id < UPPER)
      p->quads_active |= (uint32_t)BIT(id - ROWS);
    else if (id < LOWER)
      p->at_hi |= (uint32_t)BIT(id - UPPER);
    else
      p->at_lo |= (uint32_t)BIT(id - LOWER);
  }
}

/* As far from the anchor towards x as every rule allows. */
static int retract(kz_projection *p, const task *t, const double *anchor, double *x) {
  double d[N] = {0}, gradient[N], size, far = 1;
  int i, j;
  p->active = 0;
  p->quads_active = 0;
  for (i = 0; i < t->n; i++) d[i] = x[i] - anchor[i];
  for (j = 0; j < p->rows; j++) {
    const double slope = kzp_dot(p->unit[j], d, t->padded);
    const double room = t->bound[j] - kzp_dot(p->unit[j], anchor, t->padded);
    if (!(t->rows >> j & 1) || !(slope * far > room)) continue;
    far = room > 0 ? room / slope : 0;
    p->active = BIT(j);
  }
  for (j = 0; j < p->quads; j++) { /* bend f^2 + slope f - room = 0, written so that nothing cancels */
    const double room = -kzp_quadratic(p, t, j, anchor, gradient, &size), slope = kzp_dot(gradient, d, t->padded);
    double bend = 0, root;
    for (i = 0; i < t->n; i++) bend += d[i] * kzp_dot(p->q[j][i], d, t->padded);
    if (bend < 0) bend = 0;
    if (!(t->quads >> j & 1) || !((bend * far + slope) * far > room)) continue;
    root = slope + sqrt(slope * slope + 4 * bend * (room > 0 ? room : 0));
    far = room > 0 && root > 0 ? 2 * room / root : 0;
    p->active = 0;
    p->quads_active = (uint32_t)BIT(j);
  }
  for (i = 0; i < t->n; i++) x[i] = kzp_clamp(anchor[i] + far * d[i], p->lo[i], p->hi[i]);
  if (!kzp_meets(p, t, x, MET)) memcpy(x, anchor, sizeof(double) * N);
  return KZ_PROJECT_RETRACTED;
}

/* The nearest point, or what can be had instead. `first`: u clamped into the box. */
static int32_t project(kz_projection *p, task *t, const double *first, const double *anchor, double *x) {
  const task posed = *t;
  int rc = kzp_solve(p, t, x);
  if (rc == SOLVED && kzp_meets(p, t, x, MET)) {
    report_working_set(p);
    return KZ_PROJECT_PROJECTED;
  }
  if (rc == IMPOSSIBLE || !isfinite(kzp_dot(x, x, t->padded))) memcpy(x, first, sizeof(double) * N);
  if (anchor && kzp_meets(p, t, anchor, MET)) return retract(p, t, anchor, x);
  if ((t->rows & p->soft) || (t->quads & p->quads_soft)) {
    memcpy(x, first, sizeof(double) * N);
    if (kzp_relax(p, t, x)) {
      report_working_set(p);
      return KZ_PROJECT_PROJECTED;
    }
    *t = posed; /* the hard rules alone, as they were */
    t->rows &= ~p->soft;
    t->quads &= ~p->quads_soft;
    memcpy(x, first, sizeof(double) * N);
    if (anchor && kzp_meets(p, t, anchor, MET)) {
      p->relaxed = posed.rows & p->soft;
      p->quads_relaxed = posed.quads & p->quads_soft;
      return retract(p, t, anchor, x);
    }
  }
  p->relaxed = 0;
  p->quads_relaxed = 0;
  memcpy(x, first, sizeof(double) * N);
  return KZ_PROJECT_INFEASIBLE;
}

int32_t kz_project(kz_projection *p, const double *u, const double *anchor, double *x) {
  double first[N] = {0}, best[N], safe[N] = {0};
  uint32_t above = 0, below = 0;
  task t;
  int i;
  p->iterations = 0;
  p->active = p->relaxed = 0;
  p->quads_active = p->quads_relaxed = p->at_lo = p->at_hi = 0;
  p->status = KZ_PROJECT_BAD_INPUT;
  if (!pose(p, u, &t) || (anchor && isinf(kzp_biggest(anchor, p->n)))) return p->status;
  for (i = 0; i < p->n; i++) {
    first[i] = kzp_clamp(u[i], p->lo[i], p->hi[i]);
    if (u[i] > p->hi[i]) above |= (uint32_t)BIT(i);
    if (u[i] < p->lo[i]) below |= (uint32_t)BIT(i);
    if (anchor) safe[i] = kzp_clamp(anchor[i], p->lo[i], p->hi[i]);
  }
  memcpy(best, first, sizeof best);
  if (kzp_meets(p, &t, first, CLOSE)) {
    p->status = above | below ? KZ_PROJECT_CLAMPED : KZ_PROJECT_PASS;
    p->at_hi = above;
    p->at_lo = below;
  } else {
    if (!p->k) /* a cold start: the bounds that clamping has met are a valid working set, and often nearly all of it */
      for (i = 0; i < p->n; i++)
        if ((above | below) >> i & 1) p->id[p->k++] = above >> i & 1 ? UPPER + i : LOWER + i;
    p->status = project(p, &t, first, anchor ? safe : NULL, best);
    if (p->status != KZ_PROJECT_PROJECTED) {
      p->k = 0;
      memset(p->mu, 0, sizeof p->mu);
    }
  }
  memcpy(x, best, sizeof(double) * (size_t)p->n);
  return p->status;
}
