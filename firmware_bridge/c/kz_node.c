#include "kz_node.h"

#include <string.h>

#define IDLE_STATE_US 10000u /* STATE interval before limits are committed */
#define MAX_PERIOD_US 1000000u
#define MOTION_PERIODS 32 /* speed is measured over this many periods: over one, encoder noise looks like motion */
#define READS_PER_POLL 16 /* a flood of bytes must not hold back the tick */

/* Shifts of int overflow at bit 15 where int has 16 bits. */
static uint16_t bit(uint8_t channel) { return (uint16_t)((uint32_t)1 << channel); }
static uint16_t all_channels(const kz_node *n) { return (uint16_t)(((uint32_t)1 << n->board->n_channels) - 1); }

/* Wrap-safe "a is at or after b". */
static int reached(uint32_t a, uint32_t b) { return (int32_t)(a - b) >= 0; }

/* Nonces and sessions: a full-period generator, so that neither repeats within a boot; 0 means "none". */
static uint32_t fresh(kz_node *n) {
  do {
    n->random = n->random * 1664525u + 1013904223u;
  } while (n->random == 0);
  return n->random;
}

/* ---- sending ---------------------------------------------------------------------------------------------- */

static void send(kz_node *n, uint8_t type, uint8_t payload_len) {
  const uint8_t flags = (uint8_t)((KZ_PROTOCOL_MAJOR << 4) | n->state);
  n->board->write(n->ctx, n->tx, kz_seal(n->tx, type, flags, n->tx_seq++, n->now, payload_len));
}

static void send_ack(kz_node *n, uint8_t request, uint16_t request_seq, uint8_t result, uint32_t value) {
  uint8_t *p = n->tx + KZ_PAYLOAD_AT;
  p[0] = request;
  p[1] = result;
  kz_put32(kz_put16(p + 2, request_seq), result == KZ_ACK_OK ? value : 0);
  send(n, KZ_MSG_ACK, 8);
}

static void send_hello(kz_node *n) {
  uint8_t *p = n->tx + KZ_PAYLOAD_AT;
  p[0] = KZ_PROTOCOL_MAJOR;
  p[1] = KZ_PROTOCOL_MINOR;
  p[2] = n->board->n_channels;
  p[3] = n->board->n_sensors;
  p[4] = n->reset_cause;
  p[5] = n->state;
  p = kz_put16(p + 6, n->board->schema_len);
  p = kz_put32(p, n->boot_id);
  p = kz_put32(p, n->schema_hash);
  p = kz_put32(p, n->limits_hash);
  p = kz_put32(p, n->nonce);
  kz_put32(p, n->period_us);
  send(n, KZ_MSG_HELLO, 28);
}

static void send_schema(kz_node *n, uint16_t offset, uint16_t length) {
  uint8_t *p = n->tx + KZ_PAYLOAD_AT;
  const uint16_t total = n->board->schema_len;
  if (offset > total) offset = total;
  if (length > total - offset) length = (uint16_t)(total - offset);
  if (length > KZ_TX_PAYLOAD - 2) length = KZ_TX_PAYLOAD - 2;
  kz_put16(p, offset);
  memcpy(p + 2, n->board->schema + offset, length);
  send(n, KZ_MSG_SCHEMA_DATA, (uint8_t)(length + 2));
}

static void send_state(kz_node *n) {
  const uint8_t channels = n->board->n_channels;
  const uint8_t values = (uint8_t)(channels + n->board->n_sensors);
  const uint8_t pages = (uint8_t)((values + KZ_VALUES_PER_PAGE - 1u) / KZ_VALUES_PER_PAGE);
  const uint16_t errors = (uint16_t)(n->rx.bad_crc + n->rx.bad_cobs + n->rx.too_long + n->rx.runt);
  uint8_t page, i = 0;
  for (page = 0; page < pages; ++page) {
    uint8_t *const payload = n->tx + KZ_PAYLOAD_AT, *p = payload;
    p[0] = n->state;
    p[1] = n->fault;
    p[2] = page;
    p[3] = pages;
    p = kz_put32(p + 4, n->nonce);
    p = kz_put32(p, n->session);
    p = kz_put16(p, n->applied_seq);
    p = kz_put16(p, n->clamped);
    p = kz_put32(p, n->now);
    p = kz_put16(p, errors);
    p = kz_put16(p, n->ignored);
    p = kz_put16(p, n->misses);
    p = kz_put16(p, n->stale);
    for (; i < values && p < payload + KZ_STATE_HEADER + 4 * KZ_VALUES_PER_PAGE; ++i)
      p = kz_put32(p, (uint32_t)(i < channels ? kz_channel_sent(&n->channel[i]) : n->sensors[i - channels]));
    send(n, KZ_MSG_STATE, (uint8_t)(p - payload));
  }
}

