/* What the rooms of kz_project share and ask of each other: rules (what is met), dual (active set), sqp (quadratics),
 * soft (what gives way), and the call itself in kz_project.c. Each uses only those before it. */
#ifndef KZ_PROJECT_PARTS_H
#define KZ_PROJECT_PARTS_H

#include <math.h>
#include <string.h>

#include "kz_project.h"

/* Every constraint has a number: rows, then quadratics (by their present linearisation), upper and lower bounds. */
enum {
  N = KZ_PROJECT_N,
  ROWS = KZ_PROJECT_ROWS,
  QUADS = KZ_PROJECT_QUADS,
  UPPER = ROWS + QUADS,
  LOWER = UPPER + N,
  IDS = LOWER + N
};
enum { SOLVED, IMPOSSIBLE, EXHAUSTED }; /* what a solver returns */

#define LARGEST 1e100 /* of any input but u */
#define CLOSE 1e-12   /* relative: what the solver takes for met */
#define MET 1e-9      /* relative: what is returned must meet */
#define BIT(j) ((uint64_t)1 << (j))

/* One call's problem: what counts at the moment, and all bounds in terms of unit normals. */
typedef struct {
  int n, padded; /* padded: n rounded up to a multiple of 4; vectors are zero there */
  uint64_t rows, soft_rows; /* counted; of those, carrying a slack */
  uint32_t quads, soft_quads;
  double u[N], scale, close;
  double slack; /* of each soft constraint: 1/weight of its squared violation against 1/2 |x - u|^2 */
  double bound[IDS], r[QUADS];
  double cut[QUADS][N]; /* unit gradients of the quadratics */
  double target[N];     /* the unconstrained minimum of the present quadratic programme */
  const double (*h)[N]; /* Cholesky factor of its Hessian, reciprocal diagonal; NULL: identity */
  uint8_t out[IDS];     /* in the working set, or not worth adding to it */
} task;

/* n: padded. */
static inline double kzp_dot(const double *a, const double *b, int n) {
  double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  int i;
  for (i = 0; i < n; i += 4) {
    s0 += a[i] * b[i];
    s1 += a[i + 1] * b[i + 1];
    s2 += a[i + 2] * b[i + 2];
    s3 += a[i + 3] * b[i + 3];
  }
  return (s0 + s1) + (s2 + s3);
}

static inline double kzp_clamp(double v, double lo, double hi) { return v < lo ? lo : v > hi ? hi : v; }

static inline double kzp_biggest(const double *a, int n) { /* infinite if any is not finite */
  double most = 0;
  int i;
  for (i = 0; i < n; i++) {
    if (!(fabs(a[i]) <= LARGEST)) return INFINITY;
    if (fabs(a[i]) > most) most = fabs(a[i]);
  }
  return most;
}

/* How far x is outside one constraint, per unit of its normal. */
static inline double kzp_excess(const kz_projection *p, const task *t, int id, const double *x) {
  if (id < ROWS) return kzp_dot(p->unit[id], x, t->padded) - t->bound[id];
  if (id < UPPER) return kzp_dot(t->cut[id - ROWS], x, t->padded) - t->bound[id];
  return (id < LOWER ? x[id - UPPER] : -x[id - LOWER]) - t->bound[id];
}

static inline int kzp_counted(const task *t, int id) {
  return id < ROWS ? (int)(t->rows >> id & 1) : id < UPPER ? (int)(t->quads >> (id - ROWS) & 1) : 1;
}

/* What a constraint's slack adds to its entry on the diagonal of the Gram matrix. */
static inline double kzp_slack(const task *t, int id) {
  if (id < ROWS) return t->soft_rows >> id & 1 ? t->slack : 0;
  return id < UPPER && t->soft_quads >> (id - ROWS) & 1 ? t->slack : 0;
}

/* ---- rules ------------------------------------------------------------------------------------------------------- */

/* The normal in the metric of the Hessian: H = hh', v = h^-1 a. */
void kzp_normal(const kz_projection *p, const task *t, int id, double *v);

/* x'Qx + c'x - r; its gradient, and the size of its terms. */
double kzp_quadratic(const kz_projection *p, const task *t, int k, const double *x, double *gradient, double *size);

/* Whether x, in the box, meets every counted rule. `tolerance` is relative. */
int kzp_meets(const kz_projection *p, const task *t, const double *x, double tolerance);

/* ---- dual, sqp, soft ------------------------------------------------------------------------------------------- */

/* minimise 1/2 (x - target)'H(x - target) over the box, the counted rows and the linearised quadratics. */
int kzp_programme(kz_projection *p, task *t, double *x);

/* The whole problem, as counted now. x: where to linearise first unless something better is known, and the answer
 * (or the last attempt). */
int kzp_solve(kz_projection *p, task *t, double *x);

/* Take soft rules in again class by class, the most important first. A class that does not fit is given the least
 * squares of violations that the rules before it allow (or, should that fail numerically, what it has without being
 * asked), and holds there. At any time x meets all that counts. Returns whether the hard rules could be met. */
int kzp_relax(kz_projection *p, task *t, double *x);

#endif
