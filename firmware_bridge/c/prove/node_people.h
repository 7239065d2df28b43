/* The people around a node: a host who does what he should, a second one, somebody at the machine, and what goes wrong
 * for them. All of it is drawn from prove_random.h. */
#ifndef NODE_PEOPLE_H
#define NODE_PEOPLE_H

#include "node_line.h"

/* ---- the host --------------------------------------------------------------------------------------------- */

static uint8_t limits[2][KZ_NODE_CH][KZ_LIMITS_BYTES], terms[16];
static uint32_t hashes[2];
static uint16_t seq, arm_seq, clear_seq;
static uint8_t set; /* of the two, the one that the host wants */

/* Of these limits with these terms. */
static uint32_t hash_of(uint8_t set_of[][KZ_LIMITS_BYTES]) {
  uint8_t word[4];
  uint32_t hash;
  int i;
  kz_put32(word, w.node.schema_hash);
  hash = kz_crc32(0, word, 4);
  for (i = 0; i < channels(); ++i) hash = kz_crc32(hash, set_of[i], KZ_LIMITS_BYTES);
  return kz_crc32(hash, terms, 12);
}

/* Two sets, one for now and one for later. */
static void draw_limits(void) {
  int s, i;
  kz_put32(terms, TICK_US * (uint32_t)between(1, 3));
  terms[4] = (uint8_t)between(0, 3);
  terms[5] = channels();
  kz_put16(terms + 6, (uint16_t)between(2, 40));
  kz_put16(terms + 8, (uint16_t)between(2, 60));
  for (s = 0; s < 2; ++s) {
    for (i = 0; i < channels(); ++i) {
      uint8_t *p = limits[s][i];
      const int size = (int)between(2, 29);
      const int32_t lo = (int32_t)-between(0, (int64_t)1 << size), hi = (int32_t)between(0, (int64_t)1 << size);
      memset(p, 0, KZ_LIMITS_BYTES);
      p[0] = (uint8_t)i;
      p[1] = (uint8_t)between(KZ_STOP_CUT, KZ_STOP_BRAKE_THEN_CUT);
      kz_put32(p + 4, (uint32_t)lo);
      kz_put32(p + 8, (uint32_t)hi);
      kz_put32(p + 12, (uint32_t)between(1, ((int64_t)1 << size) / 4 + 1));
      kz_put32(p + 16, (uint32_t)between(1, ((int64_t)1 << size) / 8 + 1));
      kz_put32(p + 20, (uint32_t)(chance(2) ? KZ_NO_SAFE : (int32_t)between(lo, hi)));
      kz_put32(p + 24, any32() % 0x4B000000u);
    }
    hashes[s] = hash_of(limits[s]);
  }
}

static void say_limits(int s, int channel) {
  memcpy(payload, limits[s][channel], KZ_LIMITS_BYTES);
  say(KZ_MSG_LIMITS, ++seq, KZ_LIMITS_BYTES);
}

static void commit(uint32_t hash) {
  memcpy(payload, terms, 12);
  kz_put32(payload + 12, hash);
  say(KZ_MSG_LIMITS_COMMIT, ++seq, 16);
}

static void upload(int s) {
  int i;
  for (i = 0; i < channels(); ++i) say_limits(s, i);
  commit(hashes[s]);
}

static void arm(uint32_t nonce, uint32_t hash, uint16_t number) {
  kz_put32(payload, nonce);
  kz_put32(payload + 4, hash);
  say(KZ_MSG_ARM, number, 8);
}

static void clear(uint32_t nonce, uint16_t number) {
  kz_put32(payload, nonce);
  say(KZ_MSG_CLEAR, number, 4);
}

/* Some value for a channel: near, far, at an end or anything. */
static int32_t wanted(int channel) {
  const kz_channel *c = &w.node.channel[channel];
  switch (between(0, 3)) {
    case 0: return (int32_t)((uint32_t)kz_channel_sent(c) + (uint32_t)between(-c->limit.w, c->limit.w));
    case 1: return chance(2) ? c->limit.lo : c->limit.hi;
    case 2: return (int32_t)between(c->limit.lo, c->limit.hi);
    default: return (int32_t)(any32() | 1); /* everything but INT32_MIN, "invalid" */
  }
}