/* ---- states ----------------------------------------------------------------------------------------------- */

/* Without torque, rest can only be measured. */
static int rests(const kz_node *n, uint8_t i) {
  const kz_channel *c = &n->channel[i];
  return kz_channel_rests(c) && !(c->mode == KZ_MODE_TORQUE && n->moving & bit(i));
}

static int at_rest(const kz_node *n) {
  uint8_t i;
  for (i = 0; i < n->board->n_channels; ++i)
    if (!rests(n, i)) return 0;
  return 1;
}

/* Where the motor is off, the setpoint follows the machine; a driven channel goes on holding what it holds, so
 * that consecutive sent values keep the promise across sessions. */
static void seed_undriven(kz_node *n) {
  uint8_t i;
  for (i = 0; i < n->board->n_channels; ++i)
    if (!(n->enabled & bit(i))) kz_channel_seed(&n->channel[i], n->sensors[i]);
}

static int measured(const kz_node *n) { return !(n->inputs & (KZ_IN_NO_SAMPLE | KZ_IN_SENSOR_FAULT)); }

static void end_session(kz_node *n, uint8_t state, uint8_t fault) {
  n->state = state;
  n->fault = fault;
  n->stopping = n->pending_valid = n->commanded = n->retreating = 0;
}

static void enter_ready(kz_node *n) {
  end_session(n, KZ_STATE_READY, KZ_FAULT_NONE);
  seed_undriven(n);
  n->enabled = all_channels(n);
  n->session = 0;
  n->nonce = fresh(n);
}

static void enter_failsafe(kz_node *n, uint8_t fault) {
  if (n->state == KZ_STATE_READY || n->state == KZ_STATE_ARMED) end_session(n, KZ_STATE_FAILSAFE, fault);
}

/* A channel without torque counts as moving until a whole window has shown that it rests. */
static void cut(kz_node *n, uint8_t i) {
  n->enabled &= (uint16_t)~bit(i);
  kz_channel_cut(&n->channel[i]);
  n->moving |= bit(i);
  n->window = 0;
  memcpy(n->last, n->sensors, sizeof n->last[0] * n->board->n_channels);
}

static void enter_estop(kz_node *n, uint8_t fault) {
  uint8_t i;
  if (n->state == KZ_STATE_ESTOP) return;
  end_session(n, KZ_STATE_ESTOP, fault);
  for (i = 0; i < n->board->n_channels; ++i)
    if (!(n->brake_first & bit(i))) cut(n, i);
}

/* ---- requests --------------------------------------------------------------------------------------------- */

static void read_limits(kz_channel *c, const uint8_t *p) {
  c->limit.lo = kz_get32s(p + 4);
  c->limit.hi = kz_get32s(p + 8);
  c->limit.w = kz_get32s(p + 12);
  c->limit.h = kz_get32s(p + 16);
  c->fallback = kz_get32s(p + (c->mode == KZ_MODE_TORQUE ? 24 : 20)); /* K_d, or the safe place */
}

static uint8_t stage_limits(kz_node *n, const uint8_t *p, uint8_t len) {
  kz_channel c;
  if (len != KZ_LIMITS_BYTES) return KZ_ACK_BAD_LENGTH;
  if (n->state != KZ_STATE_INIT && n->state != KZ_STATE_READY) return KZ_ACK_WRONG_STATE;
  if (p[0] >= n->board->n_channels || p[1] > KZ_STOP_BRAKE_THEN_CUT) return KZ_ACK_BAD_LIMITS;
  c.mode = n->channel[p[0]].mode;
  read_limits(&c, p);
  if (!kz_channel_ok(&c)) return KZ_ACK_BAD_LIMITS;
  memcpy(n->upload[p[0]], p, KZ_LIMITS_BYTES);
  n->staged |= bit(p[0]);
  return KZ_ACK_OK;
}

