/* machine.c with an actuator driver that gets stuck at one setpoint, interrupts on: what the watchdog is for. */
#define machine_actuate healthy_actuate
#include "machine.c"
#undef machine_actuate

#define STUCK_AT 4242

void machine_actuate(void *ctx, const kz_output *o) {
  while (kz_channel_sent(&o->channel[0]) >= STUCK_AT) {
  }
  healthy_actuate(ctx, o);
}
