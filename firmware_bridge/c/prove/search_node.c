/* search_node [LAYOUT [MAX_STATES]] — every situation that a node can get into, breadth first, with small limits, times
 * and counters, under every event of the alphabet below in every one of them; node_watch.h judges each step.
 *
 * Two situations are one when no later event can tell them apart: times count from now, numbers that are only compared
 * (nonces, sessions, sequences) by how they compare, and what the present state does not look at not at all. The
 * clock starts shortly before it wraps. Situations are remembered by 64 bits of hash each (n of them collide with a
 * probability below n^2 / 2^65).
 *
 * LAYOUT: 0 one channel that is cut by ESTOP, 1 one that brakes first, 2 one of each, 3 a velocity, 4 a torque, 5 a
 * position with a safe place; these brake first (the torque only with limits A).
 * Prints one JSON line; exit status 0 if everything held, 1 with the shortest way there if something did not, 2 if
 * MAX_STATES were not enough. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "node_watch.h"

#ifndef TTL_MS
#define TTL_MS 7 /* room for more misses in a row than the budget */
#endif
enum { PERIOD_TICKS = 2, ARM_TTL_MS = 3, BUDGET = 1 };

static int layout;

/* ---- the alphabet ----------------------------------------------------------------------------------------- */

static uint8_t buffer[KZ_MAX_FRAME], *const payload = buffer + KZ_PAYLOAD_AT;

static void say_as(uint8_t major, uint8_t type, uint16_t seq, uint8_t len) {
  watch_rx(buffer, kz_seal(buffer, type, (uint8_t)(major << 4), seq, 0, len));
}

static void say(uint8_t type, uint16_t seq, uint8_t len) { say_as(KZ_PROTOCOL_MAJOR, type, seq, len); }

static void limits_payload(uint8_t *p, int channel, int set) {
  const int brakes = layout == 2 ? channel : layout, torque = layout == 4;
  memset(p, 0, KZ_LIMITS_BYTES);
  p[0] = (uint8_t)channel;
  p[1] = (uint8_t)(brakes && !(torque && set) ? KZ_STOP_BRAKE_THEN_CUT : KZ_STOP_CUT);
  kz_put32(p + 4, (uint32_t)-3);
  kz_put32(p + 8, set ? 2 : 4);
  kz_put32(p + 12, set ? 1 : 2);
  kz_put32(p + 16, 1);
  kz_put32(p + 20, layout == 5 ? 1u : (uint32_t)KZ_NO_SAFE);
  kz_put32(p + 24, torque ? 0x40000000u : 0); /* 2.0 */
}

static void commit_payload(int set) {
  uint8_t bytes[KZ_LIMITS_BYTES];
  uint32_t hash;
  int i;
  memset(payload, 0, 16);
  kz_put32(payload, PERIOD_TICKS * TICK_US);
  payload[4] = BUDGET;
  payload[5] = channels();
  kz_put16(payload + 6, TTL_MS);
  kz_put16(payload + 8, ARM_TTL_MS);
  kz_put32(bytes, w.node.schema_hash);
  hash = crc_bits(0, bytes, 4);
  for (i = 0; i < channels(); ++i) {
    limits_payload(bytes, i, set);
    hash = crc_bits(hash, bytes, KZ_LIMITS_BYTES);
  }
  kz_put32(payload + 12, crc_bits(hash, payload, 12));
}

static void arm(uint32_t nonce, uint32_t hash, uint16_t seq) {
  kz_put32(payload, nonce);
  kz_put32(payload + 4, hash);
  say(KZ_MSG_ARM, seq, 8);
}

static void clear(uint32_t nonce, uint16_t seq) {
  kz_put32(payload, nonce);
  say(KZ_MSG_CLEAR, seq, 4);
}

enum { LOW = -2, HIGH = 3, FAR = 9 }; /* wanted values */

static void command(uint32_t session, uint32_t obs, uint16_t ttl_ms, uint16_t seq, int32_t value) {
  int i;
  kz_put32(payload, session);
  kz_put32(payload + 4, obs);
  kz_put16(payload + 8, ttl_ms);
  for (i = 0; i < channels(); ++i) kz_put32(payload + 10 + 4 * i, (uint32_t)(i ? -value : value));
  say(KZ_MSG_COMMAND, seq, (uint8_t)(10 + 4 * channels()));
}

