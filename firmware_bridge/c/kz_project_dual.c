/* The dual active set of kz_project (Goldfarb and Idnani): rows, bounds and linearised quadratics. */
#include "kz_project_parts.h"

#define DEPENDENT 1e-13 /* squared sine of the angle to the working set's span */
#define DOUBTFUL 1e-6   /* below it, a squared sine is computed anew */

/* ---- the working set and the factor of its Gram matrix --------------------------------------------------------- */

/* l = factor^-1 (normals . v); returns what is left of v outside the working set's span, squared. */
static double against(const kz_projection *p, const task *t, const double *v, double length, double *l) {
  int i, j;
  for (i = 0; i < p->k; i++) {
    double s = kzp_dot(p->normal[i], v, t->padded);
    for (j = 0; j < i; j++) s -= p->factor[i][j] * l[j];
    l[i] = s * p->pivot[i];
    length -= l[i] * l[i];
  }
  return length;
}

/* r <- factor'^-1 r */
static void back_substitute(const kz_projection *p, double *r) {
  int i, j;
  for (i = p->k - 1; i >= 0; i--) {
    double s = r[i];
    for (j = i + 1; j < p->k; j++) s -= p->factor[j][i] * r[j];
    r[i] = s * p->pivot[i];
  }
}

/* What `against` returns, where it is so small that the subtraction has lost it: from the rest of v itself. `own` is
 * v's slack; r, how v is made up of the working set, is improved first. */
static double outside(const kz_projection *p, const task *t, const double *v, double own, double *r) {
  double rest[N], better[KZ_PROJECT_WORKING], left = 0;
  int i, j, round;
  for (round = 0; round < 3; round++) {
    memcpy(rest, v, sizeof rest);
    left = own;
    for (i = 0; i < p->k; i++) {
      for (j = 0; j < t->padded; j++) rest[j] -= r[i] * p->normal[i][j];
      left += kzp_slack(t, p->id[i]) * r[i] * r[i];
    }
    left += kzp_dot(rest, rest, t->padded);
    if (round == 2) break;
    for (i = 0; i < p->k; i++) {
      double s = kzp_dot(p->normal[i], rest, t->padded) - kzp_slack(t, p->id[i]) * r[i];
      for (j = 0; j < i; j++) s -= p->factor[i][j] * better[j];
      better[i] = s * p->pivot[i];
    }
    back_substitute(p, better);
    for (i = 0; i < p->k; i++) r[i] += better[i];
  }
  return left;
}

static void set_pivot(kz_projection *p, int i, double diagonal) {
  p->factor[i][i] = diagonal;
  p->pivot[i] = 1 / diagonal;
}

static void add(kz_projection *p, task *t, int id, const double *v, const double *l, double left, double multiplier) {
  const int k = p->k;
  memcpy(p->normal[k], v, sizeof(double) * N);
  memcpy(p->factor[k], l, sizeof(double) * (size_t)k);
  set_pivot(p, k, sqrt(left));
  p->id[k] = id;
  p->multiplier[k] = multiplier;
  t->out[id] = 1;
  p->k = k + 1;
}

static void drop(kz_projection *p, task *t, int gone) {
  int i, m;
  t->out[p->id[gone]] = 0;
  p->k--;
  for (i = gone; i < p->k; i++) { /* row i keeps one entry right of the diagonal, which the rotation takes away */
    p->id[i] = p->id[i + 1];
    p->multiplier[i] = p->multiplier[i + 1];
    memcpy(p->normal[i], p->normal[i + 1], sizeof(double) * N);
    memcpy(p->factor[i], p->factor[i + 1], sizeof(double) * (size_t)(i + 2));
  }
  for (i = gone; i < p->k; i++) {
    const double a = p->factor[i][i], b = p->factor[i][i + 1], d = sqrt(a * a + b * b), c = a / d, s = b / d;
    set_pivot(p, i, d);
    for (m = i + 1; m < p->k; m++) {
      const double f = p->factor[m][i], g = p->factor[m][i + 1];
      p->factor[m][i] = c * f + s * g;
      p->factor[m][i + 1] = c * g - s * f;
    }
  }
}

/* Changes the multipliers so that at x - (that change) the working set is met with equality: one solve from the
 * target, or one step of iterative refinement. Returns the largest residual before it. */
static double settle(kz_projection *p, const task *t, const double *x) {
  double r[KZ_PROJECT_WORKING], most = 0;
  int i, j;
  for (i = 0; i < p->k; i++) {
    double s = kzp_excess(p, t, p->id[i], x) - kzp_slack(t, p->id[i]) * p->multiplier[i];
    if (!(fabs(s) <= most)) most = fabs(s);
    for (j = 0; j < i; j++) s -= p->factor[i][j] * r[j];
    r[i] = s * p->pivot[i];
  }
  back_substitute(p, r);
  for (i = 0; i < p->k; i++) p->multiplier[i] += r[i];
  return most;
}

