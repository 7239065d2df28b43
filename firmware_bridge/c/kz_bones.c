#include "kz_bones.h"

#include <math.h>
#include <string.h>

#define FREE 3.141592653589793 /* a cap of this angle is the whole sphere */
#define SHORTEST 1e-6          /* a shorter bone has no direction worth the name */
#define SAME 1e-9              /* distance below which a node counts as not moved; part of a bone without direction */

/* The directions within `angle` of `axis`. */
typedef struct {
  const double *axis;
  double angle;
} cap;

static double dot(const double *a, const double *b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

static void cross(const double *a, const double *b, double *x) {
  x[0] = a[1] * b[2] - a[2] * b[1];
  x[1] = a[2] * b[0] - a[0] * b[2];
  x[2] = a[0] * b[1] - a[1] * b[0];
}

/* By the arctangent: as precise near 0 and pi as between. */
static double angle(const double *a, const double *b) {
  double c[3];
  cross(a, b, c);
  return atan2(sqrt(dot(c, c)), dot(a, b));
}

static void scale(double *v, double factor) {
  for (int k = 0; k < 3; k++) v[k] *= factor;
}

static void copy(double *to, const double *from) { memcpy(to, from, 3 * sizeof *to); }

static int inside(const cap *c, const double *u) { return c->angle >= FREE || angle(c->axis, u) <= c->angle; }

/* e = unit vector at right angles to `a`, towards v; 0 if v lies along a. Twice, because what is left after the first
 * subtraction may be mostly rounding. */
static int perpendicular(const double *a, const double *v, double *e) {
  double norm;
  copy(e, v);
  for (int pass = 0; pass < 2; pass++) {
    const double along = dot(a, e);
    for (int k = 0; k < 3; k++) e[k] -= along * a[k];
    norm = sqrt(dot(e, e));
    if (norm < (pass ? 0.5 : 1e-15)) return 0;
    scale(e, 1 / norm);
  }
  return 1;
}

/* The direction of the cap's rim nearest to u; where all are as near, the one towards `hint`, or any. */
static void nearest(const cap *c, const double *u, const double *hint, double *x) {
  const double in = cos(c->angle), out = sin(c->angle);
  double e[3];
  if (!perpendicular(c->axis, u, e) && !perpendicular(c->axis, hint, e)) {
    const double *a = c->axis;
    const double other[3] = {fabs(a[0]) <= 0.6, fabs(a[0]) > 0.6, 0};
    perpendicular(a, other, e);
  }
  for (int k = 0; k < 3; k++) x[k] = in * c->axis[k] + out * e[k];
}

/* Where the rims of two caps cross, the crossing nearer to u: at angle b from one axis, with the azimuth phi towards
 * the other that the half-angle formulas of the spherical triangle (sides a, b and the angle g between the axes) give:
 *   sin^2(phi/2) : cos^2(phi/2) = sin((a+b-g)/2) sin((a-b+g)/2) : sin((a+b+g)/2) sin((b+g-a)/2).
 * They do not cancel, whatever the angles. Rims that only just touch are taken to touch. */
static void crossing(const cap *cone, const cap *turn, const double *u, double *x) {
  const double a = cone->angle, b = turn->angle, g = angle(cone->axis, turn->axis);
  double s, c, e1[3], e2[3], across, in, out;
  if (sin(g) < 1e-14 || !perpendicular(turn->axis, cone->axis, e1)) { /* one axis: the two rims are one */
    nearest(turn, u, cone->axis, x);
    return;
  }
  s = fmax(sin((a + b - g) / 2) * sin((a - b + g) / 2), 0);
  c = fmax(sin((a + b + g) / 2) * sin((b + g - a) / 2), 0);
  cross(turn->axis, e1, e2);
  across = 2 * sqrt(s) * sqrt(c) / (s + c);
  if (dot(e2, u) < 0) across = -across;
  in = cos(b);
  out = sin(b);
  for (int k = 0; k < 3; k++) x[k] = in * turn->axis[k] + out * ((c - s) / (s + c) * e1[k] + across * e2[k]);
}

/* x = the direction nearest to u within both caps; returns the rules that moved it. A linear function on the sphere
 * (u.x) has its maximum over two half-spaces at its own maximum, at its maximum on one rim, or where the rims cross. */
static uint8_t admit(const cap *cone, const cap *turn, const double *u, const double *last, double *x) {
  const int bent = !inside(cone, u), fast = !inside(turn, u);
  copy(x, u);
  if (!bent && !fast) return 0;
  if (bent) {
    nearest(cone, u, last, x);
    if (inside(turn, x)) return KZ_BONES_CONE;
  }
  if (fast) {
    nearest(turn, u, cone->axis, x);
    if (inside(cone, x)) return KZ_BONES_TURN;
  }
  crossing(cone, turn, u, x);
  return KZ_BONES_CONE | KZ_BONES_TURN;
}

/* v = unit vector from one point to another; returns their distance, 0 if there is none. Halved and scaled, so that
 * no pair of finite points overflows. */
static double towards(const double *from, const double *to, double *v) {
  double most = 0, norm;
  for (int k = 0; k < 3; k++) {
    v[k] = to[k] / 2 - from[k] / 2;
    most = fmax(most, fabs(v[k]));
  }
  if (most < 1e-300) return 0;
  for (int k = 0; k < 3; k++) v[k] /= most;
  norm = sqrt(dot(v, v));
  scale(v, 1 / norm);
  return 2 * norm * most; /* may be infinite: longer than any bone */
}

static uint8_t place_root(kz_bones *b, const double *want) {
  double goal[3], v[3], distance;
  uint8_t rules = 0;
  for (int k = 0; k < 3; k++) {
    goal[k] = fmax(fmin(want[k], KZ_BONES_EXTENT), -KZ_BONES_EXTENT);
    if (goal[k] != want[k]) rules = KZ_BONES_ROOT;
  }
  distance = towards(b->pose[0], goal, v);
  if (b->started && distance > b->root_step) {
    for (int k = 0; k < 3; k++) goal[k] = b->pose[0][k] + b->root_step * v[k];
    rules = KZ_BONES_ROOT;
  }
  copy(b->pose[0], goal);
  return rules;
}

static uint8_t place(kz_bones *b, int32_t i, const double *want, double same) {
  const int32_t p = b->parent[i];
  const cap cone = {b->direction[p], b->cone[i]};
  const cap turn = {b->direction[i], b->started ? b->turn[i] : FREE};
  double u[3], x[3], norm;
  const double distance = towards(want + 3 * p, want + 3 * i, u);
  uint8_t rules = fabs(distance - b->length[i]) > same ? KZ_BONES_LENGTH : 0;
  if (distance <= SAME * b->length[i]) {
    copy(u, b->direction[i]);
    rules |= KZ_BONES_DIRECTION;
  }
  rules |= admit(&cone, &turn, u, b->direction[i], x);
  norm = sqrt(dot(x, x));
  for (int k = 0; k < 3; k++) {
    b->direction[i][k] = x[k] / norm;
    b->pose[i][k] = b->pose[p][k] + b->length[i] * b->direction[i][k];
  }
  return rules;
}

int kz_bones_step(kz_bones *b, const double *want, double rounding) {
  kz_bones_verdict *verdict = &b->verdict;
  double most = 0, same, sum = 0;
  int moved = 0;
  for (int32_t i = 0; i < 3 * b->n; i++) {
    if (!isfinite(want[i])) return 0;
    most = fmax(most, fabs(want[i]));
  }
  same = SAME + rounding * b->depth * most;
  memcpy(b->before, b->pose, sizeof b->pose);
  verdict->rules[0] = place_root(b, want);
  for (int32_t i = 1; i < b->n; i++) verdict->rules[i] = place(b, i, want, same);
  for (int32_t i = 0; i < b->n; i++)
    for (int k = 0; k < 3; k++) {
      const double d = b->pose[i][k] - want[3 * i + k];
      moved |= fabs(d) > same;
      sum += d * d;
    }
  if (!moved) memset(verdict->rules, 0, sizeof verdict->rules);
  verdict->status = moved ? KZ_BONES_PROJECTED : KZ_BONES_PASS;
  verdict->intervention = moved ? sqrt(sum) : 0;
  b->started = 1;
  return 1;
}

void kz_bones_hold(kz_bones *b, uint8_t rule) {
  memcpy(b->before, b->pose, sizeof b->pose);
  memset(b->verdict.rules, rule, (size_t)b->n);
  b->verdict.status = KZ_BONES_HOLD;
  b->verdict.intervention = INFINITY;
  b->started = 1; /* it is sent: what follows may not be far from it */
}

int kz_bones_seed(kz_bones *b, const double *want) {
  const int32_t before = b->started;
  b->started = 0;
  if (!kz_bones_step(b, want, 0)) {
    b->started = before;
    return 0;
  }
  memcpy(b->before, b->pose, sizeof b->pose);
  return 1;
}

int kz_bones_init(kz_bones *b, const double *rest) {
  double reach[KZ_BONES_MAX] = {0}, pose[3 * KZ_BONES_MAX] = {0};
  int32_t depth[KZ_BONES_MAX] = {0};
  if (b->n < 1 || b->n > KZ_BONES_MAX || !(b->root_step > 0)) return 0;
  b->depth = b->started = 0;
  memset(b->pose, 0, sizeof b->pose);
  memset(b->direction, 0, sizeof b->direction);
  for (int32_t i = 1; i < b->n; i++) {
    const int32_t p = b->parent[i];
    const double *r = rest + 3 * i;
    if (p < 0 || p >= i) return 0;
    if (!(b->length[i] >= SHORTEST) || !(b->cone[i] >= 0) || !(b->turn[i] > 0)) return 0;
    if (!(fabs(dot(r, r) - 1) < 1e-9)) return 0;
    if (b->cone[i] < FREE && (p == 0 || (b->turn[i] < FREE && !(b->turn[p] <= b->turn[i])))) return 0;
    reach[i] = reach[p] + b->length[i];
    depth[i] = depth[p] + 1;
    if (!(reach[i] <= KZ_BONES_EXTENT)) return 0;
    if (depth[i] > b->depth) b->depth = depth[i];
    copy(b->direction[i], r);
    for (int k = 0; k < 3; k++) pose[3 * i + k] = pose[3 * p + k] + b->length[i] * r[k];
  }
  memset(&b->verdict, 0, sizeof b->verdict);
  kz_bones_seed(b, pose);
  b->started = 0;
  return 1;
}
