/* The gateway's side of kz_guard: SI floats in, SI floats out, all channels in one call. The arithmetic that keeps
 * the promise is kz_guard's and kz_coupled's; this file only quantises and reports.
 *
 * Commands are positions, or velocities. Those live on the same lattice: each period the axis is put where the joint was
 * measured, and what is sent is its step. So the step and its change are promised exactly, as of positions, and the range
 * as far as the joint follows. */
#ifndef KZ_GUARD_GLUE_H
#define KZ_GUARD_GLUE_H

#include "kz_coupled.h"
#include "kz_guard.h"

/* The first five are KZ_TOOK_ of kz_coupled.h. */
enum { KZH_PASS = 0, KZH_CLAMPED = 1, KZH_PROJECTED = 2, KZH_RETRACTED = 3, KZH_BRAKE = 4, KZH_HOLD = 5 };
#define KZH_RULE_APPROACH 64
#define KZH_RULE_COUPLED 128

/* What follow found (bits of Event in faults.py). */
enum { KZH_FINE = 0, KZH_NON_FINITE = 1, KZH_OUTSIDE = 256, KZH_INFEASIBLE = 2048 };

/* HEADER of verdict.py, and a byte of rule bits per channel. */
typedef struct {
  int32_t status;
  uint32_t state, cause; /* the stack's */
  uint32_t jerk_relaxed;
  double intervention;     /* Euclidean norm of sent - command [SI]; 0 on PASS, infinite without a usable command */
  uint64_t shaped, relaxed; /* coupled rules that shaped the command, and soft ones given up: rows, then quadratics */
  uint8_t rules[KZ_MAX_CH];
} kzh_verdict;

typedef struct {
  kz_limit limit[KZ_MAX_CH];
  kz_axis axis[KZ_MAX_CH];
  double unit[KZ_MAX_CH]; /* of a command [SI]: one quantum of position, or of step */
  double rate_hz;
  int32_t n;
  uint8_t miss_budget, velocity; /* velocity: 1 if commands are velocities */
  uint8_t approach; /* how an inadmissible command is pursued: 0 nearest admissible value, 1 without circling it */
  uint8_t followed; /* last_want is that of the period before */
  int32_t jerk[KZ_MAX_CH]; /* largest change of the change of step; 0: not limited */
  int32_t change[KZ_MAX_CH], last_want[KZ_MAX_CH];
  kz_coupled *coupled; /* rules that couple joints, with the same limits; or null */
  kzh_verdict verdict; /* of the last call */
} kzh_guard;

/* Positions and velocities in SI units. */
void kzh_guard_seed(kzh_guard *g, const double *position);
void kzh_guard_rebase(kzh_guard *g, const int32_t *q, const int32_t *step);
void kzh_guard_measure(kzh_guard *g, const double *position);
int kzh_guard_follow(kzh_guard *g, const float *command, float *out);
void kzh_guard_coast(kzh_guard *g, uint8_t rule, float *out);
void kzh_guard_brake(kzh_guard *g, uint8_t rule, float *out);
void kzh_guard_motion(const kzh_guard *g, int32_t *q, int32_t *step);
void kzh_guard_applied(const kzh_guard *g, double *position, double *velocity);
int kzh_guard_at_rest(const kzh_guard *g);
int kzh_guard_asks_no_motion(const kzh_guard *g, const float *command);

#endif
