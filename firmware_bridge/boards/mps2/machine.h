/* What the board drives and measures. */
#ifndef KZ_MPS2_MACHINE_H
#define KZ_MPS2_MACHINE_H

#include "kz_node.h"

void machine_actuate(void *ctx, const kz_output *o);
uint8_t machine_sense(void *ctx, int32_t *sensors);

/* Everything without torque, at once. Called from faults: touches nothing but hardware. */
void machine_off(void);

#endif
