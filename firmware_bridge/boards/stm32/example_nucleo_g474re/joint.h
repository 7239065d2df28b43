/* One joint: H-bridge on TIM1, encoder on TIM3, home switch, the driver's fault line, the stop contact. */
#ifndef JOINT_H
#define JOINT_H

#include "kz_node.h"

/* PWM runs, with nothing in it; the encoder counts. 0 if the HAL refuses. */
int joint_start(void);

uint8_t joint_sense(void *ctx, int32_t *sensors);
void joint_actuate(void *ctx, const kz_output *o);

/* Without torque, at once. Touches nothing but hardware: for fault handlers too. */
void joint_off(void);

#endif
