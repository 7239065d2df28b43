/* libFuzzer target: kz_decode and kz_seal on any bytes.
 *
 * A checksum is not found by chance, so the input is a little program: 0xxxxxxx, the next x+1 bytes go on the line as
 * they are; 1xxxxxxx, the next 8 and then 2x bytes (at most 240) are sealed into a frame first, and if x is odd one
 * bit of it is flipped. What is accepted must be exactly what lay between the delimiters, what was sealed whole must
 * arrive, and every other piece must be counted under one name.
 *
 *     clang -g -O2 -fsanitize=fuzzer,address,undefined -fsanitize-trap=undefined -fno-sanitize-coverage=trace-cmp \
 *         fuzz_decoder.c ../kz_wire.c */
#include <stdlib.h>
#include <string.h>

#include "../kz_wire.h"

static kz_decoder d;
static uint8_t piece[1 << 16]; /* what came since the last delimiter */
static uint32_t pieces, piece_n;

static void must(int holds) {
  if (!holds) abort();
}

static int line(uint8_t byte) {
  uint8_t len = 0;
  uint16_t n;
  const int accepted = kz_decode(&d, byte, &len);
  if (byte != 0) {
    must(!accepted);
    if (piece_n < sizeof piece) piece[piece_n++] = byte;
    return 0;
  }
  if (accepted) {
    uint8_t again[KZ_MAX_FRAME];
    memcpy(again + KZ_PAYLOAD_AT, d.body + KZ_HEADER, len);
    n = kz_seal(again, d.body[0], d.body[1], kz_get16(d.body + 2), kz_get32(d.body + 4), len);
    must(n == piece_n + 2 && memcmp(again + 1, piece, piece_n) == 0);
  }
  pieces += piece_n > 0;
  piece_n = 0;
  must(d.ok + d.bad_crc + d.bad_cobs + d.too_long + d.runt == pieces);
  return accepted;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t frame[KZ_MAX_FRAME];
  memset(&d, 0, sizeof d);
  pieces = piece_n = 0;
  while (size) {
    const uint8_t op = *data & 0x7f;
    const int sealed = *data >> 7;
    size_t n = sealed ? 8u + 2 * (op > 120 ? 120 : op) : op + 1u;
    ++data, --size;
    if (n > size) n = size;
    if (sealed && n >= 8) {
      const uint16_t whole = kz_seal((memcpy(frame + KZ_PAYLOAD_AT, data + 8, n - 8), frame), data[0], data[1],
                                     kz_get16(data + 2), kz_get32(data + 4), (uint8_t)(n - 8));
      uint16_t i;
      int got = 0;
      if (op & 1) frame[1 + data[0] % (whole - 2)] ^= (uint8_t)(1u << (data[1] & 7));
      for (i = 0; i < whole; ++i) got = line(frame[i]);
      must(op & 1 || got);
      must(!(op & 1) || !got);
    } else {
      size_t i;
      for (i = 0; i < n; ++i) line(data[i]);
    }
    data += n;
    size -= n;
  }
  return 0;
}