static void command(uint32_t session, uint32_t obs, uint16_t ttl_ms, uint16_t number, uint8_t len) {
  int i;
  kz_put32(payload, session);
  kz_put32(payload + 4, obs);
  kz_put16(payload + 8, ttl_ms);
  for (i = 0; i < channels(); ++i) kz_put32(payload + 10 + 4 * i, (uint32_t)wanted(i));
  say(KZ_MSG_COMMAND, number, len);
}

static uint8_t whole(void) { return (uint8_t)(10 + 4 * channels()); }

/* What a host does who knows what is in `v`; the type of what he said. */
static uint8_t follow(const view *v) {
  switch (v->state) {
    case KZ_STATE_INIT: upload(set); return KZ_MSG_LIMITS;
    case KZ_STATE_READY: arm(v->nonce, hashes[set], arm_seq = ++seq); return KZ_MSG_ARM;
    case KZ_STATE_ARMED: command(v->session, v->now, (uint16_t)between(2, 50), ++seq, whole()); return KZ_MSG_COMMAND;
    default: clear(v->nonce, clear_seq = ++seq); return KZ_MSG_CLEAR;
  }
}

/* A stopped host goes on: for each STATE in his buffer he does what would have been right then. */
static void resume(void) {
  uint8_t i;
  for (i = 0; i < waiting_n; ++i) live_counts.outdated[follow(&waiting[i])]++;
  waiting_n = 0;
}

/* ---- accidents -------------------------------------------------------------------------------------------- */

static void boot(uint32_t now, uint8_t cause, uint8_t n_channels) {
  watch_boot(n_channels, KZ_NODE_SENSORS, any32(), now, cause);
  watched_board.write = heard;
  watched_board.actuate = driven;
  w.ideal = !chance(8);
  note_way();
}

static void invalid_command(uint32_t session, uint32_t obs, uint16_t ttl_ms, uint16_t number) {
  int i;
  command(session, obs, ttl_ms, number, whole());
  kz_put32(payload, session); /* sealing has changed what is there */
  kz_put32(payload + 4, obs);
  kz_put16(payload + 8, ttl_ms);
  for (i = 0; i < channels(); ++i) kz_put32(payload + 10 + 4 * i, i ? 0 : 0x80000000u);
  say(KZ_MSG_COMMAND, (uint16_t)(number + 1), whole());
}

static void odd_command(void) {
  const kz_node *n = &w.node;
  const uint32_t now = n->now;
  const uint16_t next = (uint16_t)(n->command_seq + 1), ttl = (uint16_t)between(1, 60);
  const int kind = (int)between(0, ODD_COMMANDS_N - 1);
  live_counts.odd_commands[kind]++;
  switch (kind) {
    case COMMAND_old: command(n->session, now - 1000u * (uint32_t)between(1, 60), ttl, next, whole()); break;
    case COMMAND_over_age_by_nothing: command(n->session, now - 1000u * ttl, ttl, next, whole()); break;
    case COMMAND_longest_ttl: command(n->session, now - 1000u * w.ttl_max_ms, 65535, next, whole()); break;
    case COMMAND_from_the_future: command(n->session, now + (uint32_t)between(1, 5000), ttl, next, whole()); break;
    case COMMAND_half_a_clock_away: command(n->session, now ^ 0x80000000u, ttl, next, whole()); break;
    case COMMAND_older_observation: command(n->session, n->last_obs - 1, 65535, next, whole()); break;
    case COMMAND_old_seq: command(n->session, now, ttl, (uint16_t)(next - between(1, 4)), whole()); break;
    case COMMAND_seq_half_round: command(n->session, now, ttl, (uint16_t)(next + between(32766, 32768)), whole());
      break;
    case COMMAND_no_ttl: command(n->session, now, 0, next, whole()); break;
    case COMMAND_any_length: command(n->session, now, ttl, next, (uint8_t)between(0, 10 + 4 * KZ_NODE_CH)); break;
    case COMMAND_other_session: command(chance(2) ? n->session + 1 : 0, now, ttl, next, whole()); break;
    default: invalid_command(chance(2) ? n->session : any32(), now, ttl, next); break;
  }
}

