/* What Python needs around the C core: a batch decoder, and a node on a virtual board (no clock, no port), which
 * is how the state machine is driven in virtual time. build_core.py feeds this header to cffi, so it holds plain
 * declarations only; the structs are in host_types.h. */
#ifndef KZ_HOST_GLUE_H
#define KZ_HOST_GLUE_H

#include "host_types.h"

uint32_t kz_crc32(uint32_t crc, const uint8_t *data, uint16_t n);

int kz_host_encode(uint8_t *out, int type, int flags, int seq, uint32_t t_us, const uint8_t *payload, int n);

/* Decode `n` bytes; each frame becomes a record: payload length u8, header 8 bytes, payload. Returns the bytes
 * written to `out`, which must hold n + 256. */
int kz_host_feed(kz_host_decoder *h, const uint8_t *data, int n, uint8_t *out);

/* 0 ok, 1 bad_crc, 2 bad_cobs, 3 too_long, 4 runt */
uint32_t kz_host_count(const kz_host_decoder *h, int which);

/* Returns 0 if the capacity of this build does not hold it. */
int kz_host_node_init(kz_host_node *h, int n_channels, int n_sensors, const uint8_t *schema, int schema_len,
                      uint32_t tick_us, uint32_t boot_id, int reset_cause);
void kz_host_node_rx(kz_host_node *h, const uint8_t *data, int n);
void kz_host_node_tick(kz_host_node *h, uint32_t now_us);

/* Copy out and forget what the node has written; returns the number of bytes. */
int kz_host_node_take(kz_host_node *h, uint8_t *out, int room);

#endif
