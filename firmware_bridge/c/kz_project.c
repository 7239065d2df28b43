#include "kz_project.h"

#include <math.h>
#include <string.h>

/* Every constraint has a number: rows, then quadratics (by their present linearisation), upper and lower bounds. */
enum {
  N = KZ_PROJECT_N,
  ROWS = KZ_PROJECT_ROWS,
  QUADS = KZ_PROJECT_QUADS,
  UPPER = ROWS + QUADS,
  LOWER = UPPER + N,
  IDS = LOWER + N
};
enum { SOLVED, IMPOSSIBLE, EXHAUSTED };

#define LARGEST 1e100    /* of any input but u */
#define FAR 1e5          /* u is not further from the box than this many of its half widths */
#define CLOSE 1e-12      /* relative: what the solver takes for met */
#define MET 1e-9         /* relative: what is returned must meet */
#define DEPENDENT 1e-13  /* squared sine of the angle to the working set's span */
#define SLACK 1e-5       /* 1/weight of a soft row's squared violation against 1/2 |x - u|^2 */
#define PROXIMAL_STEPS 4
#define SQP_STEPS 40
#define NEAR 1e-5        /* relative: a step this short, squared by the next, is the last */
#define BIT(j) ((uint64_t)1 << (j))

/* One call's problem: what counts at the moment, and all bounds in terms of unit normals. */
typedef struct {
  int n, padded; /* padded: n rounded up to a multiple of 4; vectors are zero there */
  uint64_t rows, soft_rows; /* counted; of those, carrying a slack */
  uint32_t quads, soft_quads;
  double u[N], scale, close;
  double bound[IDS], r[QUADS];
  double cut[QUADS][N]; /* unit gradients of the quadratics */
  double target[N];     /* the unconstrained minimum of the present quadratic programme */
  const double (*h)[N]; /* Cholesky factor of its Hessian, reciprocal diagonal; NULL: identity */
  uint8_t out[IDS];     /* in the working set, or not worth adding to it */
} task;