/* Multipliers from scratch; drop what pulls the wrong way until none does. */
static void restart(kz_projection *p, task *t) {
  for (;;) {
    int i, worst = -1;
    double least = 0;
    for (i = 0; i < p->k; i++) p->multiplier[i] = 0;
    settle(p, t, t->target);
    for (i = 0; i < p->k; i++)
      if (p->multiplier[i] < least) {
        least = p->multiplier[i];
        worst = i;
      }
    if (worst < 0) return;
    drop(p, t, worst);
  }
}

/* ---- Goldfarb-Idnani ------------------------------------------------------------------------------------------- */

static void primal(const kz_projection *p, const task *t, double *x) {
  double y[N] = {0};
  int i, j;
  for (i = 0; i < p->k; i++)
    for (j = 0; j < t->padded; j++) y[j] += p->multiplier[i] * p->normal[i][j];
  if (t->h)
    for (i = t->n - 1; i >= 0; i--) {
      double s = y[i];
      for (j = i + 1; j < t->n; j++) s -= t->h[j][i] * y[j];
      y[i] = s * t->h[i][i];
    }
  for (i = 0; i < N; i++) x[i] = t->target[i] - y[i];
}

static int most_violated(const kz_projection *p, const task *t, const double *x, double *violation) {
  int id, worst = -1;
  double most = t->close;
  for (id = 0; id < LOWER + t->n; id++) {
    double e;
    if (id == p->rows) id = ROWS;
    if (id == ROWS + p->quads) id = UPPER;
    if (id == UPPER + t->n) id = LOWER;
    if (t->out[id] || !kzp_counted(t, id)) continue;
    e = kzp_excess(p, t, id, x);
    if (e > most) {
      most = e;
      worst = id;
    }
  }
  *violation = most;
  return worst;
}

/* Bring one violated constraint into the working set; what blocks it leaves. */
static int enter(kz_projection *p, task *t, int id, double violation) {
  double v[N], l[KZ_PROJECT_WORKING], r[KZ_PROJECT_WORKING], length, multiplier = 0;
  kzp_normal(p, t, id, v);
  length = kzp_dot(v, v, t->padded) + kzp_slack(t, id);
  for (;;) {
    double left, full, step = INFINITY;
    int i, blocking = -1;
    if (++p->iterations > KZ_PROJECT_ITERATIONS) return EXHAUSTED;
    left = against(p, t, v, length, l);
    memcpy(r, l, sizeof(double) * (size_t)p->k);
    back_substitute(p, r);
    if (left < DOUBTFUL * length) left = outside(p, t, v, kzp_slack(t, id), r);
    full = left > DEPENDENT * length && p->k < KZ_PROJECT_WORKING ? violation / left : INFINITY;
    for (i = 0; i < p->k; i++)
      if (r[i] > 1e-14 && p->multiplier[i] < step * r[i]) {
        step = p->multiplier[i] / r[i];
        blocking = i;
      }
    if (blocking < 0 && isinf(full)) {
      if (violation > MET / 2 * t->scale) return IMPOSSIBLE;
      restart(p, t); /* met but for rounding: leave it out */
      t->out[id] = 1;
      return SOLVED;
    }
    if (full <= step) step = full;
    for (i = 0; i < p->k; i++) p->multiplier[i] -= step * r[i];
    multiplier += step;
    if (step == full) {
      add(p, t, id, v, l, left, multiplier);
      return SOLVED;
    }
    if (left > DEPENDENT * length) violation -= step * left;
    drop(p, t, blocking);
  }
}

int kzp_programme(kz_projection *p, task *t, double *x) {
  int i, kept = p->k, refined = 0;
  memset(t->out, 0, sizeof t->out);
  p->k = 0;
  for (i = 0; i < kept; i++) { /* the working set of last time, with the normals of now */
    double v[N], l[KZ_PROJECT_WORKING], length, left;
    const int id = p->id[i];
    if (!kzp_counted(t, id) || t->out[id]) continue;
    kzp_normal(p, t, id, v);
    length = kzp_dot(v, v, t->padded) + kzp_slack(t, id);
    left = against(p, t, v, length, l);
    if (left > 1e3 * DEPENDENT * length) add(p, t, id, v, l, left, 0);
  }
  restart(p, t);
  for (;;) {
    double violation;
    int id, rc;
    primal(p, t, x);
    id = most_violated(p, t, x, &violation);
    if (id < 0) {
      if (refined++ == 3 || !p->k || settle(p, t, x) <= t->close / 4) return SOLVED;
      continue;
    }
    rc = enter(p, t, id, violation);
    if (rc != SOLVED) return rc;
  }
}
