/* The account that the witness (node_watch.h) keeps of what docs/protocol.md says must follow: which state, session,
 * limits and setpoints a node must have by now, from what went in alone. It shares kz_guard's step with the node, which is
 * proved elsewhere, and nothing more; what velocities and torques do is written down here once more. */
#ifndef NODE_ACCOUNT_H
#define NODE_ACCOUNT_H

#include <stdint.h>
#include <string.h>

#include "../kz_node.h"

#define TICK_US 1000u
#ifndef MOTION_PERIODS
#define MOTION_PERIODS 32
#endif

static void violated(const char *what); /* does not return */
#define HOLDS(condition) ((condition) ? (void)0 : violated(#condition))

/* One whole situation. Plain data: a program may copy it away and back. */
typedef struct {
  kz_node node;
  /* the machine */
  int32_t sensors[KZ_NODE_SENSORS];
  uint8_t inputs, ideal; /* ideal: sensors follow the outputs of driven channels */
  uint32_t now;
  /* the account */
  kz_decoder ear;
  uint8_t staged[KZ_NODE_CH][KZ_LIMITS_BYTES], limits[KZ_NODE_CH][KZ_LIMITS_BYTES];
  kz_axis axis[KZ_NODE_CH]; /* torque: .q the torque, .v its change */
  int32_t was[KZ_NODE_CH];  /* torque: where it was measured a period ago */
  int32_t target[KZ_NODE_CH];
  int32_t sensed[KZ_NODE_SENSORS];
  int32_t last[KZ_NODE_CH]; /* where they were when the motion window began */
  uint32_t hash, period_us, due, nonce, session, armed_at, armed_with, cleared_with, obs, deadline;
  uint16_t ttl_max_ms, arm_ttl_ms, seq, arm_seq, clear_seq, staged_mask, driven, moving;
  uint8_t since_cut[KZ_NODE_CH], state, fault, seen, budget, misses, stopping, commanded, pending, ticked, retreating;
  uint8_t window;
  /* the last event: what the node answered and did */
  uint8_t answered, result, boundary, finished;
  uint32_t value;
} watch;

static watch w;
static kz_board watched_board;
static uint8_t watched_modes[KZ_NODE_CH];

static int mode(int i) { return watched_modes[i]; }
static uint8_t channels(void) { return watched_board.n_channels; }
static uint16_t every_channel(void) { return (uint16_t)(((uint32_t)1 << channels()) - 1); }
static uint16_t mask_of(int i) { return (uint16_t)(1u << i); }
static int measured_now(void) { return !(w.seen & (KZ_IN_NO_SAMPLE | KZ_IN_SENSOR_FAULT)); }
static int latched(uint8_t state) { return state == KZ_STATE_FAILSAFE || state == KZ_STATE_ESTOP; }
static int passed(uint32_t t) { return (int32_t)(w.now - t) >= 0; }

static kz_limit limit_of(const uint8_t *bytes) {
  kz_limit l;
  l.lo = kz_get32s(bytes + 4);
  l.hi = kz_get32s(bytes + 8);
  l.w = kz_get32s(bytes + 12);
  l.h = kz_get32s(bytes + 16);
  return l;
}

static int rests_now(int i) {
  if (w.axis[i].v != 0) return 0;
  return mode(i) != KZ_MODE_TORQUE || (w.axis[i].q == 0 && !(w.moving & mask_of(i)));
}

static int resting(void) {
  int i;
  for (i = 0; i < channels(); ++i)
    if (!rests_now(i)) return 0;
  return 1;
}

static void seed(int i) {
  kz_seed(&w.axis[i], mode(i) == KZ_MODE_TORQUE ? 0 : w.sensed[i]);
  w.was[i] = w.sensed[i];
}

/* CRC-32 by its definition, one bit at a time. */
static uint32_t crc_bits(uint32_t crc, const uint8_t *p, int n) {
  int k;
  crc = ~crc;
  while (n--)
    for (crc ^= *p++, k = 0; k < 8; ++k) crc = crc & 1 ? (crc >> 1) ^ 0xedb88320u : crc >> 1;
  return ~crc;
}

/* ---- states and requests ---------------------------------------------------------------------------------- */

static void leave_session(uint8_t state, uint8_t fault) {
  w.state = state;
  w.fault = fault;
  w.stopping = w.pending = w.commanded = w.retreating = 0;
}

static void become_ready(void) {
  int i;
  leave_session(KZ_STATE_READY, KZ_FAULT_NONE);
  for (i = 0; i < channels(); ++i)
    if (!(w.driven & mask_of(i))) seed(i);
  w.driven = every_channel();
  w.session = 0;
  HOLDS(w.node.nonce != w.nonce && w.node.nonce != 0);
  w.nonce = w.node.nonce;
}

static void become_failsafe(uint8_t fault) {
  if (w.state == KZ_STATE_READY || w.state == KZ_STATE_ARMED) leave_session(KZ_STATE_FAILSAFE, fault);
}