static double dot(const double *a, const double *b, int n) {
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

static double biggest(const double *a, int n) { /* infinite if any is not finite */
  double most = 0;
  int i;
  for (i = 0; i < n; i++) {
    if (!(fabs(a[i]) <= LARGEST)) return INFINITY;
    if (fabs(a[i]) > most) most = fabs(a[i]);
  }
  return most;
}

static double clamp(double v, double lo, double hi) { return v < lo ? lo : v > hi ? hi : v; }

/* ---- constraints --------------------------------------------------------------------------------------------- */

static double excess(const kz_projection *p, const task *t, int id, const double *x) {
  if (id < ROWS) return dot(p->unit[id], x, t->padded) - t->bound[id];
  if (id < UPPER) return dot(t->cut[id - ROWS], x, t->padded) - t->bound[id];
  return (id < LOWER ? x[id - UPPER] : -x[id - LOWER]) - t->bound[id];
}

static int counted(const task *t, int id) {
  return id < ROWS ? (int)(t->rows >> id & 1) : id < UPPER ? (int)(t->quads >> (id - ROWS) & 1) : 1;
}

/* What a constraint's slack adds to its entry on the diagonal of the Gram matrix. */
static double slack(const task *t, int id) {
  if (id < ROWS) return t->soft_rows >> id & 1 ? SLACK : 0;
  return id < UPPER && t->soft_quads >> (id - ROWS) & 1 ? SLACK : 0;
}

/* The normal in the metric of the Hessian: H = hh', v = h^-1 a. */
static void normal(const kz_projection *p, const task *t, int id, double *v) {
  int i, j;
  if (id < ROWS) {
    memcpy(v, p->unit[id], sizeof(double) * N);
  } else if (id < UPPER) {
    memcpy(v, t->cut[id - ROWS], sizeof(double) * N);
  } else {
    memset(v, 0, sizeof(double) * N);
    v[id < LOWER ? id - UPPER : id - LOWER] = id < LOWER ? 1 : -1;
  }
  if (t->h)
    for (i = 0; i < t->n; i++) {
      double s = v[i];
      for (j = 0; j < i; j++) s -= t->h[i][j] * v[j];
      v[i] = s * t->h[i][i];
    }
}

/* x'Qx + c'x - r; its gradient, and the size of its terms. */
static double quadratic(const kz_projection *p, const task *t, int k, const double *x, double *gradient, double *size) {
  double square = 0, line = 0;
  int i;
  for (i = 0; i < t->n; i++) {
    const double s = dot(p->q[k][i], x, t->padded);
    gradient[i] = 2 * s + p->c[k][i];
    square += x[i] * s;
    line += x[i] * p->c[k][i];
  }
  for (; i < N; i++) gradient[i] = 0;
  *size = fabs(square) + fabs(line) + fabs(t->r[k]);
  return square + line - t->r[k];
}

/* Whether x, in the box, meets every counted rule. `tolerance` is relative. */
static int meets(const kz_projection *p, const task *t, const double *x, double tolerance) {
  double gradient[N], size;
  int j;
  for (j = 0; j < p->rows; j++)
    if (t->rows >> j & 1 && !(dot(p->unit[j], x, t->padded) - t->bound[j] <= tolerance * t->scale)) return 0;
  for (j = 0; j < p->quads; j++)
    if (t->quads >> j & 1 && !(quadratic(p, t, j, x, gradient, &size) <= tolerance * size)) return 0;
  return 1;
}

/* ---- the working set and the factor of its Gram matrix --------------------------------------------------------- */

/* l = factor^-1 (normals . v); returns what is left of v outside the working set's span, squared. */
static double against(const kz_projection *p, const task *t, const double *v, double length, double *l) {
  int i, j;
  for (i = 0; i < p->k; i++) {
    double s = dot(p->normal[i], v, t->padded);
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
    double s = excess(p, t, p->id[i], x) - slack(t, p->id[i]) * p->multiplier[i];
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
    if (t->out[id] || !counted(t, id)) continue;
    e = excess(p, t, id, x);
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
  normal(p, t, id, v);
  length = dot(v, v, t->padded) + slack(t, id);
  for (;;) {
    double left, full, step = INFINITY;
    int i, blocking = -1;
    if (++p->iterations > KZ_PROJECT_ITERATIONS) return EXHAUSTED;
    left = against(p, t, v, length, l);
    memcpy(r, l, sizeof(double) * (size_t)p->k);
    back_substitute(p, r);
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

/* minimise 1/2 (x - target)'H(x - target) over the box, the counted rows and the linearised quadratics. */
static int programme(kz_projection *p, task *t, double *x) {
  int i, kept = p->k, refined = 0;
  memset(t->out, 0, sizeof t->out);
  p->k = 0;
  for (i = 0; i < kept; i++) { /* the working set of last time, with the normals of now */
    double v[N], l[KZ_PROJECT_WORKING], length, left;
    const int id = p->id[i];
    if (!counted(t, id) || t->out[id]) continue;
    normal(p, t, id, v);
    length = dot(v, v, t->padded) + slack(t, id);
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

/* ---- quadratics ------------------------------------------------------------------------------------------------ */

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

/* The whole problem, as counted now. x: where to linearise first unless something better is known, and the answer
 * (or the last attempt). */
static int solve(kz_projection *p, task *t, double *x) {
  double h[N][N], next[N], size, steepness[QUADS];
  int i, k, step;
  memcpy(t->target, t->u, sizeof t->u);
  t->h = NULL;
  if (!t->quads) {
    const int rc = programme(p, t, next);
    for (i = 0; i < t->n; i++) x[i] = clamp(next[i], p->lo[i], p->hi[i]);
    return rc;
  }
  if (biggest(p->mu, QUADS) > 0)
    for (i = 0; i < t->n; i++) x[i] = clamp(p->last[i], p->lo[i], p->hi[i]);
  for (step = 0; step < SQP_STEPS; step++) {
    double moved = 0;
    int rc, flat = 1;
    for (k = 0; k < p->quads; k++) {
      const double value = quadratic(p, t, k, x, t->cut[k], &size);
      const double length = sqrt(dot(t->cut[k], t->cut[k], t->padded));
      steepness[k] = length > 0 ? length : 1;
      for (i = 0; i < t->n; i++) t->cut[k][i] /= steepness[k];
      t->bound[ROWS + k] = dot(t->cut[k], x, t->padded) - value / steepness[k];
      if (t->quads >> k & 1 && p->mu[k] > 0) flat = 0;
    }
    if (flat) {
      memcpy(t->target, t->u, sizeof t->u);
      t->h = NULL;
    } else {
      curve(p, t, x, h);
      t->h = (const double(*)[N])h;
    }
    rc = programme(p, t, next);
    if (rc != SOLVED) return rc;
    for (i = 0; i < t->n; i++) {
      const double v = clamp(next[i], p->lo[i], p->hi[i]);
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
      met = meets(p, t, x, 10 * CLOSE);
      t->quads = quads;
      if (met) return SOLVED;
    }
  }
  return EXHAUSTED;
}

/* ---- what to do when not everything can be met ----------------------------------------------------------------- */

/* The bounds of a class, moved to where x is. */
static void give_way(kz_projection *p, task *t, uint64_t rows, uint32_t quads, const double *x) {
  double gradient[N], size;
  int j;
  for (j = 0; j < p->rows; j++) {
    const double e = dot(p->unit[j], x, t->padded) - t->bound[j];
    if (!(rows >> j & 1) || !(e > 0)) continue;
    t->bound[j] += e + MET * t->scale;
    if (e > MET * t->scale) p->relaxed |= BIT(j);
  }
  for (j = 0; j < p->quads; j++) {
    const double e = quadratic(p, t, j, x, gradient, &size);
    if (!(quads >> j & 1) || !(e > 0)) continue;
    t->r[j] += e + MET * size;
    if (e > MET * size) p->quads_relaxed |= (uint32_t)BIT(j);
  }
}

/* The least squares of a class's violations: proximal steps, each with a slack on the class, from u. */
static int least_squares(kz_projection *p, task *t, uint64_t rows, uint32_t quads, double *x) {
  double u[N];
  int step, rc = SOLVED;
  memcpy(u, t->u, sizeof u);
  t->soft_rows = rows;
  t->soft_quads = quads;
  for (step = 0; step < PROXIMAL_STEPS && rc == SOLVED; step++) {
    rc = solve(p, t, x);
    if (rc != SOLVED) { /* rounding may have spoilt the working set, not the problem: once more from nothing */
      p->k = 0;
      p->iterations = 0;
      rc = solve(p, t, x);
    }
    memcpy(t->u, x, sizeof u);
  }
  memcpy(t->u, u, sizeof u);
  t->soft_rows = 0;
  t->soft_quads = 0;
  return rc;
}

/* Take soft rules in again class by class, the most important first. A class that does not fit is given the least
 * squares of violations that the rules before it allow (or, should that fail numerically, what it has without being
 * asked), and holds there. */
static int relax(kz_projection *p, task *t, double *x) {
  const uint64_t rows = t->rows & p->soft;
  const uint32_t quads = t->quads & p->quads_soft;
  int level, j, rc;
  t->rows &= ~rows;
  t->quads &= ~quads;
  p->k = 0;
  p->iterations = 0;
  rc = solve(p, t, x);
  for (level = 0; level < 256 && rc == SOLVED; level++) {
    double nearest[N];
    uint64_t some_rows = 0;
    uint32_t some_quads = 0;
    for (j = 0; j < p->rows; j++)
      if (rows >> j & 1 && p->priority[j] == level) some_rows |= BIT(j);
    for (j = 0; j < p->quads; j++)
      if (quads >> j & 1 && p->quads_priority[j] == level) some_quads |= (uint32_t)BIT(j);
    if (!some_rows && !some_quads) continue;
    t->rows |= some_rows;
    t->quads |= some_quads;
    p->iterations = 0;
    memcpy(nearest, x, sizeof nearest);
    if (solve(p, t, nearest) != SOLVED) {
      memcpy(nearest, x, sizeof nearest);
      if (least_squares(p, t, some_rows, some_quads, nearest) == SOLVED) memcpy(x, nearest, sizeof nearest);
      give_way(p, t, some_rows, some_quads, x);
      memcpy(nearest, x, sizeof nearest);
      if (solve(p, t, nearest) != SOLVED || !meets(p, t, nearest, MET)) continue; /* the sets only touch: keep x */
    }
    memcpy(x, nearest, sizeof nearest);
  }
  return rc;
}

/* As far from the anchor towards x as every rule allows. */
static int retract(kz_projection *p, const task *t, const double *anchor, double *x) {
  double d[N] = {0}, gradient[N], size, far = 1;
  int i, j;
  p->active = 0;
  p->quads_active = 0;
  for (i = 0; i < t->n; i++) d[i] = x[i] - anchor[i];
  for (j = 0; j < p->rows; j++) {
    const double slope = dot(p->unit[j], d, t->padded);
    const double room = t->bound[j] - dot(p->unit[j], anchor, t->padded);
    if (!(t->rows >> j & 1) || !(slope * far > room)) continue;
    far = room > 0 ? room / slope : 0;
    p->active = BIT(j);
  }
  for (j = 0; j < p->quads; j++) { /* bend f^2 + slope f - room = 0, written so that nothing cancels */
    const double room = -quadratic(p, t, j, anchor, gradient, &size), slope = dot(gradient, d, t->padded);
    double bend = 0, root;
    for (i = 0; i < t->n; i++) bend += d[i] * dot(p->q[j][i], d, t->padded);
    if (bend < 0) bend = 0;
    if (!(t->quads >> j & 1) || !((bend * far + slope) * far > room)) continue;
    root = slope + sqrt(slope * slope + 4 * bend * (room > 0 ? room : 0));
    far = room > 0 && root > 0 ? 2 * room / root : 0;
    p->active = 0;
    p->quads_active = (uint32_t)BIT(j);
  }
  for (i = 0; i < t->n; i++) x[i] = clamp(anchor[i] + far * d[i], p->lo[i], p->hi[i]);
  if (!meets(p, t, x, MET)) memcpy(x, anchor, sizeof(double) * N);
  return KZ_PROJECT_RETRACTED;
}

/* ---- the call -------------------------------------------------------------------------------------------------- */

int32_t kz_project_prepare(kz_projection *p) {
  int i, j;
  p->prepared = 0;
  p->k = 0;
  memset(p->mu, 0, sizeof p->mu);
  if (p->n < 1 || p->n > N || p->rows < 0 || p->rows > ROWS || p->quads < 0 || p->quads > QUADS)
    return KZ_PROJECT_BAD_INPUT;
  for (j = 0; j < p->rows; j++) {
    const double most = biggest(p->a[j], p->n);
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
    if (isinf(biggest(p->c[j], p->n))) return KZ_PROJECT_BAD_INPUT;
    for (i = 0; i < p->n; i++)
      if (isinf(biggest(p->q[j][i], p->n))) return KZ_PROJECT_BAD_INPUT;
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

/* The nearest point, or what can be had instead. `first`: u clamped into the box. */
static int32_t project(kz_projection *p, task *t, const double *first, const double *anchor, double *x) {
  const task posed = *t;
  int rc = solve(p, t, x);
  if (rc == SOLVED && meets(p, t, x, MET)) {
    report_working_set(p);
    return KZ_PROJECT_PROJECTED;
  }
  if (rc == IMPOSSIBLE || !isfinite(dot(x, x, t->padded))) memcpy(x, first, sizeof(double) * N);
  if (anchor && meets(p, t, anchor, MET)) return retract(p, t, anchor, x);
  if ((t->rows & p->soft) || (t->quads & p->quads_soft)) {
    memcpy(x, first, sizeof(double) * N);
    rc = relax(p, t, x);
    if (rc == SOLVED && meets(p, t, x, MET)) {
      report_working_set(p);
      return KZ_PROJECT_PROJECTED;
    }
    *t = posed; /* the hard rules alone, as they were */
    t->rows &= ~p->soft;
    t->quads &= ~p->quads_soft;
    memcpy(x, first, sizeof(double) * N);
    if (anchor && meets(p, t, anchor, MET)) {
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
  if (!pose(p, u, &t) || (anchor && isinf(biggest(anchor, p->n)))) return p->status;
  for (i = 0; i < p->n; i++) {
    first[i] = clamp(u[i], p->lo[i], p->hi[i]);
    if (u[i] > p->hi[i]) above |= (uint32_t)BIT(i);
    if (u[i] < p->lo[i]) below |= (uint32_t)BIT(i);
    if (anchor) safe[i] = clamp(anchor[i], p->lo[i], p->hi[i]);
  }
  memcpy(best, first, sizeof best);
  if (meets(p, &t, first, CLOSE)) {
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