static void odd_request(void) {
  const kz_node *n = &w.node;
  switch (between(0, 5)) {
    case 0: arm(n->nonce ^ (chance(2) ? 1u : any32()), n->limits_hash, ++seq); break;
    case 1: arm(n->nonce, n->limits_hash ^ 1, ++seq); break;
    case 2: arm(n->nonce, chance(2) ? 0 : hashes[!set], ++seq); break;
    case 3: clear(n->nonce ^ (chance(2) ? 1u : any32()), ++seq); break;
    case 4: clear(n->armed_with, ++seq); break;
    default: arm(n->armed_with, n->limits_hash, ++seq); break;
  }
}

/* Somebody else on the same port, who looks at the node himself or has not for a while. */
static void other_host(void) {
  const view now = {w.node.nonce, w.node.session, w.node.now, w.node.state}, *v = chance(2) ? &other : &now;
  const uint16_t mine = seq;
  seq = (uint16_t)any32();
  if (chance(3)) {
    const uint32_t session = chance(2) ? any32() : other.session;
    command(session, v->now, (uint16_t)between(1, 60), seq, whole());
  } else {
    live_counts.outdated[follow(v)] += v == &other;
  }
  seq = mine;
  other = now;
}

static void foreign(void) {
  const uint8_t major = (uint8_t)(chance(2) ? KZ_PROTOCOL_MAJOR : between(0, 15)), len = (uint8_t)between(0, 8);
  static const uint8_t types[] = {KZ_MSG_HELLO_REQ, KZ_MSG_SCHEMA_GET, KZ_MSG_HEARTBEAT, KZ_MSG_TIME_REQ,
                                  KZ_MSG_STATE,     KZ_MSG_ARM,        KZ_MSG_CLEAR,     KZ_MSG_DISARM,
                                  KZ_MSG_LIMITS,    KZ_MSG_LIMITS_COMMIT, 99};
  kz_put32(payload, w.node.nonce);
  kz_put32(payload + 4, w.node.limits_hash);
  say_as((uint8_t)(major << 4), types[between(0, sizeof types - 1)], ++seq, len);
}

static void torn_limits(void) {
  const int other = !set, channel = (int)between(0, channels() - 1);
  say_limits(other, channel);
  switch (between(0, 6)) {
    case 0: commit(hashes[set]); break;
    case 1: commit(hashes[other]); break;
    case 2: commit(hashes[other] ^ any32()); break;
    case 3: upload(set = (uint8_t)other); break; /* whole, then */
    case 4: /* w of 0 */
      memcpy(payload, limits[other][channel], KZ_LIMITS_BYTES);
      kz_put32(payload + 12, 0);
      say(KZ_MSG_LIMITS, ++seq, KZ_LIMITS_BYTES);
      break;
    case 5: commit(hash_of(w.node.upload)); break; /* of what is there, whole or not */
    default: break;
  }
}

/* Somebody says it again and again, in any major and with any payload; the first ones get lost or damaged. */
static void estop_lost(void) {
  const uint8_t lost = (uint8_t)between(0, 7), flags = (uint8_t)any32(), len = (uint8_t)between(0, 9);
  int i;
  live_counts.lost_estops[lost]++;
  for (i = 0; i < lost; ++i) {
    damaging = 1;
    if (chance(2)) say_as(flags, KZ_MSG_ESTOP, ++seq, len);
    wait_ticks(1);
  }
  damaging = 0;
  say_as(flags, KZ_MSG_ESTOP, ++seq, len);
}

static void brown_out(void) {
  if (chance(2)) say_limits(set, 0); /* in the middle of an upload */
  hear(past[0].bytes, (uint16_t)(past[0].n / 2));
  boot(chance(2) ? w.now : any32(), KZ_RESET_BROWN_OUT, channels());
}

