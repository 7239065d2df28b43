/* What a step breaks, now or before the joints have come to rest: the half of kz_coupled that judges. Internal to it. */
#ifndef KZ_RULES_H
#define KZ_RULES_H

#include "kz_coupled.h"

#define KZ_MOVING 8 /* joints whose corners are walked: 256 of them */

/* One step from a state, in SI units per period: position before and after, step, change of step, travel after it. */
typedef struct {
  double before[KZ_PROJECT_N], after[KZ_PROJECT_N], step[KZ_PROJECT_N], change[KZ_PROJECT_N], beyond[KZ_PROJECT_N];
  int leaves; /* a joint of a group cannot stop inside its range together with the group */
} kz_motion;

static inline double kz_dot(const double *a, const double *b, int32_t n) {
  double s = 0;
  for (int32_t i = 0; i < n; i++) s += a[i] * b[i];
  return s;
}

/* For each group the joint that needs most periods to rest from the steps v: the others brake in proportion with it. */
void kz_leaders(const kz_coupled *g, const int32_t *v, uint8_t *lead);

/* The step by which joint i brakes in proportion with the leader of its group. */
int32_t kz_braked_with(const kz_coupled *g, const kz_axis *axis, int32_t i, int32_t lead);

/* Where a step of v from `axis` leads, with `coast` periods more before the joints brake. */
void kz_look(const kz_coupled *g, const kz_axis *axis, const int32_t *v, uint8_t coast, kz_motion *m);

/* What a rule on positions allows. From a state that breaks a hard one already: no more of it. */
double kz_allowed(double bound, int32_t hard, double now);

/* z'Qz + c.z. */
double kz_form(const kz_coupled *g, const kz_quadratic *f, const double *z);

/* The largest value of a quadratic on positions over all that can be reached: it is convex, so at a corner of that box.
 * `corner` is the one, a bit per joint that has travelled. A bound of each term settles most cases; else the corners are
 * walked in Gray code order, one joint at a time. With more than KZ_MOVING joints only the bound is used, for its far corner. */
double kz_farthest(const kz_coupled *g, const kz_quadratic *f, const kz_motion *m, double enough, uint32_t *corner);

/* Of these rows and quadratics, those that the step breaks: a bit for each. */
uint64_t kz_broken(const kz_coupled *g, const kz_motion *m, uint64_t rows, uint32_t quads, uint8_t *broken_quads);

#endif
