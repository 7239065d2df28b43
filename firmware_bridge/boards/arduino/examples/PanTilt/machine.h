/* What the board drives and measures: two hobby servos, each with a potentiometer on its axis.
 *
 *   pin           Uno     Mega
 *   pulse pan     9       11      timer 1 makes the pulses: nothing else may use it (Servo, analogWrite on these pins)
 *   pulse tilt    10      12
 *   power         4       4       high: the servos' supply is on. 10 kohm to GND at the switch, so that it is off in reset
 *   stop          2       2       to GND through a contact that opens when pressed: a broken wire stops as well
 *   wipers        A0, A1  A0, A1  100 kohm to GND each, so that a broken wire reads 0
 *
 * A hobby servo that gets no pulses goes limp, or holds on, as its maker pleases: only the switch takes torque away for
 * certain. Raw positions are 64ths of an ADC count, measured and commanded; what an angle is, board.toml says. */
#ifndef MACHINE_H
#define MACHINE_H

#include <Kizzasi.h>

void machine_start();

/* No power, no pulses. Touches nothing but hardware: the watchdog's interrupt calls it. */
void machine_off();

void machine_actuate(void *ctx, const kz_output *o);
uint8_t machine_sense(void *ctx, int32_t *sensors);

#endif