static void tick(uint32_t us, uint8_t inputs) {
  w.inputs = inputs;
  watch_tick(us);
  w.inputs = 0;
}

/* Push the machine: a channel without torque goes out of its range or back, a driven one gives way for a moment. */
static void push(void) {
  int i;
  for (i = 0; i < channels(); ++i)
    if (mode(i) != KZ_MODE_TORQUE)
      w.sensors[i] = w.sensors[i] >= 5 ? 0 : w.node.enabled & mask_of(i) ? w.sensors[i] + 1 : 5;
    else if ((!(w.node.enabled & mask_of(i)) || w.state == KZ_STATE_READY) && w.sensors[i] == w.last[i])
      w.sensors[i] += 5; /* only how far it moves counts; in session it moves by its torque */
  tick(TICK_US, 0);
}

/* Event k here and now; its name, or 0 when there is no event k. */
static const char *event(int k) {
  const kz_node *n = &w.node;
  const uint16_t next = (uint16_t)(n->command_seq + 1);
  const uint32_t now = n->now;
  switch (k) {
    case 0: tick(TICK_US, 0); return "tick";
    case 1: tick(TICK_US, KZ_IN_ESTOP); return "tick, local e-stop pressed";
    case 2: tick(TICK_US, KZ_IN_ACTUATOR_FAULT); return "tick, actuator fault";
    case 3: tick(TICK_US, KZ_IN_SENSOR_FAULT); return "tick, sensor fault";
    case 4: tick(TICK_US, KZ_IN_ESTOP | KZ_IN_SENSOR_FAULT); return "tick, local e-stop and sensor fault";
    case 5: tick(PERIOD_TICKS * TICK_US, 0); return "a tick one late";
    case 6: tick((TTL_MS + 1) * TICK_US, 0); return "a tick later than the TTL";
    case 7: push(); return "somebody pushes the machine; tick";
    case 8: command(n->session, now, TTL_MS, next, LOW); return "COMMAND low";
    case 9: command(n->session, now, 60000, next, HIGH); return "COMMAND high, longest ttl";
    case 10: command(n->session, now - TICK_US, TTL_MS, next, FAR); return "COMMAND far, a tick old";
    case 11: command(n->session, now, 1, next, FAR); return "COMMAND far, short ttl";
    case 12: command(n->session, now - 2 * TICK_US, TTL_MS, next, LOW); return "COMMAND low, two ticks old";
    case 13: command(n->session, now - TTL_MS * TICK_US, 60000, next, LOW); return "COMMAND over age";
    case 14: command(n->session, now, 0, next, LOW); return "COMMAND with ttl 0";
    case 15: command(n->session, now + 1, TTL_MS, next, LOW); return "COMMAND from the future";
    case 16: command(n->session, n->last_obs - 1, TTL_MS, next, LOW); return "COMMAND, observation goes back";
    case 17: command(n->session, now, TTL_MS, n->command_seq, LOW); return "COMMAND again";
    case 18: command(n->session, now, TTL_MS, (uint16_t)(n->command_seq - 1), LOW); return "COMMAND, old seq";
    case 19: command(n->session, now, TTL_MS, (uint16_t)(n->command_seq + 0x8000), LOW); return "COMMAND, seq half round";
    case 20: command(n->session ^ 1, now, TTL_MS, next, LOW); return "COMMAND of another session";
    case 21: command(0, now, TTL_MS, next, LOW); return "COMMAND of no session";
    case 22: command(n->session, now, TTL_MS, next, INT32_MIN); return "COMMAND invalid value";
    case 23: command(n->session ^ 1, now, TTL_MS, next, INT32_MIN); return "COMMAND invalid value, another session";
    case 24: kz_put32(payload, n->session); say(KZ_MSG_COMMAND, next, 9); return "COMMAND too short";
    case 25: arm(n->nonce, n->limits_hash, (uint16_t)(n->arm_seq + 1)); return "ARM";
    case 26: arm(n->nonce, n->limits_hash, n->arm_seq); return "ARM, seq of the last";
    case 27: arm(n->armed_with, n->limits_hash, n->arm_seq); return "ARM, the last again";
    case 28: arm(n->cleared_with, n->limits_hash, (uint16_t)(n->arm_seq + 1)); return "ARM, nonce before CLEAR";
    case 29: arm(n->nonce ^ 1, n->limits_hash, (uint16_t)(n->arm_seq + 1)); return "ARM, wrong nonce";
    case 30: arm(n->nonce, n->limits_hash ^ 1, (uint16_t)(n->arm_seq + 1)); return "ARM, wrong limits";
    case 31: arm(n->nonce, 0, (uint16_t)(n->arm_seq + 1)); return "ARM, no limits";
    case 32: clear(n->nonce, (uint16_t)(n->clear_seq + 1)); return "CLEAR";
    case 33: clear(n->cleared_with, n->clear_seq); return "CLEAR, the last again";
    case 34: clear(n->armed_with, (uint16_t)(n->clear_seq + 1)); return "CLEAR, nonce of ARM";
    case 35: clear(n->nonce ^ 1, (uint16_t)(n->clear_seq + 1)); return "CLEAR, wrong nonce";
    case 36: say(KZ_MSG_DISARM, 0, 0); return "DISARM";
    case 37: say(KZ_MSG_ESTOP, 0, 0); return "ESTOP";
    case 38: say_as(9, KZ_MSG_ESTOP, 0, 7); return "ESTOP of another major, with a payload";
    case 39: say(KZ_MSG_FAULT, 0, 1); return "FAULT";
    case 40: say(KZ_MSG_HEARTBEAT, 0, 0); return "HEARTBEAT";
    case 41: say(KZ_MSG_HELLO_REQ, 0, 2); return "HELLO_REQ";
    case 42: limits_payload(payload, 0, 0); say(KZ_MSG_LIMITS, 0, KZ_LIMITS_BYTES); return "LIMITS 0 of set A";
    case 43: limits_payload(payload, 0, 1); say(KZ_MSG_LIMITS, 0, KZ_LIMITS_BYTES); return "LIMITS 0 of set B";
    case 44: commit_payload(0); say(KZ_MSG_LIMITS_COMMIT, 0, 16); return "COMMIT A";
    case 45: commit_payload(1); say(KZ_MSG_LIMITS_COMMIT, 0, 16); return "COMMIT B";
    case 46: commit_payload(0); payload[12] ^= 1; say(KZ_MSG_LIMITS_COMMIT, 0, 16); return "COMMIT, wrong hash";
    case 47: kz_put32(payload, n->nonce); say_as(2, KZ_MSG_CLEAR, 0, 4); return "CLEAR of another major";
    case 48: kz_put32(payload, n->nonce); kz_put32(payload + 4, n->limits_hash); say_as(2, KZ_MSG_ARM, 0, 8);
             return "ARM of another major";
    case 49: say(99, 0, 3); return "unknown type";
    case 50: watch_boot(watched_board.n_channels, watched_board.n_sensors, n->nonce ^ 0x5eedu, now, KZ_RESET_BROWN_OUT);
             return "brown-out";
    default: break;
  }
  if (channels() < 2 || k > 52) return 0;
  limits_payload(payload, 1, k - 51);
  say(KZ_MSG_LIMITS, 0, KZ_LIMITS_BYTES);
  return k == 51 ? "LIMITS 1 of set A" : "LIMITS 1 of set B";
}

