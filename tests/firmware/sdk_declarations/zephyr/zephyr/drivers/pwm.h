#ifndef ZEPHYR_PWM_H
#define ZEPHYR_PWM_H

#include <zephyr/device.h>

struct pwm_dt_spec {
  const struct device *dev;
  uint32_t channel, period;
};
#define PWM_DT_SPEC_GET(node) {.dev = &device_pwm, .channel = 1, .period = 20000000}
bool pwm_is_ready_dt(const struct pwm_dt_spec *spec);
int pwm_set_pulse_dt(const struct pwm_dt_spec *spec, uint32_t pulse);

#endif
