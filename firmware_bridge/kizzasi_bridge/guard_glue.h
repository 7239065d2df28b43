/* The gateway's side of kz_guard: SI floats in, SI floats out, all channels in one call. The arithmetic that keeps
 * the promise is kz_guard's; this file only quantises, keeps the count of missing proposals, and reports. */
#ifndef KZ_GUARD_GLUE_H
#define KZ_GUARD_GLUE_H

#include "kz_guard.h"

enum { KZH_PASS = 0, KZH_CLAMPED = 1, KZH_BRAKE = 4, KZH_HOLD = 5, KZH_ESTOP = 6 };
#define KZH_RULE_NON_FINITE 16
#define KZH_RULE_MISS 32
#define KZH_RULE_APPROACH 64

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
  /* verdict of the last call */
  int32_t status;
  uint8_t rules[KZ_MAX_CH];
  double intervention; /* Euclidean norm of sent - command [SI]; 0 on PASS, infinite without a usable command */
} kzh_guard;

void kzh_guard_seed(kzh_guard *g, const double *position);
void kzh_guard_rebase(kzh_guard *g, const int32_t *q, const int32_t *step);
void kzh_guard_step(kzh_guard *g, const float *command, float *out);
void kzh_guard_miss(kzh_guard *g, float *out);
void kzh_guard_estop(kzh_guard *g);
void kzh_guard_clear(kzh_guard *g);

#endif