/* ---- which situations are one ----------------------------------------------------------------------------- */

static uint32_t since(uint32_t t, uint32_t most) { return w.now - t < most ? w.now - t : most; }

static watch canonical(void) {
  const uint32_t now = w.now;
  const int armed = w.state == KZ_STATE_ARMED && !w.stopping, waits = armed && !w.commanded, runs = armed && w.commanded;
  watch c;
  kz_node *n = &c.node;
  int i;
  memcpy(&c, &w, sizeof c);
  /* buffers, counters and what is only reported */
  memset(&n->rx, 0, sizeof n->rx);
  memset(&c.ear, 0, sizeof c.ear);
  memset(n->tx, 0, sizeof n->tx);
  memset(n->out, 0, sizeof n->out);
  n->tx_seq = n->applied_seq = n->clamped = n->ignored = n->misses = n->stale = 0;
  n->boot_id = n->late = n->random = n->reset_cause = 0;
  n->fault = c.fault = w.state == KZ_STATE_FAILSAFE && (n->fault == KZ_FAULT_ACTUATOR || n->fault == KZ_FAULT_SENSOR);
  c.answered = c.result = c.boundary = c.finished = 0;
  c.value = 0;
  /* numbers that are only compared; the account differs from the node by 0 */
  c.session -= n->session;
  c.nonce -= n->nonce;
  c.seq = runs ? (uint16_t)(c.seq - n->command_seq) : 0;
  c.arm_seq = waits ? (uint16_t)(c.arm_seq - n->arm_seq) : 0;
  c.armed_with = waits ? c.armed_with - n->armed_with : 0;
  c.clear_seq = (uint16_t)(c.clear_seq - n->clear_seq);
  c.cleared_with -= n->cleared_with;
  n->session = n->session != 0;
  n->armed_with = waits && n->armed_with == n->nonce;
  n->cleared_with = n->cleared_with == n->nonce;
  n->nonce = n->arm_seq = n->clear_seq = n->command_seq = n->pending_seq = 0;
  /* times */
  c.due = c.ticked ? c.due - n->due : 0;
  c.deadline = runs ? c.deadline - n->deadline : 0;
  c.obs = runs ? c.obs - n->last_obs : 0;
  c.armed_at = waits ? c.armed_at - n->armed_at : 0;
  n->due = c.ticked ? n->due - now : 0;
  n->started = n->period_us ? since(n->started, n->period_us) : 0;
  n->deadline = runs ? n->deadline - now : 0;
  n->last_obs = runs ? now - n->last_obs : 0;
  n->armed_at = waits ? now - n->armed_at : 0;
  c.now = n->now = 0;
  /* what this state does not look at */
  if (!w.pending) memset(n->pending, 0, sizeof n->pending), memset(c.target, 0, sizeof c.target);
  n->budget_used = runs ? (n->budget_used < BUDGET ? n->budget_used : BUDGET) : 0;
  c.misses = runs ? (c.misses < BUDGET ? c.misses : BUDGET) : 0;
  n->commanded = n->commanded && armed;
  c.commanded = c.commanded && armed;
  for (i = 0; i < channels(); ++i) {
    if (n->enabled & mask_of(i)) c.since_cut[i] = 0;
    if (mode(i) == KZ_MODE_TORQUE) { /* only how far it moves is looked at */
      const int32_t at = w.sensors[i];
      n->last[i] -= at, n->sensors[i] -= at, n->channel[i].was -= at;
      c.last[i] -= at, c.sensed[i] -= at, c.was[i] -= at, c.sensors[i] = 0;
      n->channel[i].axis.v = c.axis[i].v = n->channel[i].axis.v != 0; /* it is at rest or not */
    } else if (n->enabled == every_channel()) {
      n->window = c.window = 0, n->moving = c.moving = 0, n->last[i] = c.last[i] = 0;
    }
    if (mode(i) != KZ_MODE_TORQUE)
      c.was[i] = 0; /* not kept */
    else if (!(n->enabled & mask_of(i)))
      n->channel[i].was = c.was[i] = 0; /* written anew when it is driven again */
  }
  n->inputs = (uint8_t)((n->inputs & (KZ_IN_ESTOP | KZ_IN_ACTUATOR_FAULT)) | (measured_now() ? 0 : KZ_IN_NO_SAMPLE));
  c.seen = n->inputs;
  return c;
}

