/* A witness beside one kz_node, for search_node and fuzz_node: every byte and every tick goes through it. It keeps its
 * own account of what docs/protocol.md says must follow, and compares after each event; the promises themselves are
 * then stated once more, in promises(), from the event and the states before and after it alone.
 *
 * It shares with the node the frame decoder and kz_guard's step, which are proved elsewhere, and nothing more. The
 * program that includes it supplies violated(), and sets watched_modes before it boots a node. */
#ifndef NODE_WATCH_H
#define NODE_WATCH_H

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

/* ---- the board -------------------------------------------------------------------------------------------- */

static void board_write(void *ctx, const uint8_t *frame, uint16_t n) {
  kz_decoder d;
  uint8_t len = 0;
  uint16_t i;
  int complete = 0;
  (void)ctx;
  HOLDS(n > KZ_OVERHEAD - 1 && n <= sizeof w.node.tx && frame[0] == 0 && frame[n - 1] == 0);
  if (frame[2] == KZ_MSG_STATE) return; /* every period: too dear to read; no type is 0, so COBS leaves it readable */
  memset(&d, 0, sizeof d);
  for (i = 0; i < n; ++i) complete = kz_decode(&d, frame[i], &len);
  HOLDS(complete && d.ok == 1);
  if (d.body[0] != KZ_MSG_ACK) return;
  w.answered = d.body[KZ_HEADER];
  w.result = d.body[KZ_HEADER + 1];
  w.value = kz_get32(d.body + KZ_HEADER + 4);
}

static uint8_t board_sense(void *ctx, int32_t *sensors) {
  (void)ctx;
  memcpy(sensors, w.sensors, sizeof(int32_t) * watched_board.n_sensors);
  return w.inputs;
}

static void board_actuate(void *ctx, const kz_output *o) {
  int i;
  (void)ctx;
  w.boundary = o->boundary;
  HOLDS(o->state == w.node.state && o->enabled == w.node.enabled && o->session == w.node.session);
  for (i = 0; i < channels(); ++i) {
    const kz_channel *c = &o->channel[i];
    const int64_t sent = mode(i) == KZ_MODE_VELOCITY ? c->axis.v : c->axis.q;
    const int64_t from = sent - (mode(i) == KZ_MODE_VELOCITY ? (int64_t)c->axis.v - c->was : c->axis.v);
    HOLDS(o->out[i] >= (from < sent ? from : sent) && o->out[i] <= (from < sent ? sent : from)); /* between two setpoints */
    HOLDS(kz_channel_sent(c) == sent);
    if (!w.ideal || !(o->enabled & mask_of(i))) continue;
    if (mode(i) == KZ_MODE_POSITION)
      w.sensors[i] = o->out[i];
    else if (o->boundary) /* in treacle, a torque is a speed */
      w.sensors[i] = (int32_t)((uint32_t)w.sensors[i] + (uint32_t)sent);
  }
}

static const uint8_t watched_schema[] = {'w', 'a', 't', 'c', 'h'};

static void watch_boot(uint8_t n_channels, uint8_t n_sensors, uint32_t boot_id, uint32_t now, uint8_t cause) {
  watched_board.write = board_write;
  watched_board.sense = board_sense;
  watched_board.actuate = board_actuate;
  watched_board.schema = watched_schema;
  watched_board.schema_len = sizeof watched_schema;
  watched_board.n_channels = n_channels;
  watched_board.n_sensors = n_sensors;
  watched_board.tick_us = TICK_US;
  watched_board.modes = watched_modes;
  memset(&w, 0, sizeof w);
  memset(w.since_cut, MOTION_PERIODS, sizeof w.since_cut); /* as good as for ever */
  w.now = now;
  w.ideal = 1;
  w.seen = KZ_IN_NO_SAMPLE;
  HOLDS(kz_node_init(&w.node, &watched_board, 0, boot_id, cause));
  HOLDS(w.node.state == KZ_STATE_INIT && w.node.enabled == 0 && w.node.nonce != 0);
  w.nonce = w.node.nonce;
}

