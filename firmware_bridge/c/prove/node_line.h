/* A node and the line to it, as node_people.h needs them: time; frames that are kept, delayed, damaged and replayed;
 * what the node lets the world know, folded into a digest; how often what happened. node_watch.h judges every event.
 * The program that includes it supplies violated(). */
#ifndef NODE_LINE_H
#define NODE_LINE_H

#include "node_watch.h"
#include "prove_random.h"

/* What happens, and how often. */
#define HAPPENINGS(X)                                                                                        \
  X(what_should, 50) X(stream, 12) X(replay, 10) X(host_stops, 6) X(line_holds, 5) X(torn_limits, 4)         \
  X(other_host, 8) X(estop_lost, 3) X(brown_out, 2) X(inputs, 3) X(late, 5) X(disarm, 2) X(fault, 1)         \
  X(noise, 3) X(damage, 4) X(push, 3) X(odd_command, 12) X(odd_request, 8) X(again, 6) X(foreign, 4)         \
  X(seq_jumps, 2) X(patience, 4)
#define ODD_COMMANDS(X)                                                                                      \
  X(old, 1) X(over_age_by_nothing, 1) X(longest_ttl, 1) X(from_the_future, 1) X(half_a_clock_away, 1)        \
  X(older_observation, 1) X(old_seq, 1) X(seq_half_round, 1) X(no_ttl, 1) X(any_length, 1) X(other_session, 1) \
  X(invalid, 1)
#define FACTS(X)                                                                                             \
  X(applied, 1) X(clamped, 1) X(ignored, 1) X(stale, 1) X(missed, 1) X(applied_after_the_clock_wrapped, 1)   \
  X(applied_after_seq_wrapped, 1) X(retreats, 1) X(to_positions, 1) X(to_velocities, 1) X(to_torques, 1)

/* ways: from state to state. answers: by request and result. faults: why a state was entered. replayed, late, outdated:
 * frames by type that were repeated, delayed, or said by somebody who did not know better any more. lost_estops: by how
 * many were lost before one was not. */
#define COUNTS(X)                                                                                            \
  X(happened, HAPPENINGS_N) X(odd_commands, ODD_COMMANDS_N) X(facts, FACTS_N) X(ways, 5 * 5)                 \
  X(answers, TYPES * RESULTS) X(faults, KZ_FAULT_ESTOP_LOCAL + 1) X(replayed, TYPES) X(late, TYPES)          \
  X(outdated, TYPES) X(lost_estops, 8)

enum {
#define HAPPENING(name, odds) DO_##name,
  HAPPENINGS(HAPPENING) HAPPENINGS_N
};
enum {
#define ODD_COMMAND(name, odds) COMMAND_##name,
  ODD_COMMANDS(ODD_COMMAND) ODD_COMMANDS_N
};
enum {
#define FACT(name, odds) FACT_##name,
  FACTS(FACT) FACTS_N
};
enum { TYPES = KZ_MSG_TIME_RSP + 1, RESULTS = KZ_ACK_ESTOP_INPUT + 1 };

struct {
#define COUNTER(name, n) uint32_t name[n];
  COUNTS(COUNTER)
} live_counts;

static int chance(int one_in) { return random64() % (uint32_t)one_in == 0; }
static uint32_t any32(void) { return (uint32_t)(random64() >> 16); }

/* ---- what the node lets the world know -------------------------------------------------------------------- */

static uint32_t digest;
static uint8_t last_state;

static uint32_t fold(uint32_t h, uint32_t x) { return (h ^ x) * 16777619u; }

static void heard(void *ctx, const uint8_t *frame, uint16_t n) {
  uint32_t h = digest;
  uint16_t i;
  for (i = 0; i < n; ++i) h = fold(h, frame[i]);
  digest = h;
  board_write(ctx, frame, n);
  if (frame[2] == KZ_MSG_ACK) live_counts.answers[RESULTS * w.answered + w.result]++;
}

static void driven(void *ctx, const kz_output *o) {
  int i;
  for (i = 0; i < channels(); ++i) digest = fold(digest, (uint32_t)o->out[i]);
  digest = fold(digest, o->enabled | (uint32_t)o->state << 16 | (uint32_t)o->boundary << 24);
  board_actuate(ctx, o);
}

static void note_way(void) {
  if (w.node.state == last_state) return;
  live_counts.ways[5 * last_state + w.node.state]++;
  live_counts.faults[w.node.fault]++;
  last_state = w.node.state;
}

/* ---- the line --------------------------------------------------------------------------------------------- */

