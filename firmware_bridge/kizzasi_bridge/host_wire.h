/* Frames as Python encodes and decodes them: whole reads at a time. build_core.py feeds this header to cffi, so it
 * holds plain declarations only; the struct is in host_types.h. */
#ifndef KZ_HOST_WIRE_H
#define KZ_HOST_WIRE_H

#include "host_types.h"

/* kz_wire's own, for the tests and for whoever needs the checksum. */
uint32_t kz_crc32(uint32_t crc, const uint8_t *data, uint16_t n);
uint16_t kz_seal(uint8_t *buf, uint8_t type, uint8_t flags, uint16_t seq, uint32_t t_us, uint8_t n);

/* One frame of a header as it travels, 8 bytes, and `n` <= 240 bytes of payload; returns its length. */
int kz_host_encode(uint8_t *out, const uint8_t *header, const uint8_t *payload, int n);

/* Decode `n` bytes; each frame becomes a record: payload length u8, header 8 bytes, payload. Returns the bytes
 * written to `out`, which must hold n + 256. */
int kz_host_feed(kz_host_decoder *h, const uint8_t *data, int n, uint8_t *out);

/* 0 ok, 1 bad_crc, 2 bad_cobs, 3 too_long, 4 runt */
uint32_t kz_host_count(const kz_host_decoder *h, int which);

#endif
