/* One hobby servo on an ESP32-C3: signal on GPIO 6, supply switched by GPIO 7 (low, or floating: no torque),
 * potentiometer on GPIO 0, on GPIO 5 the local emergency stop: a contact to ground that opens. */
#ifndef SERVO_H
#define SERVO_H

#include "esp_err.h"
#include "kz_node.h"

/* Supply off; the first thing that the firmware does. */
esp_err_t servo_init(void);

/* Signal and potentiometer. */
esp_err_t servo_start(void);

uint8_t servo_sense(void *ctx, int32_t *sensors);
void servo_actuate(void *ctx, const kz_output *o);

/* Without torque, at once; from interrupts too. */
void servo_off(void);

#endif