static uint64_t key(void) {
  const watch c = canonical();
  uint64_t h = 0x9E3779B97F4A7C15ull, word;
  size_t at, size;
  for (at = 0; at < sizeof c; at += 8) {
    size = sizeof c - at < 8 ? sizeof c - at : 8;
    word = 0;
    memcpy(&word, (const uint8_t *)&c + at, size);
    h = (h ^ word) * 0xFF51AFD7ED558CCDull;
    h ^= h >> 32;
  }
  h = (h ^ (h >> 29)) * 0xC4CEB9FE1A85EC53ull;
  return (h ^ (h >> 32)) | 1; /* 0 marks a free slot */
}

/* ---- the search ------------------------------------------------------------------------------------------- */

typedef struct {
  uint32_t parent;
  uint8_t event;
} origin;

static uint64_t *seen;
static uint64_t slots;
static origin *origins;
static uint32_t found, capacity, here;
static int doing;

static void *need(void *memory) {
  if (!memory) {
    fprintf(stderr, "out of memory after %" PRIu32 " states\n", found);
    exit(2);
  }
  return memory;
}

static int is_new(uint64_t k) {
  uint64_t at = k & (slots - 1);
  while (seen[at] != 0 && seen[at] != k) at = (at + 1) & (slots - 1);
  if (seen[at] == k) return 0;
  seen[at] = k;
  return 1;
}