/* ---- the account ------------------------------------------------------------------------------------------ */

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

/* ---- after each event ------------------------------------------------------------------------------------- */

static void agree(void) {
  const kz_node *n = &w.node;
  int i;
  HOLDS(n->state == w.state && n->fault == w.fault);
  HOLDS(n->nonce == w.nonce);
  HOLDS(n->session == w.session);
  HOLDS(n->enabled == w.driven);
  HOLDS(n->limits_hash == w.hash);
  HOLDS(n->stopping == w.stopping && n->commanded == w.commanded && n->pending_valid == w.pending);
  HOLDS(n->retreating == w.retreating);
  for (i = 0; i < channels(); ++i) {
    HOLDS(n->channel[i].mode == mode(i));
    HOLDS(n->channel[i].axis.q == w.axis[i].q && n->channel[i].axis.v == w.axis[i].v);
    if (w.hash) {
      const kz_limit l = limit_of(w.limits[i]);
      HOLDS(memcmp(&n->channel[i].limit, &l, sizeof l) == 0);
    }
  }
}

/* The promises of the session, from the event alone; `p` is 0 on a tick. */
static void promises(const kz_node *was, uint8_t type, uint8_t major, const uint8_t *p, uint8_t len) {
  const kz_node *is = &w.node;
  int i;
  if (p && type == KZ_MSG_ESTOP) HOLDS(is->state == KZ_STATE_ESTOP);
  if (!p && (w.inputs & KZ_IN_ESTOP)) HOLDS(is->state == KZ_STATE_ESTOP);
  if (latched(was->state) && !latched(is->state)) {
    HOLDS(p && type == KZ_MSG_CLEAR && major == KZ_PROTOCOL_MAJOR && len == 4 && kz_get32(p) == was->nonce);
    HOLDS(is->nonce != was->nonce && is->session == 0);
  }
  if (was->state == KZ_STATE_ESTOP) HOLDS(is->state != KZ_STATE_FAILSAFE);
  if (is->state == KZ_STATE_ARMED && was->state != KZ_STATE_ARMED) {
    HOLDS(p && type == KZ_MSG_ARM && major == KZ_PROTOCOL_MAJOR && len == 8 && was->state == KZ_STATE_READY);
    HOLDS(kz_get32(p) == was->nonce && kz_get32(p + 4) == w.hash && w.hash != 0);
    HOLDS(is->session != was->session && is->session != 0);
  }
  if (is->state == KZ_STATE_INIT) HOLDS(is->enabled == 0);
  if (is->state == KZ_STATE_ARMED && is->commanded && !is->stopping && !p) HOLDS(!passed(is->deadline));
  for (i = 0; i < channels(); ++i) {
    const kz_axis *a = &was->channel[i].axis, *b = &is->channel[i].axis;
    const kz_limit l = is->channel[i].limit;
    const int64_t step = mode(i) == KZ_MODE_VELOCITY ? b->v : (int64_t)b->q - a->q, change = step - a->v;
    if (!(was->enabled & is->enabled & mask_of(i))) continue; /* the promise is about consecutive sent values */
    if (p) HOLDS(b->q == a->q && b->v == a->v);                 /* time alone moves setpoints */
    if (p || !w.boundary) continue;
    HOLDS(step <= l.w && -step <= l.w);
    if (mode(i) != KZ_MODE_TORQUE) HOLDS(change <= l.h && -change <= l.h);
    if (mode(i) == KZ_MODE_VELOCITY) continue;
    if (a->q >= l.lo && a->q <= l.hi) HOLDS(b->q >= l.lo && b->q <= l.hi);
    if (a->q < l.lo) HOLDS(step >= 0);
    if (a->q > l.hi) HOLDS(step <= 0);
    if (mode(i) == KZ_MODE_POSITION && was->state == KZ_STATE_FAILSAFE && step != 0 && a->v == 0) { /* it sets out */
      const int64_t safe = safe_of(w.limits[i]), slow = l.w / 8 > 1 ? l.w / 8 : 1;
      HOLDS(safe != KZ_NO_SAFE && step <= slow && -step <= slow && (safe > a->q) == (step > 0) && safe != a->q);
      HOLDS(w.fault != KZ_FAULT_ACTUATOR && w.fault != KZ_FAULT_SENSOR && measured_now());
    }
  }
}