/* A host's longest frames are LIMITS and COMMAND. */
#define LONGEST (KZ_OVERHEAD + (KZ_LIMITS_BYTES > 10 + 4 * KZ_NODE_CH ? KZ_LIMITS_BYTES : 10 + 4 * KZ_NODE_CH))

typedef struct {
  uint8_t n, bytes[LONGEST];
} frame;

enum { PAST = 16, HELD = 24, STOPPED = 16 };
static frame past[PAST], held[HELD];
static uint8_t past_n, held_n, holding, damaging;

static uint8_t buffer[KZ_MAX_FRAME], *const payload = buffer + KZ_PAYLOAD_AT;

/* The type is readable in a sealed frame, because none is 0. */
static void count_type(uint32_t *types, const frame *f) { ++types[f->bytes[2] < TYPES ? f->bytes[2] : 0]; }

/* What comes out at the board's end. */
static void hear(const uint8_t *bytes, uint16_t n) {
  const uint16_t ignored = w.node.ignored, stale = w.node.stale;
  if (n == 0) return;
  watch_rx(bytes, 1); /* its delimiter may end what came before: two frames, two ways */
  note_way();
  watch_rx(bytes + 1, (uint16_t)(n - 1));
  live_counts.facts[FACT_ignored] += (uint16_t)(w.node.ignored - ignored);
  live_counts.facts[FACT_stale] += (uint16_t)(w.node.stale - stale);
  note_way();
}

static void send_damaged(const frame *f) {
  const uint8_t at = (uint8_t)between(0, f->n - 1);
  frame broken = *f;
  damaging = 0;
  switch (between(0, 2)) {
    case 0: broken.bytes[at] ^= (uint8_t)(1u << between(0, 7)); break;
    case 1: memmove(broken.bytes + at, f->bytes + at + 1, (size_t)(f->n - at - 1)); --broken.n; break;
    default: broken.n = at; /* the rest is cut off */
  }
  hear(broken.bytes, broken.n);
}

static void send_frame(const frame *f) {
  if (damaging)
    send_damaged(f);
  else
    hear(f->bytes, f->n);
}

static void release(void) {
  uint8_t i;
  for (i = 0; i < held_n; ++i) {
    count_type(live_counts.late, &held[i]);
    send_frame(&held[i]);
  }
  held_n = 0;
}

static void say_as(uint8_t flags, uint8_t type, uint16_t number, uint8_t len) {
  frame *f = &past[past_n++ % PAST];
  f->n = (uint8_t)kz_seal(buffer, type, flags, number, 0, len);
  memcpy(f->bytes, buffer, f->n);
  if (!holding)
    send_frame(f);
  else if (held_n < HELD)
    held[held_n++] = *f;
}

static void say(uint8_t type, uint16_t number, uint8_t len) { say_as(KZ_PROTOCOL_MAJOR << 4, type, number, len); }

/* ---- time ------------------------------------------------------------------------------------------------- */

/* What a STATE tells a host. */
typedef struct {
  uint32_t nonce, session, now;
  uint8_t state;
} view;

static view host, other, waiting[STOPPED]; /* STATEs in the buffer of a host that has been stopped */
static uint8_t waiting_n, stopped;
static uint16_t last_applied;

static void tick(uint32_t us) {
  const int pending = w.node.pending_valid, before = w.node.retreating;
  const uint16_t misses = w.node.misses;
  watch_tick(us);
  note_way();
  if (w.boundary) {
    const view now = {w.node.nonce, w.node.session, w.node.now, w.node.state};
    if (!stopped)
      host = now;
    else if (waiting_n < STOPPED)
      waiting[waiting_n++] = now;
  }
  if (pending && !w.node.pending_valid && w.node.state == KZ_STATE_ARMED) {
    live_counts.facts[FACT_applied]++;
    live_counts.facts[FACT_clamped] += w.node.clamped != 0;
    live_counts.facts[FACT_applied_after_the_clock_wrapped] += w.node.now < w.node.armed_at;
    live_counts.facts[FACT_applied_after_seq_wrapped] += w.node.applied_seq < 256 && last_applied > 0xff00;
    live_counts.facts[FACT_to_positions + mode(0)]++;
    last_applied = w.node.applied_seq;
  }
  live_counts.facts[FACT_missed] += (uint16_t)(w.node.misses - misses);
  live_counts.facts[FACT_retreats] += w.node.retreating > before;
}

static uint32_t period(void) { return w.period_us ? w.period_us / TICK_US : 1; }

static void wait_ticks(int64_t n) {
  while (n-- > 0) tick(TICK_US);
}

#endif
