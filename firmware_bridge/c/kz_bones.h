/* kz_bones — a pose that always is one of the declared skeleton (docs/bones.md). Float64; runs on the gateway only.
 *
 * A pose is the positions of the nodes of a tree. Each proposal is re-parameterised from the root to the leaves: of
 * every bone only its direction is taken, moved to the nearest direction (along a great circle) that is admissible,
 * and the bone is laid with its declared length. Promise, for every pose in `pose`, whatever was proposed:
 *
 *     | |child - parent| - length | <= 1e-12 * max(1, length)
 *     angle(bone, its parent's bone) <= cone      angle(bone, the same bone one period ago) <= turn
 *     |root - root one period ago| <= root_step
 *
 * The last three up to the rounding of float64. A bone with a cone and a turn must have a parent bone that turns no
 * faster: then the two spherical caps always meet. No memory of its own, no recursion, one pass.
 */
#ifndef KZ_BONES_H
#define KZ_BONES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KZ_BONES_MAX 128
#define KZ_BONES_EXTENT 4096 /* the root stays within +-this, and no chain is longer: keeps the length promise */

/* Statuses, as kizzasi_edge.guardrails.verdict.Status. */
#define KZ_BONES_PASS 0
#define KZ_BONES_PROJECTED 2
#define KZ_BONES_HOLD 5

/* What shaped a node (bit set). 16 and 32 are not used: they are the caller's, for kz_bones_hold. */
#define KZ_BONES_LENGTH 1    /* the proposed bone was longer or shorter */
#define KZ_BONES_CONE 2      /* bent too far against its parent's bone */
#define KZ_BONES_TURN 4      /* turned too fast */
#define KZ_BONES_DIRECTION 8 /* the proposal gave it no direction: it keeps its last */
#define KZ_BONES_ROOT 64     /* the root moved too fast, or beyond KZ_BONES_EXTENT */

/* What was decided: a verdict's record as kizzasi_edge.guardrails.verdict lays it out. `state` and `cause` are the
 * caller's; `jerk_relaxed`, `shaped` and `relaxed` stay 0. */
typedef struct {
  int32_t status;
  uint32_t state, cause, jerk_relaxed;
  double intervention; /* Euclidean norm of pose - proposal; 0 on PASS, infinite on HOLD */
  uint64_t shaped, relaxed;
  uint8_t rules[KZ_BONES_MAX];
} kz_bones_verdict;

typedef struct {
  /* The skeleton. Node 0 is the root; every parent comes before its children. Entry 0 of the others is unused. */
  int32_t n;
  int32_t parent[KZ_BONES_MAX];
  double length[KZ_BONES_MAX];
  double cone[KZ_BONES_MAX]; /* rad; pi or more: free */
  double turn[KZ_BONES_MAX]; /* rad per period; pi or more: free */
  double root_step;          /* distance per period; infinite: free */
  /* The last pose, the one before, and the unit direction of the bone that ends at each node of the last. */
  double pose[KZ_BONES_MAX][3];
  double before[KZ_BONES_MAX][3];
  double direction[KZ_BONES_MAX][3];
  int32_t depth;            /* bones on the longest chain */
  int32_t started;          /* there is a last pose: turn and root_step apply */
  kz_bones_verdict verdict; /* of the last step or hold */
} kz_bones;

/* Checks the skeleton (n, parent, length, cone, turn, root_step must be set) and stands in the rest pose, root at the
 * origin. `rest`: unit directions [n][3]. Returns 1, or 0 if such a skeleton cannot be guarded. */
int kz_bones_init(kz_bones *b, const double *rest);

/* The next pose, from positions want[n][3]. Returns 0, and has changed nothing, if one of them is not finite.
 * `rounding`: relative error that the proposal already carries (2^-23 if it came as float32, else 0): within it, and
 * within 1e-9, an unchanged pose is a PASS. */
int kz_bones_step(kz_bones *b, const double *want, double rounding);

/* The last pose once more, `rule` in every node's byte. */
void kz_bones_hold(kz_bones *b, uint8_t rule);

/* Stands at rest in a measured pose: as kz_bones_step, without turn and root_step. */
int kz_bones_seed(kz_bones *b, const double *want);

#ifdef __cplusplus
}
#endif
#endif
