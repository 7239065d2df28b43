/* A witness beside one kz_node, for search_node, fuzz_node and live_node: every byte and every tick goes through it. It
 * compares the node with its own account (node_account.h) after each event; the promises themselves are then stated once
 * more, in promises(), from the event and the states before and after it alone.
 *
 * It shares with the node the frame decoder and kz_guard's step, which are proved elsewhere, and nothing more. The
 * program that includes it supplies violated(), and sets watched_modes before it boots a node. */
#ifndef NODE_WATCH_H
#define NODE_WATCH_H

#include "node_account.h"

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
