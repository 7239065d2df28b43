/* libFuzzer target: any life of a node. The input is a list of events, node_watch.h judges each:
 *
 *     xxxxx000  x+1 ticks in time             xxxxx100  a frame: type, 1 + x payload bytes and seq from the input
 *     xxxxx001  u32 us pass, then a tick      xxxxx101  inputs := next byte
 *     xxxxx010  x+1 bytes on the line         xxxxx110  sensor x := i32
 *     xxxxx011  a frame as a host that knows what it is doing would send it (x: which; values from the input)
 *     xxxxx111  brown-out
 *
 *     clang -g -O1 -DKZ_NODE_CH=2 -DKZ_NODE_SENSORS=3 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover \
 *         fuzz_node.c ../kz_node.c ../kz_channel.c ../kz_wire.c ../kz_guard.c
 *     cc -DREPLAY ... fuzz_node.c ... && ./a.out FILE */
#include <stdio.h>
#include <stdlib.h>

#include "node_watch.h"

static void violated(const char *what) {
  fprintf(stderr, "violated: %s\n", what);
  abort();
}

enum { MOST_TICKS = 250 }; /* per input: enough for every timeout; more would only be slow */

static const uint8_t *input;
static size_t left;
static int ticks;

static uint8_t byte(void) { return left ? (--left, *input++) : 0; }

/* One read for each statement: C leaves the order of those in one expression open. */
static uint16_t half(void) {
  const uint8_t low = byte();
  return (uint16_t)(low | byte() << 8);
}
static uint32_t word(void) {
  const uint16_t low = half();
  return low | (uint32_t)half() << 16;
}

static uint8_t buffer[KZ_MAX_FRAME], *const payload = buffer + KZ_PAYLOAD_AT;
static uint16_t seq;

static void say(uint8_t type, uint8_t flags, uint16_t number, uint8_t len) {
  watch_rx(buffer, kz_seal(buffer, type, flags, number, 0, len));
}

static void commit(void) {
  uint8_t bytes[4];
  uint32_t hash;
  int i;
  memset(payload, 0, 16);
  kz_put32(payload, TICK_US * (1u + byte() % 4));
  payload[4] = byte() % 8;
  payload[5] = channels();
  kz_put16(payload + 6, (uint16_t)(1 + byte()));
  kz_put16(payload + 8, (uint16_t)(1 + byte()));
  kz_put32(bytes, w.node.schema_hash);
  hash = crc_bits(0, bytes, 4);
  for (i = 0; i < channels(); ++i) hash = crc_bits(hash, w.node.upload[i], KZ_LIMITS_BYTES);
  kz_put32(payload + 12, crc_bits(hash, payload, 12));
  say(KZ_MSG_LIMITS_COMMIT, 0x10, ++seq, 16);
}

static void limits(int channel) {
  memset(payload, 0, KZ_LIMITS_BYTES);
  payload[0] = (uint8_t)channel;
  payload[1] = byte() % 3;
  kz_put32(payload + 4, (uint32_t)-half() * 32);
  kz_put32(payload + 8, (uint32_t)half() * 32);
  kz_put32(payload + 12, half());
  kz_put32(payload + 16, half());
  kz_put32(payload + 20, byte() & 1 ? (uint32_t)half() - 0x8000u : (uint32_t)KZ_NO_SAFE);
  kz_put32(payload + 24, word() >> byte() % 32);
  say(KZ_MSG_LIMITS, 0x10, ++seq, KZ_LIMITS_BYTES);
}

static void command(void) {
  int i;
  kz_put32(payload, w.node.session);
  kz_put32(payload + 4, w.node.now - 500u * byte());
  kz_put16(payload + 8, byte());
  for (i = 0; i < channels(); ++i) kz_put32(payload + 10 + 4 * i, word());
  say(KZ_MSG_COMMAND, 0x10, ++seq, (uint8_t)(10 + 4 * channels()));
}

static void expert(int what) {
  switch (what) {
    case 0: case 1: limits(what); break;
    case 2: commit(); break;
    case 3: case 4: /* 4: once more, with the seq and the nonce of the last */
      kz_put32(payload, what == 3 ? w.node.nonce : w.node.armed_with);
      kz_put32(payload + 4, w.node.limits_hash);
      say(KZ_MSG_ARM, 0x10, what == 3 ? ++seq : w.node.arm_seq, 8);
      break;
    case 5: case 6:
      kz_put32(payload, what == 5 ? w.node.nonce : w.node.cleared_with);
      say(KZ_MSG_CLEAR, 0x10, what == 5 ? ++seq : w.node.clear_seq, 4);
      break;
    case 7: say(KZ_MSG_DISARM, 0x10, ++seq, 0); break;
    case 8: say(KZ_MSG_ESTOP, byte(), ++seq, 0); break;
    case 9: seq = half(); break;
    default: command();
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t n_channels;
  uint32_t boot_id;
  int i;
  input = data;
  left = size;
  seq = 0;
  ticks = 0;
  n_channels = byte();
  for (i = 0; i < KZ_NODE_CH; ++i) watched_modes[i] = (uint8_t)((n_channels >> (2 + 2 * (i % 3)) & 3) % 3);
  n_channels = (uint8_t)(1 + n_channels % KZ_NODE_CH);
  boot_id = word();
  watch_boot(n_channels, KZ_NODE_SENSORS, boot_id, word(), KZ_RESET_POWER_ON);
  while (left) {
    const uint8_t op = byte(), x = op >> 3;
    switch (op & 7) {
      case 0: for (i = 0; i <= x && ticks < MOST_TICKS; ++i, ++ticks) watch_tick(TICK_US); break;
      case 1: watch_tick(word()); break;
      case 2: for (i = 0; i <= x; ++i) buffer[i] = byte(); watch_rx(buffer, (uint16_t)(x + 1)); break;
      case 3: expert(x); break;
      case 4: {
        const uint8_t type = byte();
        for (i = 0; i <= x; ++i) payload[i] = byte();
        say(type & 31, type & 32 ? 0x20 : 0x10, half(), (uint8_t)(x + (type >> 6 & 1)));
        break;
      }
      case 5: w.inputs = byte() & 15; break;
      case 6: w.sensors[x % KZ_NODE_SENSORS] = (int32_t)word(); break;
      default: watch_boot(channels(), KZ_NODE_SENSORS, word() ^ w.node.random, w.now, KZ_RESET_BROWN_OUT);
    }
  }
  return 0;
}

#ifdef REPLAY /* without libFuzzer: play one file, say how it ends */
int main(int argc, char **argv) {
  static uint8_t data[1 << 16];
  FILE *file = argc > 1 ? fopen(argv[1], "rb") : 0;
  if (!file) return 2;
  LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof data, file));
  fclose(file);
  printf("%d\n", w.node.state);
  return 0;
}
#endif