static uint8_t commit_limits(kz_node *n, const uint8_t *p, uint8_t len) {
  const uint8_t channels = n->board->n_channels;
  uint8_t word[4], i;
  uint32_t hash, period;
  if (len != 16) return KZ_ACK_BAD_LENGTH;
  if (n->state != KZ_STATE_INIT && n->state != KZ_STATE_READY) return KZ_ACK_WRONG_STATE;
  period = kz_get32(p);
  if (n->staged != all_channels(n) || p[5] != channels || period == 0 || period > MAX_PERIOD_US ||
      period % n->board->tick_us || kz_get16(p + 6) == 0 || kz_get16(p + 8) == 0)
    return KZ_ACK_BAD_LIMITS;
  kz_put32(word, n->schema_hash);
  hash = kz_crc32(0, word, 4);
  for (i = 0; i < channels; ++i) hash = kz_crc32(hash, n->upload[i], KZ_LIMITS_BYTES);
  hash = kz_crc32(hash, p, 12);
  if (hash == 0 || hash != kz_get32(p + 12)) return KZ_ACK_HASH_MISMATCH;
  if (hash == n->limits_hash) return KZ_ACK_OK; /* the same again: the ACK was lost */
  for (i = 0; i < channels; ++i) {
    const uint8_t *u = n->upload[i];
    read_limits(&n->channel[i], u);
    if (u[1] == KZ_STOP_BRAKE_THEN_CUT)
      n->brake_first |= bit(i);
    else
      n->brake_first &= (uint16_t)~bit(i);
  }
  n->limits_hash = hash;
  n->period_us = period;
  n->miss_budget = p[4];
  n->ttl_max_ms = kz_get16(p + 6);
  n->arm_ttl_ms = kz_get16(p + 8);
  n->due = n->now + n->board->tick_us; /* the next tick begins a period */
  if (n->state == KZ_STATE_READY || measured(n)) enter_ready(n);
  return KZ_ACK_OK;
}

/* A host that lost the ACK repeats its request with the same seq and gets the same session again, as long as no
 * COMMAND has come in it. Another host that happens to know the nonce is refused. */
static uint8_t arm(kz_node *n, const uint8_t *p, uint8_t len, uint16_t seq) {
  uint32_t nonce, hash;
  if (len != 8) return KZ_ACK_BAD_LENGTH;
  nonce = kz_get32(p);
  hash = kz_get32(p + 4);
  if (n->state == KZ_STATE_ARMED && !n->commanded && !n->stopping && seq == n->arm_seq && nonce == n->armed_with &&
      hash == n->limits_hash)
    return KZ_ACK_OK;
  if (n->state == KZ_STATE_INIT && n->limits_hash != 0) return KZ_ACK_NO_MEASUREMENT;
  if (n->state != KZ_STATE_READY) return KZ_ACK_WRONG_STATE;
  if (nonce != n->nonce) return KZ_ACK_WRONG_NONCE;
  if (hash != n->limits_hash) return KZ_ACK_WRONG_LIMITS_HASH;
  if (!at_rest(n)) return KZ_ACK_NOT_AT_REST;
  n->state = KZ_STATE_ARMED;
  n->session = fresh(n);
  n->armed_at = n->now;
  n->armed_with = nonce;
  n->arm_seq = seq;
  n->commanded = n->pending_valid = n->stopping = n->budget_used = 0;
  return KZ_ACK_OK;
}

static uint8_t disarm(kz_node *n, uint8_t len) {
  if (len != 0) return KZ_ACK_BAD_LENGTH;
  if (n->state == KZ_STATE_ARMED) {
    n->stopping = 1;
    n->pending_valid = 0;
    if (at_rest(n)) enter_ready(n);
  }
  return KZ_ACK_OK; /* in every other state there is nothing left to disarm */
}

