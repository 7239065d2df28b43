/* A node on a virtual board (no clock, no port), which is how the state machine is driven in virtual time.
 * build_core.py feeds this header to cffi, so it holds plain declarations only; the structs are in host_types.h. */
#ifndef KZ_HOST_GLUE_H
#define KZ_HOST_GLUE_H

#include "host_types.h"

/* `modes`: KZ_MODE_ of each channel. Returns 0 if the capacity of this build does not hold it. */
int kz_host_node_init(kz_host_node *h, int n_channels, int n_sensors, const uint8_t *modes, const uint8_t *schema,
                      int schema_len, uint32_t tick_us, uint32_t boot_id, int reset_cause);
void kz_host_node_rx(kz_host_node *h, const uint8_t *data, int n);
void kz_host_node_tick(kz_host_node *h, uint32_t now_us);

/* KZ_STATE_ of now; what STATE says is of the last period's beginning. */
int kz_host_node_state(const kz_host_node *h);

/* Copy out and forget what the node has written; returns the number of bytes. */
int kz_host_node_take(kz_host_node *h, uint8_t *out, int room);

#endif
