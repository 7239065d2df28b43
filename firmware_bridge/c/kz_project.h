/* kz_project — the nearest point of a convex set (docs/guardrails.md): a box, rows a.x <= b, and convex quadratics
 * x'Qx + c'x <= r. Float64; runs on the gateway only. No memory of its own, bounded work, never NaN.
 *
 *     minimise 1/2 |x - u|^2   subject to   lo <= x <= hi,   a_j.x <= b_j,   x'Q_k x + c_k.x <= r_k
 *
 * If u clamped into the box meets the rest, it is the answer. Else the dual active set of Goldfarb and Idnani
 * (Math. Prog. 27, 1983), started from the working set of the last call. With quadratics it is the inner solver of
 * sequential quadratic programming with the Lagrangian's Hessian: each step linearises the quadratics, from outside.
 *
 * "Within tolerance" below: a_j.x - b_j <= 1e-9 |a_j| s, with s the largest |lo|, |hi|; for a quadratic 1e-9 times
 * the size of its terms. Rows whose angle to the span of the others is below 3e-7 are taken as dependent on them. */
#ifndef KZ_PROJECT_H
#define KZ_PROJECT_H

#include <stdint.h>

#define KZ_PROJECT_N 16
#define KZ_PROJECT_ROWS 64
#define KZ_PROJECT_QUADS 4
#define KZ_PROJECT_WORKING 84      /* N + ROWS + QUADS: independent normals, and those that carry a slack */
#define KZ_PROJECT_ITERATIONS 400  /* changes of the working set, per call; anew for each attempt at soft rules */

enum {
  KZ_PROJECT_PASS = 0,        /* x = u */
  KZ_PROJECT_CLAMPED = 1,     /* the box alone decided: x is u clamped */
  KZ_PROJECT_PROJECTED = 2,   /* the nearest point; `relaxed` says whether soft rules had to give way */
  KZ_PROJECT_RETRACTED = 3,   /* feasible, between the anchor and u, not the nearest point */
  KZ_PROJECT_INFEASIBLE = -1, /* no feasible point found: x is u clamped into the box, which may break rules */
  KZ_PROJECT_BAD_INPUT = -2   /* not finite, above 1e100, lo > hi, or never prepared; x untouched */
};

/* Rows, quadratics and joints are bits in the masks: row j is (uint64_t)1 << j. */
typedef struct {
  /* The problem. After a change of n, rows, quads, a, q or c call kz_project_prepare; the rest is read afresh. */
  int32_t n, rows, quads;
  uint64_t enabled, soft;            /* rows that count; rows that may be relaxed if not all can be met */
  uint32_t quads_enabled, quads_soft;
  uint8_t priority[KZ_PROJECT_ROWS]; /* of soft ones: 0 matters most */
  uint8_t quads_priority[KZ_PROJECT_QUADS];
  double lo[KZ_PROJECT_N], hi[KZ_PROJECT_N];
  double a[KZ_PROJECT_ROWS][KZ_PROJECT_N], b[KZ_PROJECT_ROWS];
  double q[KZ_PROJECT_QUADS][KZ_PROJECT_N][KZ_PROJECT_N]; /* symmetric, positive semidefinite */
  double c[KZ_PROJECT_QUADS][KZ_PROJECT_N], r[KZ_PROJECT_QUADS];

  /* The result of the last call. */
  int32_t status, iterations;
  uint64_t active, relaxed; /* rows that shaped x; soft rows that gave way (after a retraction: all of them may have) */
  uint32_t quads_active, quads_relaxed;
  uint32_t at_lo, at_hi; /* joints held by the box */

  /* kz_project's own: prepared normals of unit length, and the working set. */
  uint8_t prepared;
  double unit[KZ_PROJECT_ROWS][KZ_PROJECT_N], inverse[KZ_PROJECT_ROWS], quad_size[KZ_PROJECT_QUADS];
  int32_t k;
  int32_t id[KZ_PROJECT_WORKING];
  double multiplier[KZ_PROJECT_WORKING];
  double mu[KZ_PROJECT_QUADS], last[KZ_PROJECT_N]; /* multipliers of the quadratics; the x they belong to */
  double normal[KZ_PROJECT_WORKING][KZ_PROJECT_N];
  double factor[KZ_PROJECT_WORKING][KZ_PROJECT_WORKING], pivot[KZ_PROJECT_WORKING]; /* Cholesky; 1/diagonal */
} kz_projection;

/* What depends on a, q and c only, and a cold start. 0, or KZ_PROJECT_BAD_INPUT if something is not finite or does
 * not fit. That each q is positive semidefinite is the caller's promise. */
int32_t kz_project_prepare(kz_projection *p);

/* x <- the nearest point to u; returns the status. Except on BAD_INPUT x is finite and lo <= x <= hi exactly; on
 * PASS, CLAMPED, PROJECTED and RETRACTED it meets every enabled rule (but for `relaxed` ones) within tolerance. A
 * feasible anchor makes sure of a feasible answer; NULL if there is none. x may be u. */
int32_t kz_project(kz_projection *p, const double *u, const double *anchor, double *x);

#endif
