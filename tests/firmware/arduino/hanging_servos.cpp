/* machine.cpp of the sketch, which the test has renamed, with an actuator driver that gets stuck at one setpoint, interrupts
 * on: what the watchdog is for. */
#define machine_actuate healthy_actuate
#include "healthy.h"
#undef machine_actuate

#define STUCK_AT 36000

void machine_actuate(void *ctx, const kz_output *o) {
  while (o->out[0] >= STUCK_AT) {
  }
  healthy_actuate(ctx, o);
}