/* Buffers and counters aside, nothing changed. */
static int same_session(const kz_node *was, const kz_node *is) {
  kz_node a, b;
  memcpy(&a, was, sizeof a);
  memcpy(&b, is, sizeof b);
  memset(&a.rx, 0, sizeof a.rx);
  memset(&b.rx, 0, sizeof b.rx);
  memset(a.tx, 0, sizeof a.tx);
  memset(b.tx, 0, sizeof b.tx);
  a.tx_seq = b.tx_seq = a.ignored = b.ignored = a.stale = b.stale = 0;
  return memcmp(&a, &b, sizeof a) == 0;
}

/* ---- events ----------------------------------------------------------------------------------------------- */

/* One request: accepted exactly when it may be, and answered so. */
static void judge_request(uint8_t type, uint16_t seq, const uint8_t *p, uint8_t len, const kz_node *was) {
  int accept = 0, repeat = 0, i;
  HOLDS(w.answered == type);
  switch (type) {
    case KZ_MSG_LIMITS:
      accept = may_stage(p, len);
      if (accept) {
        memcpy(w.staged[p[0]], p, KZ_LIMITS_BYTES);
        w.staged_mask |= mask_of(p[0]);
      }
      break;
    case KZ_MSG_LIMITS_COMMIT:
      accept = may_commit(p, len);
      if (accept) adopt(p);
      break;
    case KZ_MSG_ARM:
      if (len != 8) break;
      repeat = w.state == KZ_STATE_ARMED && !w.commanded && !w.stopping && seq == w.arm_seq &&
               kz_get32(p) == w.armed_with && kz_get32(p + 4) == w.hash;
      accept = w.state == KZ_STATE_READY && w.hash && kz_get32(p) == w.nonce && kz_get32(p + 4) == w.hash && resting();
      if (accept) {
        HOLDS(w.value == w.node.session && w.value != 0);
        w.state = KZ_STATE_ARMED;
        w.session = w.value;
        w.armed_at = w.now;
        w.armed_with = w.nonce;
        w.arm_seq = seq;
        w.misses = 0;
      }
      break;
    case KZ_MSG_DISARM:
      accept = len == 0;
      if (accept && w.state == KZ_STATE_ARMED) {
        w.stopping = 1;
        w.pending = 0;
        if (resting()) become_ready();
      }
      break;
    default: /* CLEAR */
      if (len != 4) break;
      repeat = w.state == KZ_STATE_READY && seq == w.clear_seq && kz_get32(p) == w.cleared_with;
      accept = may_clear(kz_get32(p));
      if (accept) {
        for (i = 0; i < channels(); ++i) HOLDS(!w.hash || (w.driven & mask_of(i)) || w.since_cut[i] >= MOTION_PERIODS);
        w.clear_seq = seq;
        w.cleared_with = w.nonce;
        if (w.hash) {
          become_ready();
        } else {
          leave_session(KZ_STATE_INIT, KZ_FAULT_NONE);
          HOLDS(w.node.nonce != w.nonce);
          w.nonce = w.node.nonce;
        }
      }
  }
  HOLDS((w.result == KZ_ACK_OK) == (accept || repeat));
  if (!accept) HOLDS(same_session(was, &w.node)); /* neither a refusal nor a repetition has an effect */
}

