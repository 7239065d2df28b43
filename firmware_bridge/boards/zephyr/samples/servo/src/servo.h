/* One hobby servo: its signal, its supply, its potentiometer, the stop contact, as zephyr,user in the devicetree says. */
#ifndef SERVO_H
#define SERVO_H

#include "kz_node.h"

/* Supply off, before anything else. Returns 0 or a negative errno. */
int servo_init(void);

uint8_t servo_sense(void *ctx, int32_t *sensors);
void servo_actuate(void *ctx, const kz_output *o);

/* Without torque, at once; from interrupts too. */
void servo_off(void);

#endif