static uint8_t clear(kz_node *n, const uint8_t *p, uint8_t len, uint16_t seq) {
  uint32_t nonce;
  if (len != 4) return KZ_ACK_BAD_LENGTH;
  nonce = kz_get32(p);
  if (n->state == KZ_STATE_READY && seq == n->clear_seq && nonce == n->cleared_with) return KZ_ACK_OK; /* lost ACK */
  if (n->state != KZ_STATE_FAILSAFE && n->state != KZ_STATE_ESTOP) return KZ_ACK_WRONG_STATE;
  if (nonce != n->nonce) return KZ_ACK_WRONG_NONCE;
  if (n->inputs & KZ_IN_ESTOP) return KZ_ACK_ESTOP_INPUT;
  if (n->limits_hash != 0) {
    if (!measured(n)) return KZ_ACK_NO_MEASUREMENT;
    /* A channel without torque may still be falling: catch it only when it is slower than the recovery speed. */
    if (!at_rest(n) || (n->moving & (uint16_t)~n->enabled)) return KZ_ACK_NOT_AT_REST;
    enter_ready(n);
  } else {
    end_session(n, KZ_STATE_INIT, KZ_FAULT_NONE);
    n->nonce = fresh(n);
  }
  n->clear_seq = seq;
  n->cleared_with = nonce;
  return KZ_ACK_OK;
}

static void command(kz_node *n, const uint8_t *p, uint8_t len, uint16_t seq) {
  const uint8_t channels = n->board->n_channels;
  uint32_t obs;
  uint16_t ttl;
  uint8_t i;
  if (n->state != KZ_STATE_ARMED || n->stopping || len < 4 || kz_get32(p) != n->session || len != 10 + 4 * channels) {
    n->ignored++;
    return;
  }
  obs = kz_get32(p + 4);
  if ((n->commanded && ((int16_t)(uint16_t)(seq - n->command_seq) <= 0 || !reached(obs, n->last_obs))) ||
      !reached(n->now, obs)) {
    n->ignored++;
    return;
  }
  ttl = kz_get16(p + 8);
  if (ttl > n->ttl_max_ms) ttl = n->ttl_max_ms;
  if (n->now - obs >= (uint32_t)ttl * 1000u) {
    n->stale++;
    return;
  }
  for (i = 0; i < channels; ++i) {
    if (kz_get32(p + 10 + 4 * i) == 0x80000000u) {
      enter_failsafe(n, KZ_FAULT_INVALID_VALUE);
      return;
    }
  }
  for (i = 0; i < channels; ++i) n->pending[i] = kz_get32s(p + 10 + 4 * i);
  n->pending_seq = n->command_seq = seq;
  n->last_obs = obs;
  n->deadline = obs + (uint32_t)ttl * 1000u;
  n->commanded = n->pending_valid = 1;
}

static void receive(kz_node *n, uint8_t len) {
  const uint8_t *p = n->rx.body + KZ_HEADER;
  const uint8_t type = n->rx.body[0];
  const uint16_t seq = kz_get16(n->rx.body + 2);
  uint8_t result;

  /* Understood in every major: a stop, and the question who is there. */
  if (type == KZ_MSG_ESTOP) {
    enter_estop(n, KZ_FAULT_ESTOP_HOST);
    return;
  }
  if (type == KZ_MSG_HELLO_REQ) {
    send_hello(n);
    return;
  }
  if (n->rx.body[1] >> 4 != KZ_PROTOCOL_MAJOR) {
    n->ignored++;
    return;
  }
  switch (type) {
    case KZ_MSG_COMMAND:
      command(n, p, len, seq);
      break;
    case KZ_MSG_SCHEMA_GET:
      if (len == 4)
        send_schema(n, kz_get16(p), kz_get16(p + 2));
      else
        n->ignored++;
      break;
    case KZ_MSG_LIMITS:
      send_ack(n, type, seq, stage_limits(n, p, len), 0);
      break;
    case KZ_MSG_LIMITS_COMMIT:
      result = commit_limits(n, p, len);
      send_ack(n, type, seq, result, n->limits_hash);
      break;
    case KZ_MSG_ARM:
      result = arm(n, p, len, seq);
      send_ack(n, type, seq, result, n->session);
      break;
    case KZ_MSG_DISARM:
      send_ack(n, type, seq, disarm(n, len), 0);
      break;
    case KZ_MSG_CLEAR:
      result = clear(n, p, len, seq);
      send_ack(n, type, seq, result, n->nonce);
      break;
    case KZ_MSG_FAULT:
      enter_failsafe(n, KZ_FAULT_HOST);
      break;
    case KZ_MSG_TIME_REQ:
      if (len == 4) {
        memcpy(n->tx + KZ_PAYLOAD_AT, p, 4);
        kz_put32(n->tx + KZ_PAYLOAD_AT + 4, n->now);
        send(n, KZ_MSG_TIME_RSP, 8);
      } else {
        n->ignored++;
      }
      break;
    case KZ_MSG_HEARTBEAT:
      break;
    default:
      n->ignored++;
  }
}

