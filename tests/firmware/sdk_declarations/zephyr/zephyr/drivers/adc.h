#ifndef ZEPHYR_ADC_H
#define ZEPHYR_ADC_H

#include <zephyr/device.h>

struct adc_sequence {
  uint32_t channels;
  void *buffer;
  size_t buffer_size;
  uint8_t resolution;
};
struct adc_dt_spec {
  const struct device *dev;
  uint8_t channel_id;
};
#define ADC_DT_SPEC_GET(node) {.dev = &device_adc, .channel_id = 1}
bool adc_is_ready_dt(const struct adc_dt_spec *spec);
int adc_channel_setup_dt(const struct adc_dt_spec *spec);
int adc_sequence_init_dt(const struct adc_dt_spec *spec, struct adc_sequence *seq);
int adc_read_dt(const struct adc_dt_spec *spec, const struct adc_sequence *sequence);

#endif
