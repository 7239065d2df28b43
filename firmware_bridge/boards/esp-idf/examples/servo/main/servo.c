#include "servo.h"

#include "driver/gpio.h"
#include "driver/ledc.h"
#include "esp_adc/adc_oneshot.h"

#define SIGNAL GPIO_NUM_6
#define POWER GPIO_NUM_7
#define STOP GPIO_NUM_5
#define POT ADC_CHANNEL_0
#define LEAST 600 /* raw, of 65536: nearer to the ends a wire of the potentiometer is off */
#define MOST (65536 - LEAST)

static adc_oneshot_unit_handle_t adc;

esp_err_t servo_init(void) {
  const gpio_config_t power = {.pin_bit_mask = 1ull << POWER, .mode = GPIO_MODE_OUTPUT};
  const gpio_config_t stop = {.pin_bit_mask = 1ull << STOP, .mode = GPIO_MODE_INPUT, .pull_up_en = GPIO_PULLUP_ENABLE};
  esp_err_t problem = gpio_set_level(POWER, 0); /* before it becomes an output */
  if (problem == ESP_OK) problem = gpio_config(&power);
  return problem == ESP_OK ? gpio_config(&stop) : problem;
}

esp_err_t servo_start(void) {
  const ledc_timer_config_t timer = {
      .speed_mode = LEDC_LOW_SPEED_MODE,
      .duty_resolution = LEDC_TIMER_14_BIT,
      .timer_num = LEDC_TIMER_0,
      .freq_hz = 50,
      .clk_cfg = LEDC_AUTO_CLK,
  };
  const ledc_channel_config_t pulses = {
      .gpio_num = SIGNAL,
      .speed_mode = LEDC_LOW_SPEED_MODE,
      .channel = LEDC_CHANNEL_0,
      .timer_sel = LEDC_TIMER_0,
      .duty = 0,
  };
  const adc_oneshot_unit_init_cfg_t unit = {.unit_id = ADC_UNIT_1};
  const adc_oneshot_chan_cfg_t input = {.atten = ADC_ATTEN_DB_12, .bitwidth = ADC_BITWIDTH_12};
  esp_err_t problem = ledc_timer_config(&timer);
  if (problem == ESP_OK) problem = ledc_channel_config(&pulses);
  if (problem == ESP_OK) problem = adc_oneshot_new_unit(&unit, &adc);
  return problem == ESP_OK ? adc_oneshot_config_channel(adc, POT, &input) : problem;
}

void servo_off(void) { (void)gpio_set_level(POWER, 0); }

uint8_t servo_sense(void *ctx, int32_t *sensors) {
  uint8_t inputs = gpio_get_level(STOP) ? KZ_IN_ESTOP : 0; /* open, or torn off */
  int sample;
  (void)ctx;
  if (adc_oneshot_read(adc, POT, &sample) != ESP_OK) return inputs | KZ_IN_SENSOR_FAULT;
  sensors[0] = sample * 16;
  if (sensors[0] < LEAST || sensors[0] > MOST) inputs |= KZ_IN_SENSOR_FAULT;
  return inputs;
}

/* 0.5 to 2.5 ms of 20 ms over the whole range, from which limits and calibration keep away. */
void servo_actuate(void *ctx, const kz_output *o) {
  const int32_t raw = o->out[0] < LEAST ? LEAST : o->out[0] > MOST ? MOST : o->out[0];
  (void)ctx;
  if (!(o->enabled & 1)) {
    servo_off();
    return;
  }
  (void)ledc_set_duty(LEDC_LOW_SPEED_MODE, LEDC_CHANNEL_0, (26843546u + (uint32_t)raw * 1638u) >> 16); /* of 2^14 */
  (void)ledc_update_duty(LEDC_LOW_SPEED_MODE, LEDC_CHANNEL_0);
  (void)gpio_set_level(POWER, 1);
}
