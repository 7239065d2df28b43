#include "host_wire.h"

#include <string.h>

/* CRC-32 eight bytes a round: 8 KiB of tables, which a gateway has and the firmware's half-byte table saves. */
static uint32_t crc_table[8][256];

__attribute__((constructor)) static void fill_crc_table(void) {
  uint32_t byte;
  int k;
  for (byte = 0; byte < 256; ++byte) {
    const uint8_t one = (uint8_t)byte;
    crc_table[0][byte] = kz_crc32(~0u, &one, 1) ^ ~0u;
  }
  for (k = 1; k < 8; ++k)
    for (byte = 0; byte < 256; ++byte)
      crc_table[k][byte] = crc_table[0][crc_table[k - 1][byte] & 255] ^ (crc_table[k - 1][byte] >> 8);
}

static uint32_t fast_crc32(const uint8_t *p, int n) {
  uint32_t crc = ~0u;
  for (; n >= 8; n -= 8, p += 8) {
    crc ^= kz_get32(p);
    crc = crc_table[7][crc & 255] ^ crc_table[6][crc >> 8 & 255] ^ crc_table[5][crc >> 16 & 255] ^
          crc_table[4][crc >> 24] ^ crc_table[3][p[4]] ^ crc_table[2][p[5]] ^ crc_table[1][p[6]] ^ crc_table[0][p[7]];
  }
  while (n--) crc = crc_table[0][(crc ^ *p++) & 255] ^ (crc >> 8);
  return ~crc;
}

/* As kz_seal, with the tables. */
int kz_host_encode(uint8_t *out, const uint8_t *header, const uint8_t *payload, int n) {
  uint8_t *const body = out + 2;
  memcpy(body, header, KZ_HEADER);
  memcpy(body + KZ_HEADER, payload, (size_t)n);
  kz_put32(body + KZ_HEADER + n, fast_crc32(body, KZ_HEADER + n));
  return kz_stuff(out, (uint8_t)n);
}

/* What kz_decode makes of the `n` bytes between two delimiters, at once: every byte behind the first code is one of
 * the body. The record's place is given; returns its length, 0 for none. */
static int whole_piece(kz_decoder *d, const uint8_t *piece, int n, uint8_t *record) {
  uint8_t *body = record + 1;
  const int size = n - 1;
  int code = piece[0] - 1;
  if (size > KZ_MAX_BODY) {
    d->too_long++;
    return 0;
  }
  memcpy(body, piece + 1, (size_t)size);
  while (code < size) {
    const int next = code + body[code];
    body[code] = 0;
    code = next;
  }
  if (code != size) {
    d->bad_cobs++;
  } else if (size < KZ_HEADER + 4) {
    d->runt++;
  } else if (fast_crc32(body, size - 4) != kz_get32(body + size - 4)) {
    d->bad_crc++;
  } else {
    d->ok++;
    record[0] = (uint8_t)(size - KZ_HEADER - 4);
    return 1 + size - 4;
  }
  return 0;
}

int kz_host_feed(kz_host_decoder *h, const uint8_t *data, int n, uint8_t *out) {
  const uint8_t *const end = data + n;
  uint8_t *at = out;
  uint8_t len;
  while (data < end) {
    if (!h->d.started) {
      const uint8_t *delimiter = memchr(data, 0, (size_t)(end - data));
      if (delimiter) {
        if (delimiter > data) at += whole_piece(&h->d, data, (int)(delimiter - data), at);
        data = delimiter + 1;
        continue;
      }
    }
    if (!kz_decode(&h->d, *data++, &len)) continue;
    *at++ = len;
    memcpy(at, h->d.body, (size_t)KZ_HEADER + len);
    at += KZ_HEADER + len;
  }
  return (int)(at - out);
}

uint32_t kz_host_count(const kz_host_decoder *h, int which) {
  const uint32_t counts[5] = {h->d.ok, h->d.bad_crc, h->d.bad_cobs, h->d.too_long, h->d.runt};
  return counts[which];
}