static void cut_channel(int i) {
  w.driven &= (uint16_t)~mask_of(i);
  w.axis[i].v = 0;
  if (mode(i) == KZ_MODE_TORQUE) w.axis[i].q = 0;
  w.since_cut[i] = 0;
  w.moving |= mask_of(i);
  w.window = 0;
  memcpy(w.last, w.sensed, sizeof w.last[0] * channels());
}

static void become_estop(uint8_t fault) {
  int i;
  if (w.state == KZ_STATE_ESTOP) return;
  leave_session(KZ_STATE_ESTOP, fault);
  for (i = 0; i < channels(); ++i)
    if (!w.hash || w.limits[i][1] == KZ_STOP_CUT) cut_channel(i);
}

static int32_t safe_of(const uint8_t *limits) { return kz_get32s(limits + 20); }

static int may_stage(const uint8_t *p, uint8_t len) {
  kz_limit l;
  if (len != KZ_LIMITS_BYTES || (w.state != KZ_STATE_INIT && w.state != KZ_STATE_READY) || p[0] >= channels()) return 0;
  l = limit_of(p);
  if (p[1] > KZ_STOP_BRAKE_THEN_CUT || !kz_limit_ok(&l)) return 0;
  if (mode(p[0]) == KZ_MODE_POSITION)
    return safe_of(p) == KZ_NO_SAFE || (safe_of(p) >= l.lo && safe_of(p) <= l.hi);
  if (mode(p[0]) == KZ_MODE_TORQUE) return l.lo <= 0 && l.hi >= 0 && kz_get32(p + 24) < 0x4B800000u; /* 2^24 */
  return 1;
}

static int may_commit(const uint8_t *p, uint8_t len) {
  uint8_t word[4];
  uint32_t hash;
  int i;
  if (len != 16 || (w.state != KZ_STATE_INIT && w.state != KZ_STATE_READY) || w.staged_mask != every_channel()) return 0;
  if (p[5] != channels() || kz_get32(p) == 0 || kz_get32(p) > 1000000u || kz_get32(p) % TICK_US) return 0;
  if (kz_get16(p + 6) == 0 || kz_get16(p + 8) == 0) return 0;
  kz_put32(word, w.node.schema_hash);
  hash = crc_bits(0, word, 4);
  for (i = 0; i < channels(); ++i) hash = crc_bits(hash, w.staged[i], KZ_LIMITS_BYTES);
  return hash != 0 && crc_bits(hash, p, 12) == kz_get32(p + 12);
}

static void adopt(const uint8_t *p) {
  if (kz_get32(p + 12) == w.hash) return;
  memcpy(w.limits, w.staged, sizeof w.limits);
  w.hash = kz_get32(p + 12);
  w.period_us = kz_get32(p);
  w.budget = p[4];
  w.ttl_max_ms = kz_get16(p + 6);
  w.arm_ttl_ms = kz_get16(p + 8);
  w.due = w.now + TICK_US;
  if (w.state == KZ_STATE_READY || measured_now()) become_ready();
}

/* Whether CLEAR may succeed now. */
static int may_clear(uint32_t nonce) {
  if (!latched(w.state) || nonce != w.nonce || (w.seen & KZ_IN_ESTOP)) return 0;
  if (!w.hash) return 1;
  return measured_now() && resting() && !(w.moving & (uint16_t)~w.driven & every_channel());
}

static uint32_t ttl_us(const uint8_t *p) {
  const uint16_t ttl = kz_get16(p + 8);
  return 1000u * (ttl < w.ttl_max_ms ? ttl : w.ttl_max_ms);
}

enum { IGNORE, STALE, TAKE };

static int verdict(const uint8_t *p, uint8_t len, uint16_t seq) {
  if (w.state != KZ_STATE_ARMED || w.stopping || len != 10 + 4 * channels() || kz_get32(p) != w.session) return IGNORE;
  if (w.commanded && ((int16_t)(uint16_t)(seq - w.seq) <= 0 || (int32_t)(kz_get32(p + 4) - w.obs) < 0)) return IGNORE;
  if (!passed(kz_get32(p + 4))) return IGNORE;
  return w.now - kz_get32(p + 4) < ttl_us(p) ? TAKE : STALE;
}

static void take_command(const uint8_t *p, uint16_t seq) {
  int i;
  for (i = 0; i < channels(); ++i)
    if (kz_get32(p + 10 + 4 * i) == 0x80000000u) {
      become_failsafe(KZ_FAULT_INVALID_VALUE);
      return;
    }
  for (i = 0; i < channels(); ++i) w.target[i] = kz_get32s(p + 10 + 4 * i);
  w.seq = seq;
  w.obs = kz_get32(p + 4);
  w.deadline = w.obs + ttl_us(p);
  w.commanded = w.pending = 1;
}

/* ---- a period of the channels ----------------------------------------------------------------------------- */

static int64_t clamped(int64_t x, int64_t lo, int64_t hi) { return x < lo ? lo : x > hi ? hi : x; }

