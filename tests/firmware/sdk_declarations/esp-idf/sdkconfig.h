/* What menuconfig makes of the component's Kconfig and the example's sdkconfig.defaults. */
#ifndef SDKCONFIG_H
#define SDKCONFIG_H

#define CONFIG_KIZZASI_UART_PORT 0
#define CONFIG_KIZZASI_UART_TX 21
#define CONFIG_KIZZASI_UART_RX 20
#define CONFIG_KIZZASI_UART_BAUD 1000000
#define CONFIG_KIZZASI_RX_ROOM 512
#define CONFIG_KIZZASI_TX_ROOM 1024
#define CONFIG_KIZZASI_WATCHDOG_MS 20

#endif