static void judge_frame(const kz_node *was) {
  const uint8_t *p = w.ear.body + KZ_HEADER;
  const uint8_t type = w.ear.body[0], major = w.ear.body[1] >> 4, len = w.finished;
  const uint16_t seq = kz_get16(w.ear.body + 2);
  if (type == KZ_MSG_ESTOP) {
    become_estop(KZ_FAULT_ESTOP_HOST);
  } else if (major == KZ_PROTOCOL_MAJOR && (type == KZ_MSG_LIMITS || type == KZ_MSG_LIMITS_COMMIT ||
                                            (type >= KZ_MSG_ARM && type <= KZ_MSG_CLEAR))) {
    judge_request(type, seq, p, len, was);
  } else if (major == KZ_PROTOCOL_MAJOR && type == KZ_MSG_FAULT) {
    become_failsafe(KZ_FAULT_HOST);
  } else if (major == KZ_PROTOCOL_MAJOR && type == KZ_MSG_COMMAND) {
    const int what = verdict(p, len, seq);
    HOLDS((uint16_t)(w.node.ignored - was->ignored) == (what == IGNORE));
    HOLDS((uint16_t)(w.node.stale - was->stale) == (what == STALE));
    if (what == TAKE)
      take_command(p, seq);
    else
      HOLDS(same_session(was, &w.node));
  } else {
    HOLDS(same_session(was, &w.node));
  }
  promises(was, type, major, p, len);
  agree();
}

/* The line brings bytes; those that end no frame go to the node in one piece. */
static void watch_rx(const uint8_t *data, uint16_t n) {
  kz_node was;
  while (n) {
    const uint32_t frames = w.node.rx.ok;
    uint16_t quiet = 0;
    uint8_t len = 0;
    while (quiet < n && !kz_decode(&w.ear, data[quiet], &len)) ++quiet;
    kz_node_rx(&w.node, data, quiet);
    HOLDS(w.node.rx.ok == frames);
    if (quiet == n) return;
    memcpy(&was, &w.node, sizeof was);
    w.answered = 0;
    w.finished = len;
    kz_node_rx(&w.node, data + quiet, 1);
    judge_frame(&was);
    data += quiet + 1;
    n = (uint16_t)(n - quiet - 1);
  }
}

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

/* `us` later, the next tick. */
static void watch_tick(uint32_t us) {
  const uint32_t period = w.period_us ? w.period_us : 10000u;
  int i, boundary;
  kz_node was;
  w.now += us;
  w.seen = w.inputs;
  memcpy(w.sensed, w.sensors, sizeof w.sensed);
  memcpy(&was, &w.node, sizeof was);
  kz_node_tick(&w.node, w.now);

  if (!w.ticked) w.due = w.now;
  w.ticked = 1;
  if (w.state == KZ_STATE_INIT && measured_now())
    for (i = 0; i < channels(); ++i)
      if (!(w.driven & mask_of(i))) seed(i);
  if (w.seen & KZ_IN_ESTOP) become_estop(KZ_FAULT_ESTOP_LOCAL);
  if (w.seen & KZ_IN_ACTUATOR_FAULT) become_failsafe(KZ_FAULT_ACTUATOR);
  if (!measured_now()) become_failsafe(KZ_FAULT_SENSOR);
  if (w.state == KZ_STATE_INIT && w.hash && measured_now()) become_ready();
  if (w.state == KZ_STATE_ARMED && !w.stopping) {
    if (w.commanded ? passed(w.deadline) : w.now - w.armed_at >= 1000u * w.arm_ttl_ms)
      become_failsafe(w.commanded ? KZ_FAULT_TTL : KZ_FAULT_ARM_TTL);
  }
  boundary = passed(w.due);
  if (boundary) {
    w.due += period;
    if (passed(w.due)) w.due = w.now + period;
    if (w.period_us) step_channels();
  }
  HOLDS(w.boundary == boundary);
  promises(&was, 0, 0, 0, 0);
  agree();
}

#endif