/* ---- time ------------------------------------------------------------------------------------------------- */

static void check(kz_node *n) {
  if (n->inputs & KZ_IN_ESTOP) enter_estop(n, KZ_FAULT_ESTOP_LOCAL);
  if (n->inputs & KZ_IN_ACTUATOR_FAULT) enter_failsafe(n, KZ_FAULT_ACTUATOR);
  if (!measured(n)) enter_failsafe(n, KZ_FAULT_SENSOR);
  if (n->state == KZ_STATE_INIT && n->limits_hash != 0 && measured(n)) enter_ready(n);
  if (n->state == KZ_STATE_ARMED && !n->stopping) {
    if (n->commanded) {
      if (reached(n->now, n->deadline)) enter_failsafe(n, KZ_FAULT_TTL);
    } else if (n->now - n->armed_at >= (uint32_t)n->arm_ttl_ms * 1000u) {
      enter_failsafe(n, KZ_FAULT_ARM_TTL);
    }
  }
}

/* Which channels moved faster than the recovery speed, by measurement, over the last whole window. */
static void watch_motion(kz_node *n) {
  uint8_t i;
  if (++n->window < MOTION_PERIODS) return;
  n->window = 0;
  n->moving = 0;
  for (i = 0; i < n->board->n_channels; ++i) {
    const kz_channel *c = &n->channel[i];
    const int32_t moved = (int32_t)((uint32_t)n->sensors[i] - (uint32_t)n->last[i]); /* an encoder may wrap */
    const int64_t slow = (int64_t)(c->mode == KZ_MODE_TORQUE ? c->limit.h : c->limit.w / 8) * MOTION_PERIODS;
    if (moved > slow || moved < -slow) n->moving |= bit(i);
    n->last[i] = n->sensors[i];
  }
}

/* Whether FAILSAFE goes to the safe place now: after rest, and while the machine can be trusted to follow. */
static int retreats(kz_node *n) {
  const uint8_t broken = KZ_IN_ACTUATOR_FAULT | KZ_IN_SENSOR_FAULT | KZ_IN_NO_SAMPLE;
  if (n->state != KZ_STATE_FAILSAFE || n->fault == KZ_FAULT_ACTUATOR || n->fault == KZ_FAULT_SENSOR) return 0;
  if (at_rest(n)) n->retreating = 1;
  return n->retreating && !(n->inputs & broken);
}

static uint8_t idling(kz_node *n) {
  if (n->state == KZ_STATE_READY) return KZ_IDLE_REST;
  if (n->state == KZ_STATE_ARMED && !n->stopping)
    return n->commanded ? (n->budget_used < n->miss_budget ? KZ_IDLE_COAST : KZ_IDLE_BRAKE) : KZ_IDLE_REST;
  return retreats(n) ? KZ_IDLE_RETREAT : KZ_IDLE_BRAKE;
}

static int32_t magnitude(int32_t v) { return v < 0 ? -v : v; }

/* A command renews the miss budget if it is more than a brake: the host answers for coasting the whole budget after
 * what it grants, but not while it brakes because missed commands have used up the room for more (rules that couple
 * joints, which only the host knows). At rest there is nothing to coast; a torque is always more. */
