#ifndef ZEPHYR_GPIO_H
#define ZEPHYR_GPIO_H

#include <zephyr/device.h>

typedef uint8_t gpio_pin_t;
typedef uint16_t gpio_dt_flags_t;
typedef uint32_t gpio_flags_t;
struct gpio_dt_spec {
  const struct device *port;
  gpio_pin_t pin;
  gpio_dt_flags_t dt_flags;
};
enum { pin_power_gpios = 5, pin_stop_gpios = 8 };
#define GPIO_DT_SPEC_GET(node, prop) {.port = &device_gpio, .pin = pin_##prop}
#define GPIO_INPUT BIT(16)
#define GPIO_OUTPUT_INACTIVE BIT(17)
bool gpio_is_ready_dt(const struct gpio_dt_spec *spec);
int gpio_pin_configure_dt(const struct gpio_dt_spec *spec, gpio_flags_t extra_flags);
int gpio_pin_get_dt(const struct gpio_dt_spec *spec);
int gpio_pin_set_dt(const struct gpio_dt_spec *spec, int value);

#endif
