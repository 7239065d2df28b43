#ifndef KZ_HOST_TYPES_H
#define KZ_HOST_TYPES_H

#include "kz_node.h"

typedef struct {
  kz_decoder d;
} kz_host_decoder;

typedef struct {
  int32_t sensors[KZ_NODE_SENSORS]; /* what the sense hook reports */
  int32_t out[KZ_NODE_CH];          /* what the actuate hook was last given */
  int32_t applied[KZ_NODE_CH];
  uint16_t enabled;
  uint8_t inputs; /* KZ_IN_ bits */
  uint8_t boundary;
  uint8_t ideal; /* sensors follow out wherever the channel is driven */
  uint32_t dropped;
  uint8_t fault; /* this and what follows: as the last tick left it */
  uint16_t applied_seq, clamped, ignored, misses, stale;
  kz_node node;
  kz_board board;
  uint32_t tx_n;
  uint8_t tx[1 << 16];
  uint8_t modes[KZ_NODE_CH];
  uint8_t schema[1 << 14];
} kz_host_node;

#endif