static void apply(kz_node *n) {
  const int live = n->state == KZ_STATE_ARMED && !n->stopping && n->commanded;
  const uint8_t idle = idling(n);
  int moving = 0, braking = 1;
  uint8_t i;
  watch_motion(n);
  n->clamped = 0;
  for (i = 0; i < n->board->n_channels; ++i) {
    kz_channel *c = &n->channel[i];
    const int32_t before = magnitude(c->axis.v), measured_at = n->sensors[i];
    if (!(n->enabled & bit(i))) continue;
    if (n->pending_valid) {
      if (kz_channel_follow(c, measured_at, n->pending[i], n->miss_budget)) n->clamped |= bit(i);
    } else if (n->state == KZ_STATE_ESTOP && rests(n, i)) {
      cut(n, i);
    } else {
      kz_channel_idle(c, measured_at, idle);
    }
    moving |= c->axis.v != 0 || c->mode == KZ_MODE_TORQUE;
    braking &= c->mode != KZ_MODE_TORQUE && (magnitude(c->axis.v) < before || (before == 0 && c->axis.v == 0));
  }
  if (n->pending_valid) {
    n->applied_seq = n->pending_seq;
    if (!moving || !braking) n->budget_used = 0;
    n->pending_valid = 0;
  } else if (live) {
    n->misses++;
    if (n->budget_used < 255) n->budget_used++;
  }
  if (n->stopping && at_rest(n)) enter_ready(n);
}

/* Linear from the last setpoint to this one, which is reached on the last tick of the period. */
static void interpolate(kz_node *n) {
  const uint32_t elapsed = n->now - n->started + n->board->tick_us;
  const uint16_t left = elapsed < n->period_us ? (uint16_t)(((n->period_us - elapsed) << 12) / n->period_us) : 0;
  uint8_t i;
  for (i = 0; i < n->board->n_channels; ++i) n->out[i] = kz_channel_between(&n->channel[i], left);
}

void kz_node_tick(kz_node *n, uint32_t now_us) {
  const uint32_t period = n->period_us ? n->period_us : IDLE_STATE_US;
  kz_output o;
  int boundary;
  if (!n->greeted) {
    n->due = now_us;
    n->now = now_us;
    n->greeted = 1;
    send_hello(n);
  }
  n->now = now_us;
  n->inputs = n->board->sense(n->ctx, n->sensors);
  if (n->state == KZ_STATE_INIT && measured(n)) seed_undriven(n);
  check(n);

  boundary = reached(n->now, n->due);
  if (boundary) {
    n->started = n->now;
    n->due += period;
    if (reached(n->now, n->due)) { /* never catch up: skip, and count */
      n->due = n->now + period;
      n->late++;
    }
    if (n->period_us) apply(n);
  }
  interpolate(n);

  o.t_us = n->now;
  o.session = n->session;
  o.out = n->out;
  o.channel = n->channel;
  o.enabled = n->enabled;
  o.state = n->state;
  o.boundary = (uint8_t)boundary;
  n->board->actuate(n->ctx, &o);
  if (boundary) send_state(n);
}

void kz_node_rx(kz_node *n, const uint8_t *data, uint16_t len) {
  uint8_t payload_len;
  while (len--)
    if (kz_decode(&n->rx, *data++, &payload_len)) receive(n, payload_len);
}

void kz_node_poll(kz_node *n) {
  uint8_t chunk[32], k;
  for (k = 0; k < READS_PER_POLL; ++k) {
    const uint16_t got = n->board->read(n->ctx, chunk, sizeof chunk);
    if (got == 0) break;
    kz_node_rx(n, chunk, got);
  }
  kz_node_tick(n, n->board->us(n->ctx));
  n->board->kick(n->ctx);
  n->board->idle(n->ctx);
}

int kz_node_init(kz_node *n, const kz_board *board, void *ctx, uint32_t boot_id, uint8_t reset_cause) {
  uint8_t i;
  if (board->n_channels > KZ_NODE_CH || board->n_sensors > KZ_NODE_SENSORS || board->n_channels > board->n_sensors)
    return 0;
  memset(n, 0, sizeof *n);
  n->board = board;
  n->ctx = ctx;
  n->boot_id = boot_id;
  n->reset_cause = reset_cause;
  n->random = boot_id;
  n->schema_hash = kz_crc32(0, board->schema, board->schema_len);
  n->nonce = fresh(n);
  n->inputs = KZ_IN_NO_SAMPLE;
  for (i = 0; board->modes && i < board->n_channels; ++i) {
    if (board->modes[i] > KZ_MODE_TORQUE) return 0;
    n->channel[i].mode = board->modes[i];
  }
  return 1;
}