static void start(void) {
  watched_modes[0] = layout == 3 ? KZ_MODE_VELOCITY : layout == 4 ? KZ_MODE_TORQUE : KZ_MODE_POSITION;
  watch_boot(layout == 2 ? 2 : 1, layout == 2 ? 2 : 1, 1, (uint32_t)-5 * TICK_US, KZ_RESET_POWER_ON);
}

/* The way from the start to state s, told by doing it again. */
static void tell(uint32_t s) {
  if (s == 0) {
    start();
    return;
  }
  tell(origins[s].parent);
  fprintf(stderr, "  %s\n", event(origins[s].event));
}

static void violated(const char *what) {
  static int telling;
  if (telling++) {
    fprintf(stderr, "  and then: not %s\n", what);
    exit(1);
  }
  printf("{\"violated\": \"%s\", \"states\": %" PRIu32 "}\n", what, found);
  fflush(stdout);
  tell(here);
  event(doing); /* comes back here */
  exit(1);
}

int main(int argc, char **argv) {
  const char *const names[] = {"INIT", "READY", "ARMED", "FAILSAFE", "ESTOP"};
  uint64_t in_state[5] = {0}, ways[5][5] = {{0}}, steps = 0;
  uint32_t level_end, i;
  size_t waiting = 0, next_waiting = 0, room = 0;
  watch *level = 0, *next = 0, from;
  int depth = 0, a, b;
  layout = argc > 1 ? atoi(argv[1]) : 0;
  capacity = argc > 2 ? (uint32_t)strtoul(argv[2], 0, 10) : 4000000u;
  for (slots = 1; slots < 2ull * capacity;) slots *= 2;
  seen = need(calloc(slots, sizeof *seen));
  origins = need(malloc(sizeof *origins * ((size_t)capacity + 1)));

  start();
  is_new(key());
  level = need(malloc(sizeof *level));
  memcpy(&level[0], &w, sizeof w);
  waiting = found = 1;
  in_state[w.state]++;
  for (here = 0; waiting; ++depth) {
    level_end = here + (uint32_t)waiting;
    next_waiting = room = 0;
    next = 0;
    for (i = 0; here < level_end; ++here, ++i) {
      for (doing = 0;; ++doing) {
        memcpy(&w, &level[i], sizeof w);
        from.state = w.state;
        if (!event(doing)) break;
        ++steps;
        ++ways[from.state][w.state];
        if (!is_new(key())) continue;
        if (found == capacity) {
          printf("{\"violated\": \"more than %" PRIu32 " states\"}\n", capacity);
          return 2;
        }
        origins[found].parent = here;
        origins[found++].event = (uint8_t)doing;
        ++in_state[w.state];
        if (next_waiting == room) next = need(realloc(next, sizeof *next * (room = room ? 2 * room : 256)));
        memcpy(&next[next_waiting++], &w, sizeof w);
      }
    }
    free(level);
    level = next;
    waiting = next_waiting;
  }
  printf("{\"layout\": %d, \"states\": %" PRIu32 ", \"steps\": %" PRIu64 ", \"depth\": %d", layout, found, steps, depth);
  for (a = 0; a < 5; ++a) printf(", \"%s\": %" PRIu64, names[a], in_state[a]);
  printf(", \"ways\": {");
  for (a = 0, i = 0; a < 5; ++a)
    for (b = 0; b < 5; ++b)
      if (a != b && ways[a][b]) printf("%s\"%s-%s\": %" PRIu64, i++ ? ", " : "", names[a], names[b], ways[a][b]);
  printf("}}\n");
  return 0;
}
