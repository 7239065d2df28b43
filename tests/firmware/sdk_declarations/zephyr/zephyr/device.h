#ifndef ZEPHYR_DEVICE_H
#define ZEPHYR_DEVICE_H

#include <zephyr/kernel.h>

struct device {
  const char *name;
};
bool device_is_ready(const struct device *dev);

/* The devices that the sample's devicetree names. */
#define DEVICE_DT_GET(node) DEVICE_OF(node)
#define DEVICE_OF(node) (&device_##node)
extern const struct device device_kizzasi_uart, device_watchdog0, device_pwm, device_adc, device_gpio;

#endif
