/* The gateway's side of kz_guard: SI floats in, SI floats out, all channels in one call. The arithmetic that keeps
 * the promise is kz_guard's; this file only quantises, keeps the count of missing proposals, and reports. */
#ifndef KZ_GUARD_GLUE_H
#define KZ_GUARD_GLUE_H

#include "kz_coupled.h"
#include "kz_guard.h"

/* The first five are KZ_TOOK_ of kz_coupled.h. */
enum { KZH_PASS = 0, KZH_CLAMPED = 1, KZH_PROJECTED = 2, KZH_RETRACTED = 3, KZH_BRAKE = 4, KZH_HOLD = 5, KZH_ESTOP = 6 };
#define KZH_RULE_NON_FINITE 16
#define KZH_RULE_MISS 32
#define KZH_RULE_APPROACH 64
#define KZH_RULE_COUPLED 128

typedef struct {
  kz_limit limit[KZ_MAX_CH];
  kz_axis axis[KZ_MAX_CH];
  double quantum[KZ_MAX_CH];
  int32_t n;
  uint32_t miss_budget, nan_ticks; /* periods */
  uint32_t bad_run, miss_run;      /* consecutive non-finite commands; consecutive periods without one */
  uint8_t latched;
  uint8_t approach; /* how an inadmissible command is pursued: 0 nearest admissible value, 1 without overshooting it */
  uint8_t followed; /* last_want is that of the period before */
  int32_t last_want[KZ_MAX_CH];
  kz_coupled *coupled; /* rules that couple joints, with the same limits and quanta; or null */
  /* verdict of the last call */
  int32_t status;
  uint8_t rules[KZ_MAX_CH];
  uint64_t rows;           /* of the coupled rules: those that shaped the command */
  uint64_t relaxed;        /* and the soft ones given up for it */
  uint8_t quads, relaxed_quads;
  double intervention; /* Euclidean norm of sent - command [SI]; 0 on PASS, infinite without a usable command */
} kzh_guard;

void kzh_guard_seed(kzh_guard *g, const double *position);
void kzh_guard_rebase(kzh_guard *g, const int32_t *q, const int32_t *step);
void kzh_guard_step(kzh_guard *g, const float *command, float *out);
void kzh_guard_miss(kzh_guard *g, float *out);
void kzh_guard_estop(kzh_guard *g);
void kzh_guard_clear(kzh_guard *g);

#endif
