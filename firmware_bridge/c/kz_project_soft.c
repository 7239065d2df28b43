/* What gives way in kz_project where not every rule can be met: soft ones, class by class. */
#include "kz_project_parts.h"

#define SLACK 1e-5  /* a slack at first */
#define SOFTEST 0.2 /* and the most it may be raised to, by 100 at a time, where numbers get too large */
#define PROXIMAL_STEPS 4

/* The bounds of a class, moved to where x is. */
static void give_way(kz_projection *p, task *t, uint64_t rows, uint32_t quads, const double *x) {
  double gradient[N], size;
  int j;
  for (j = 0; j < p->rows; j++) {
    const double e = kzp_dot(p->unit[j], x, t->padded) - t->bound[j];
    if (!(rows >> j & 1) || !(e > 0)) continue;
    t->bound[j] += e + MET * t->scale;
    if (e > MET * t->scale) p->relaxed |= BIT(j);
  }
  for (j = 0; j < p->quads; j++) {
    const double e = kzp_quadratic(p, t, j, x, gradient, &size);
    if (!(quads >> j & 1) || !(e > 0)) continue;
    t->r[j] += e + MET * size;
    if (e > MET * size) p->quads_relaxed |= (uint32_t)BIT(j);
  }
}

/* x <- the nearest point of what is counted, found and checked; left alone (0) if there is none. */
static int nearest(kz_projection *p, task *t, double *x) {
  double y[N];
  memcpy(y, x, sizeof y);
  p->iterations = 0;
  if (kzp_solve(p, t, y) != SOLVED || !kzp_meets(p, t, y, MET)) return 0;
  memcpy(x, y, sizeof y);
  return 1;
}

/* The least squares of a class's violations, among the points that the other rules allow: proximal steps, each with a
 * slack on the class, from u. Multipliers get large here, and so does rounding: the last step is back to the rules. */
static void least_squares(kz_projection *p, task *t, uint64_t rows, uint32_t quads, double *x) {
  const task posed = *t;
  double y[N];
  int step;
  memcpy(y, x, sizeof y);
  t->soft_rows = rows;
  t->soft_quads = quads;
  t->slack = SLACK;
  for (step = 0; step < PROXIMAL_STEPS && t->slack < SOFTEST;) {
    p->iterations = 0;
    if (kzp_solve(p, t, y) == SOLVED) {
      memcpy(t->u, y, sizeof y);
      step++;
    } else {
      p->k = 0;
      t->slack *= 100;
    }
  }
  *t = posed;
  if (step == 0) return;
  memcpy(t->u, y, sizeof y);
  t->rows &= ~rows;
  t->quads &= ~quads;
  if (nearest(p, t, y)) memcpy(x, y, sizeof y);
  *t = posed;
}

int kzp_relax(kz_projection *p, task *t, double *x) {
  const uint64_t rows = t->rows & p->soft;
  const uint32_t quads = t->quads & p->quads_soft;
  int level, j;
  t->rows &= ~rows;
  t->quads &= ~quads;
  p->k = 0;
  if (!nearest(p, t, x)) return 0;
  for (level = 0; level < 256; level++) {
    uint64_t some_rows = 0;
    uint32_t some_quads = 0;
    for (j = 0; j < p->rows; j++)
      if (rows >> j & 1 && p->priority[j] == level) some_rows |= BIT(j);
    for (j = 0; j < p->quads; j++)
      if (quads >> j & 1 && p->quads_priority[j] == level) some_quads |= (uint32_t)BIT(j);
    if (!some_rows && !some_quads) continue;
    t->rows |= some_rows;
    t->quads |= some_quads;
    if (nearest(p, t, x)) continue;
    least_squares(p, t, some_rows, some_quads, x);
    give_way(p, t, some_rows, some_quads, x);
    if (!nearest(p, t, x)) p->k = 0; /* the sets only touch: x is all there is, and what shaped it is not known */
  }
  return 1;
}