/* -k*x, towards zero, k the f32 of these bits: bit by bit. */
static int64_t damped(uint32_t bits, int64_t x) {
  uint64_t y = (uint64_t)(x < 0 ? -x : x) * (bits < 0x00800000u ? 0 : (bits & 0x007FFFFFu) + 0x00800000u);
  int halvings = 150 - (int)(bits >> 23);
  for (; halvings > 0 && y; --halvings) y /= 2;
  y = y > KZ_RAW_MAX ? KZ_RAW_MAX : y;
  return x < 0 ? (int64_t)y : -(int64_t)y;
}

static void step_torque(int i, const kz_limit *l, int64_t want) {
  const int64_t q = w.axis[i].q, next = clamped(clamped(want, l->lo, l->hi), q - l->w, q + l->w);
  w.axis[i].v = (int32_t)(next - q);
  w.axis[i].q = (int32_t)next;
  w.was[i] = w.sensed[i];
}

/* A period without a command of its own. */
static void step_idle(int i, const kz_limit *l, int coast) {
  if (mode(i) == KZ_MODE_TORQUE) {
    const int32_t moved = (int32_t)((uint32_t)w.sensed[i] - (uint32_t)w.was[i]);
    const int still = w.state == KZ_STATE_READY || (w.state == KZ_STATE_ARMED && !w.stopping && !w.commanded);
    step_torque(i, l, coast ? w.axis[i].q : still ? 0 : damped(kz_get32(w.limits[i] + 24), moved));
  } else if (mode(i) == KZ_MODE_POSITION && w.retreating && measured_now() && !(w.seen & KZ_IN_ACTUATOR_FAULT) &&
             safe_of(w.limits[i]) != KZ_NO_SAFE) {
    kz_limit slow = *l;
    uint8_t rules = 0;
    slow.w = slow.w / 8 > 1 ? slow.w / 8 : 1;
    kz_admit(&slow, &w.axis[i], safe_of(w.limits[i]), 0, &rules);
  } else {
    kz_miss(l, &w.axis[i], coast);
  }
}

static void measure_motion(void) {
  int i;
  if (++w.window < MOTION_PERIODS) return;
  w.window = 0;
  for (i = 0; i < channels(); ++i) {
    const kz_limit l = limit_of(w.limits[i]);
    const int64_t moved = (int32_t)((uint32_t)w.sensed[i] - (uint32_t)w.last[i]);
    const int64_t most = (int64_t)MOTION_PERIODS * (mode(i) == KZ_MODE_TORQUE ? l.h : l.w / 8);
    w.moving = (uint16_t)((w.moving & ~mask_of(i)) | (moved > most || -moved > most ? mask_of(i) : 0));
    w.last[i] = w.sensed[i];
  }
}

static void step_channels(void) {
  const int live = w.state == KZ_STATE_ARMED && !w.stopping && w.commanded;
  const int coast = live && w.misses < w.budget;
  int i, moves = 0, slows = 1;
  if (w.state == KZ_STATE_FAILSAFE && w.fault != KZ_FAULT_ACTUATOR && w.fault != KZ_FAULT_SENSOR && resting())
    w.retreating = 1;
  measure_motion();
  for (i = 0; i < channels(); ++i) {
    const kz_limit l = limit_of(w.limits[i]);
    const int64_t v = w.axis[i].v;
    int64_t after;
    uint8_t rules = 0;
    if (w.since_cut[i] < MOTION_PERIODS) w.since_cut[i]++;
    if (!(w.driven & mask_of(i))) continue;
    if (!w.pending && w.state == KZ_STATE_ESTOP && rests_now(i)) {
      cut_channel(i);
      continue;
    }
    if (mode(i) == KZ_MODE_VELOCITY)
      w.axis[i].q = l.hi == KZ_RAW_MAX && l.lo == -KZ_RAW_MAX ? 0 : (int32_t)clamped(w.sensed[i], -KZ_RAW_MAX, KZ_RAW_MAX);
    if (!w.pending)
      step_idle(i, &l, coast);
    else if (mode(i) == KZ_MODE_TORQUE)
      step_torque(i, &l, w.target[i]);
    else if (mode(i) == KZ_MODE_VELOCITY)
      kz_admit(&l, &w.axis[i], w.axis[i].q + (int32_t)clamped(w.target[i], -KZ_RAW_MAX, KZ_RAW_MAX), w.budget, &rules);
    else
      kz_admit(&l, &w.axis[i], w.target[i], w.budget, &rules);
    after = w.axis[i].v;
    moves |= after != 0 || mode(i) == KZ_MODE_TORQUE;
    slows &= mode(i) != KZ_MODE_TORQUE && (v * v > after * after || (v == 0 && after == 0));
  }
  if (w.pending)
    w.misses = moves && slows ? w.misses : 0; /* a command that only brakes does not renew the budget */
  else if (live && w.misses < 255)
    w.misses++;
  w.pending = 0;
  if (w.stopping && resting()) become_ready();
}

#endif
