#include "servo.h"

#include <errno.h>
#include <zephyr/devicetree.h>
#include <zephyr/drivers/adc.h>
#include <zephyr/drivers/gpio.h>
#include <zephyr/drivers/pwm.h>

#define USER DT_PATH(zephyr_user)
#define LEAST 600 /* raw, of 65536: nearer to the ends a wire of the potentiometer is off */
#define MOST (65536 - LEAST)

static const struct pwm_dt_spec pulses = PWM_DT_SPEC_GET(USER);
static const struct adc_dt_spec pot = ADC_DT_SPEC_GET(USER);
static const struct gpio_dt_spec power = GPIO_DT_SPEC_GET(USER, power_gpios);
static const struct gpio_dt_spec stop = GPIO_DT_SPEC_GET(USER, stop_gpios);

int servo_init(void) {
  if (!gpio_is_ready_dt(&power) || gpio_pin_configure_dt(&power, GPIO_OUTPUT_INACTIVE)) return -ENODEV;
  if (!gpio_is_ready_dt(&stop) || gpio_pin_configure_dt(&stop, GPIO_INPUT)) return -ENODEV;
  if (!pwm_is_ready_dt(&pulses)) return -ENODEV;
  return adc_is_ready_dt(&pot) ? adc_channel_setup_dt(&pot) : -ENODEV;
}

void servo_off(void) { (void)gpio_pin_set_dt(&power, 0); }

uint8_t servo_sense(void *ctx, int32_t *sensors) {
  int16_t sample = 0;
  struct adc_sequence sequence = {.buffer = &sample, .buffer_size = sizeof sample};
  uint8_t inputs = gpio_pin_get_dt(&stop) ? KZ_IN_ESTOP : 0; /* an error is not 0 either */
  ARG_UNUSED(ctx);
  if (adc_sequence_init_dt(&pot, &sequence) || adc_read_dt(&pot, &sequence)) return inputs | KZ_IN_SENSOR_FAULT;
  sensors[0] = sample * 16;
  if (sensors[0] < LEAST || sensors[0] > MOST) inputs |= KZ_IN_SENSOR_FAULT;
  return inputs;
}

/* 0.5 to 2.5 ms over the whole range, from which limits and calibration keep away. */
void servo_actuate(void *ctx, const kz_output *o) {
  const int32_t raw = o->out[0] < LEAST ? LEAST : o->out[0] > MOST ? MOST : o->out[0];
  ARG_UNUSED(ctx);
  if (!(o->enabled & 1)) {
    servo_off();
    return;
  }
  (void)pwm_set_pulse_dt(&pulses, 500000u + (uint32_t)raw * 30518u / 1000u); /* ns */
  (void)gpio_pin_set_dt(&power, 1);
}
