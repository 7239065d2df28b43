/* kz_wire — frames on a byte stream (docs/protocol.md).
 *
 *     00 | COBS( type u8, flags u8, seq u16, t_us u32, payload <= 240, CRC-32/zlib ) | 00      little-endian
 *
 * A body of at most 252 bytes always costs exactly one COBS byte, so a frame is payload + 15 bytes, the encoder
 * works in place, and neither side needs a second buffer. C99, no malloc, no floats.
 */
#ifndef KZ_WIRE_H
#define KZ_WIRE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KZ_MAX_PAYLOAD 240
#define KZ_HEADER 8                                      /* type, flags, seq, t_us */
#define KZ_MAX_BODY (KZ_HEADER + KZ_MAX_PAYLOAD + 4)     /* with the CRC: 252 < 254, hence one COBS byte */
#define KZ_OVERHEAD (2 + 1 + KZ_HEADER + 4)              /* delimiters, COBS byte, header, CRC */
#define KZ_MAX_FRAME (KZ_MAX_PAYLOAD + KZ_OVERHEAD)
#define KZ_PAYLOAD_AT (2 + KZ_HEADER)                    /* where kz_seal expects the payload */

/* Both return where the next value goes. */
uint8_t *kz_put16(uint8_t *p, uint16_t v);
uint8_t *kz_put32(uint8_t *p, uint32_t v);
uint16_t kz_get16(const uint8_t *p);
uint32_t kz_get32(const uint8_t *p);
int32_t kz_get32s(const uint8_t *p);

/* CRC-32 as zlib computes it: start with crc = 0, feed pieces in order. */
uint32_t kz_crc32(uint32_t crc, const uint8_t *data, uint16_t n);

/* COBS, in place, of a body that lies at 2 with its CRC: every zero becomes the distance to the next one (or to the end);
 * and the delimiters. Returns the length of the frame. */
uint16_t kz_stuff(uint8_t *buf, uint8_t n);

/* Turn a buffer with `n` <= 240 payload bytes at KZ_PAYLOAD_AT into a frame, in place. Returns its length,
 * n + KZ_OVERHEAD; the buffer must hold that much. */
uint16_t kz_seal(uint8_t *buf, uint8_t type, uint8_t flags, uint16_t seq, uint32_t t_us, uint8_t n);

/* A zeroed decoder is ready for use. */
typedef struct {
  uint8_t n;       /* bytes in body */
  uint8_t left;    /* data bytes left in the COBS block */
  uint8_t started; /* a COBS code has been seen since the delimiter */
  uint8_t skip;    /* too long: wait for the delimiter */
  uint32_t ok, bad_crc, bad_cobs, too_long, runt;
  uint8_t body[KZ_MAX_BODY];
} kz_decoder;

/* Push one byte. Returns 1 when it completes a frame whose CRC holds; the frame lies in `body` until the next
 * push: header at 0, payload at KZ_HEADER, *payload_len bytes. */
int kz_decode(kz_decoder *d, uint8_t byte, uint8_t *payload_len);

#ifdef __cplusplus
}
#endif
#endif
