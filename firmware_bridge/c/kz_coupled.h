/* kz_coupled — rules that couple joints, on top of kz_guard (docs/guardrails.md). Gateway only: float64.
 *
 * A joint's own limits stay with kz_guard, in integers. Here a command of all joints is admitted only if every row
 * a.z <= b and every quadratic z'Qz + c.z <= r holds too, where z is the position of the next period, its change per
 * second, or the change of that. The comparison allows for the rounding of its own arithmetic: what it calls kept is
 * kept exactly, by the sent values. A row's edge itself passes where the sum can be shown to be exact.
 *
 * Rows on positions also hold wherever the robot can get to without another command: the joints coast up to the miss
 * budget and brake, each by itself or with its group, so the positions they can reach form the box between this
 * position and the end of each joint's travel. A row must hold on all of that box. Then braking is always admissible, and
 * the rows hold while the microcontroller stops the robot alone, joint by joint, knowing nothing of them.
 *
 * Rows on velocities hold while the joints they couple brake in proportion: such joints form a group, which takes the
 * same number of periods to rest.
 */
#ifndef KZ_COUPLED_H
#define KZ_COUPLED_H

#include "kz_guard.h"
#include "kz_project.h"

enum { KZ_ON_POSITION = 0, KZ_ON_VELOCITY = 1, KZ_ON_ACCELERATION = 2 };

/* How a command was found (the numbers of Status in verdict.py). */
enum { KZ_TOOK_PROPOSAL = 0, KZ_TOOK_CLAMPED = 1, KZ_TOOK_PROJECTED = 2, KZ_TOOK_RETRACTED = 3, KZ_TOOK_BRAKE = 4 };

/* a.z <= b in SI units. */
typedef struct {
  double a[KZ_PROJECT_N], b;
  double bound, edge; /* kz_coupled_prepare: b per period, less and plus the rounding of its own evaluation */
  int32_t on, priority, hard;
} kz_row;

/* z'Qz + c.z <= r in SI units, Q symmetric and positive semidefinite, on positions or velocities. */
typedef struct {
  double q[KZ_PROJECT_N][KZ_PROJECT_N], c[KZ_PROJECT_N], r;
  double bound;
  int32_t on, priority, hard;
} kz_quadratic;

typedef struct {
  int32_t n, rows, quads;
  uint8_t coast;                /* miss budget, periods */
  uint8_t group[KZ_PROJECT_N];  /* joints of one number brake together; alone where it is the joint's own index */
  double rate;                  /* command periods per second */
  kz_limit limit[KZ_PROJECT_N];
  double quantum[KZ_PROJECT_N]; /* SI units; powers of two, so that positions are exact */
  kz_row row[KZ_PROJECT_ROWS];
  kz_quadratic quad[KZ_PROJECT_QUADS];
  uint64_t enabled;             /* bit per row */
  uint8_t narrowed;             /* 1: steps stay within `least` and `most` where anything admissible does */
  int32_t least[KZ_PROJECT_N], most[KZ_PROJECT_N];
  /* results of the last call */
  uint64_t active;              /* rows that shaped the command */
  uint64_t relaxed;             /* soft rows that were given up for it */
  uint8_t active_quads, relaxed_quads;
  uint8_t braking_broke;        /* 1: not even braking kept every hard rule (a state this guard did not lead to) */
  /* its own */
  uint64_t soft;
  uint8_t parent[KZ_PROJECT_ROWS]; /* the row that a further tangent belongs to */
  kz_projection projection;
} kz_coupled;

/* What is left of a window within [least, most]; where nothing is, the admissible step nearest to that. */
kz_window kz_narrow(kz_window w, int32_t least, int32_t most);

/* Compute what depends on the rules only; call it after changing them. `enabled` and a row's `b` may then change. */
void kz_coupled_prepare(kz_coupled *g);

/* Move all axes to the admissible positions nearest to `want` (quanta); adds to rules[i] what shaped joint i.
 * Returns KZ_TOOK_. */
int32_t kz_coupled_admit(kz_coupled *g, kz_axis *axis, const int32_t *want, uint8_t *rules);

/* One period of braking, each group in proportion. */
void kz_coupled_brake(const kz_coupled *g, kz_axis *axis);

/* 1 if a step of v from `axis` keeps every hard rule, until it can have come to rest after `coast` periods more. */
int kz_coupled_keeps(const kz_coupled *g, const kz_axis *axis, const int32_t *v, uint8_t coast);

#endif
