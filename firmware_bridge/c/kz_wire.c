#include "kz_wire.h"

uint8_t *kz_put16(uint8_t *p, uint16_t v) {
  p[0] = (uint8_t)v;
  p[1] = (uint8_t)(v >> 8);
  return p + 2;
}

uint8_t *kz_put32(uint8_t *p, uint32_t v) { return kz_put16(kz_put16(p, (uint16_t)v), (uint16_t)(v >> 16)); }

uint16_t kz_get16(const uint8_t *p) { return (uint16_t)(p[0] | ((uint16_t)p[1] << 8)); }

uint32_t kz_get32(const uint8_t *p) { return kz_get16(p) | ((uint32_t)kz_get16(p + 2) << 16); }

int32_t kz_get32s(const uint8_t *p) { return (int32_t)kz_get32(p); }

uint32_t kz_crc32(uint32_t crc, const uint8_t *data, uint16_t n) {
  /* Half a byte at a time: 64 bytes of table, about twice the time of the 1 KiB one. */
  static const uint32_t table[16] = {
      0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
      0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
  crc = ~crc;
  while (n--) {
    crc ^= *data++;
    crc = table[crc & 15] ^ (crc >> 4);
    crc = table[crc & 15] ^ (crc >> 4);
  }
  return ~crc;
}

uint16_t kz_stuff(uint8_t *buf, uint8_t n) {
  const uint16_t end = (uint16_t)(2 + KZ_HEADER + n + 4);
  uint16_t code = 1, i;
  for (i = 2; i < end; ++i) {
    if (buf[i] == 0) {
      buf[code] = (uint8_t)(i - code);
      code = i;
    }
  }
  buf[code] = (uint8_t)(end - code);
  buf[0] = 0;
  buf[end] = 0;
  return (uint16_t)(end + 1);
}

uint16_t kz_seal(uint8_t *buf, uint8_t type, uint8_t flags, uint16_t seq, uint32_t t_us, uint8_t n) {
  uint8_t *body = buf + 2;
  body[0] = type;
  body[1] = flags;
  kz_put32(kz_put16(body + 2, seq), t_us);
  kz_put32(body + KZ_HEADER + n, kz_crc32(0, body, (uint16_t)(KZ_HEADER + n)));
  return kz_stuff(buf, n);
}

static int finish(kz_decoder *d, uint8_t *payload_len) {
  if (d->left) {
    d->bad_cobs++;
  } else if (d->n < KZ_HEADER + 4) {
    d->runt++;
  } else if (kz_crc32(0, d->body, (uint16_t)(d->n - 4)) != kz_get32(d->body + d->n - 4)) {
    d->bad_crc++;
  } else {
    d->ok++;
    *payload_len = (uint8_t)(d->n - KZ_HEADER - 4);
    return 1;
  }
  return 0;
}

static void append(kz_decoder *d, uint8_t byte) {
  if (d->n == KZ_MAX_BODY) {
    d->too_long++;
    d->skip = 1;
  } else {
    d->body[d->n++] = byte;
  }
}

int kz_decode(kz_decoder *d, uint8_t byte, uint8_t *payload_len) {
  int complete = 0;
  if (byte == 0) {
    if (d->started && !d->skip) complete = finish(d, payload_len); /* adjacent delimiters hold no frame */
    d->n = d->left = d->started = d->skip = 0;
  } else if (d->skip) {
    /* until the delimiter */
  } else if (d->left == 0) {
    /* A code byte. The block before it ended in a zero (a code of 255 would not, but cannot fit a body). */
    if (d->started) append(d, 0);
    d->started = 1;
    d->left = (uint8_t)(byte - 1);
  } else {
    d->left--;
    append(d, byte);
  }
  return complete;
}
