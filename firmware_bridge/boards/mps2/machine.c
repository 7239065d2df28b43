/* An evaluation board has no motors: these are ideal ones. LED 0 is the drives' enable line, button 0 the local
 * emergency stop, and every tick's outputs go out on UART1 as the message of docs/protocol.md, "Plant socket". */
#include "machine.h"

#include "../plant_message.h"
#include "registers.h"
#include "schema.h"
#include "uart.h"

#define N KZ_NODE_CH

static int32_t position[N];

uint8_t machine_sense(void *ctx, int32_t *sensors) {
  (void)ctx;
  memcpy(sensors, position, sizeof position);
  return BUTTONS & 1 ? KZ_IN_ESTOP : 0;
}

void machine_actuate(void *ctx, const kz_output *o) {
  uint8_t message[PLANT_MESSAGE(N)];
  (void)ctx;
  LEDS = o->enabled != 0;
  plant_ideal(position, o, N, N);
  plant_message(message, o, N, SCHEMA_TICK_US);
  uart_write(&uart1, message, sizeof message);
}

void machine_off(void) { LEDS = 0; }
