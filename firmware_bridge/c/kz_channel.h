/* kz_channel — what one channel of a node does in a period: positions, velocities or torques, by the mode of its drive
 * (docs/protocol.md, "Channels"). kz_guard shapes positions and velocities; torques keep a range and a rate.
 *
 *            value sent                limits
 * position   where to be               kz_guard.h
 * velocity   step in this period       lo, hi: of the measured position (both at KZ_RAW_MAX: turns without end);
 *                                      w: of the step; h: of its change
 * torque     torque                    lo <= 0 <= hi: of the torque; w: of its change;
 *                                      h: largest measured step in a period that counts as rest
 */
#ifndef KZ_CHANNEL_H
#define KZ_CHANNEL_H

#include "kz_codes.h"
#include "kz_guard.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KZ_NO_SAFE INT32_MIN

typedef struct {
  kz_limit limit;
  kz_axis axis;     /* velocity: .q is the measured position; torque: .q is the torque, .v its last change */
  int32_t fallback; /* position: where FAILSAFE goes once at rest, or KZ_NO_SAFE. torque: damping, bits of an f32 in
                     * quanta of torque per quantum of measured motion in a period */
  int32_t was;      /* velocity: the step before this one. torque: where it was measured a period ago */
  uint8_t mode;     /* KZ_MODE_ */
} kz_channel;

/* What to do in a period without a usable command. */
enum {
  KZ_IDLE_COAST,   /* go on as before, where that leaves room to stop; a torque is held */
  KZ_IDLE_BRAKE,   /* brake to rest by h a period; a torque channel damps its motion */
  KZ_IDLE_REST,    /* the same, but a torque goes to zero */
  KZ_IDLE_RETREAT, /* at rest already: a position goes to its safe place, if it has one, at an eighth of full speed */
};

/* 1 if a channel of this mode can be guarded within these limits and with this fallback. */
int kz_channel_ok(const kz_channel *c);

/* At rest where it is measured; nothing is sent yet. */
void kz_channel_seed(kz_channel *c, int32_t measured);

/* One period: move towards `want`. Returns 1 if it had to be shaped. */
int kz_channel_follow(kz_channel *c, int32_t measured, int32_t want, uint8_t miss_budget);

/* One period without a command; `idle`: KZ_IDLE_. */
void kz_channel_idle(kz_channel *c, int32_t measured, uint8_t idle);

/* Nothing is sent from here on: no step, no torque. */
void kz_channel_cut(kz_channel *c);

/* The value of this period. */
int32_t kz_channel_sent(const kz_channel *c);

/* The value on the way there from the last one: `left` of 4096 parts of the period are still to come. */
int32_t kz_channel_between(const kz_channel *c, uint16_t left);

/* 1 if what is sent is at rest: no step, no torque. */
int kz_channel_rests(const kz_channel *c);

#ifdef __cplusplus
}
#endif
#endif