static void somebody_pushes(void) {
  int32_t *at = &w.sensors[between(0, KZ_NODE_SENSORS - 1)];
  *at = chance(4) ? (int32_t)any32() : (int32_t)((uint32_t)*at + (uint32_t)between(-100, 100));
}

static void happen(void) {
  static const uint8_t odds[] = {
#define ODDS(name, odds) odds,
      HAPPENINGS(ODDS)
  };
  int64_t draw, sum = 0;
  int what, i;
  for (i = 0; i < HAPPENINGS_N; ++i) sum += odds[i];
  for (draw = between(0, sum - 1), what = 0; draw >= odds[what]; ++what) draw -= odds[what];
  if (holding && --holding == 0) release();
  if (stopped && --stopped == 0) resume();
  live_counts.happened[what]++;
  switch (what) {
    case DO_what_should: if (!stopped) follow(&host); break;
    case DO_stream:
      for (i = (int)between(2, 10); i && !stopped; --i) follow(&host), wait_ticks(period());
      break;
    case DO_replay: {
      const frame *f = &past[between(0, PAST - 1)];
      count_type(live_counts.replayed, f);
      send_frame(f);
      break;
    }
    case DO_host_stops: stopped = (uint8_t)between(1, 5); break;
    case DO_line_holds: holding = (uint8_t)between(1, 5); break;
    case DO_torn_limits: torn_limits(); break;
    case DO_other_host: other_host(); break;
    case DO_estop_lost: estop_lost(); break;
    case DO_brown_out: brown_out(); break;
    case DO_inputs:
      w.inputs = (uint8_t)between(1, 15);
      wait_ticks(between(1, 3));
      if (!stopped) follow(&host);
      if (chance(2)) arm(w.node.nonce, w.node.limits_hash, ++seq);
      w.inputs = 0;
      break;
    case DO_late: tick(chance(2) ? 1000u * (uint32_t)between(2, 80) : any32() >> between(0, 31)); break;
    case DO_disarm: say(KZ_MSG_DISARM, ++seq, 0); break;
    case DO_fault: say(KZ_MSG_FAULT, ++seq, 1); break;
    case DO_noise:
      for (i = 0; i < 24; ++i) buffer[i] = (uint8_t)any32();
      hear(buffer, 24);
      break;
    case DO_damage: damaging = 1; break;
    case DO_push: somebody_pushes(); break;
    case DO_odd_command: odd_command(); break;
    case DO_odd_request: odd_request(); break;
    case DO_again:
      if (w.node.state == KZ_STATE_ARMED)
        arm(w.node.armed_with, w.node.limits_hash, w.node.arm_seq);
      else
        clear(w.node.cleared_with, w.node.clear_seq);
      break;
    case DO_foreign: foreign(); break;
    case DO_seq_jumps: seq = (uint16_t)-between(0, 30); break;
    default: /* patience: until a machine without torque has been seen to rest */
      wait_ticks(w.node.enabled == every_channel() ? 3 : MOTION_PERIODS * period());
  }
}

static void begin(void) {
  uint32_t start;
  int i;
  digest = 2166136261u;
  last_state = KZ_STATE_INIT;
  last_applied = seq = arm_seq = clear_seq = 0;
  past_n = held_n = holding = damaging = waiting_n = stopped = set = 0;
  memset(past, 0, sizeof past);
  for (i = 0; i < PAST; ++i) past[i].n = 1; /* a lone delimiter */
  for (i = 0; i < KZ_NODE_CH; ++i) watched_modes[i] = (uint8_t)between(KZ_MODE_POSITION, KZ_MODE_TORQUE);
  start = chance(3) ? (uint32_t)-between(0, 60000) : any32();
  boot(start, KZ_RESET_POWER_ON, (uint8_t)between(1, KZ_NODE_CH));
  draw_limits();
  if (chance(4)) seq = (uint16_t)-between(0, 20);
  memset(&host, 0, sizeof host);
  memset(&other, 0, sizeof other);
  wait_ticks(1);
  if (!chance(4)) upload(set);
  wait_ticks(1);
}

#endif
