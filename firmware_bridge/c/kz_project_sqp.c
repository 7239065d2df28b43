/* Sequential quadratic programming of kz_project: each step linearises the quadratics, from outside. */
#include "kz_project_parts.h"

#define SQP_STEPS 40
#define NEAR 1e-5 /* relative: a step this short, squared by the next, is the last */

/* H = I + 2 sum mu Q, factored into h (its pivots are never below 1); target = x - H^-1 (x - u). */
static void curve(const kz_projection *p, task *t, const double *x, double h[N][N]) {
  double s, y[N];
  int i, j, k, m;
  for (i = 0; i < t->n; i++)
    for (j = 0; j <= i; j++) {
      s = i == j;
      for (k = 0; k < p->quads; k++)
        if (t->quads >> k & 1) s += 2 * p->mu[k] * p->q[k][i][j];
      for (m = 0; m < j; m++) s -= h[i][m] * h[j][m];
      h[i][j] = i == j ? 1 / sqrt(s > 1 ? s : 1) : s * h[j][j];
    }
  for (i = 0; i < t->n; i++) {
    s = x[i] - t->u[i];
    for (j = 0; j < i; j++) s -= h[i][j] * y[j];
    y[i] = s * h[i][i];
  }
  for (i = t->n - 1; i >= 0; i--) {
    s = y[i];
    for (j = i + 1; j < t->n; j++) s -= h[j][i] * y[j];
    y[i] = s * h[i][i];
    t->target[i] = x[i] - y[i];
  }
}

int kzp_solve(kz_projection *p, task *t, double *x) {
  double h[N][N], next[N], size, steepness[QUADS];
  int i, k, step;
  memcpy(t->target, t->u, sizeof t->u);
  t->h = NULL;
  if (!t->quads) {
    const int rc = kzp_programme(p, t, next);
    for (i = 0; i < t->n; i++) x[i] = kzp_clamp(next[i], p->lo[i], p->hi[i]);
    return rc;
  }
  if (kzp_biggest(p->mu, QUADS) > 0)
    for (i = 0; i < t->n; i++) x[i] = kzp_clamp(p->last[i], p->lo[i], p->hi[i]);
  for (step = 0; step < SQP_STEPS; step++) {
    double moved = 0;
    int rc, flat = 1;
    for (k = 0; k < p->quads; k++) {
      const double value = kzp_quadratic(p, t, k, x, t->cut[k], &size);
      const double length = sqrt(kzp_dot(t->cut[k], t->cut[k], t->padded));
      steepness[k] = length > 0 ? length : 1;
      for (i = 0; i < t->n; i++) t->cut[k][i] /= steepness[k];
      t->bound[ROWS + k] = kzp_dot(t->cut[k], x, t->padded) - value / steepness[k];
      if (t->quads >> k & 1 && p->mu[k] > 0) flat = 0;
    }
    if (flat) {
      memcpy(t->target, t->u, sizeof t->u);
      t->h = NULL;
    } else {
      curve(p, t, x, h);
      t->h = (const double(*)[N])h;
    }
    rc = kzp_programme(p, t, next);
    if (rc != SOLVED) return rc;
    for (i = 0; i < t->n; i++) {
      const double v = kzp_clamp(next[i], p->lo[i], p->hi[i]);
      if (fabs(v - x[i]) > moved) moved = fabs(v - x[i]);
      x[i] = v;
    }
    memcpy(p->last, x, sizeof p->last);
    memset(p->mu, 0, sizeof p->mu);
    for (i = 0; i < p->k; i++)
      if (p->id[i] >= ROWS && p->id[i] < UPPER && p->multiplier[i] > 0)
        p->mu[p->id[i] - ROWS] = p->multiplier[i] / steepness[p->id[i] - ROWS];
    /* The linearised set contains the true one: without curvature, its nearest point is the answer if feasible. */
    if ((flat && !t->soft_quads) || moved <= NEAR * t->scale) {
      const uint32_t quads = t->quads;
      int met;
      t->quads &= ~t->soft_quads;
      met = kzp_meets(p, t, x, 10 * CLOSE);
      t->quads = quads;
      if (met) return SOLVED;
    }
  }
  return EXHAUSTED;
}
