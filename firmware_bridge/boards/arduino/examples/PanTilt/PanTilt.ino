/* Two hobby servos with potentiometers as a kizzasi node: Uno or Mega 2560. Wiring and pins: machine.h.
 *
 * The gateway talks to this sketch with kizzasi_bridge at 500 000 baud, which a 16 MHz AVR makes exactly. board.toml says
 * what the raw numbers mean; after changing it: kizzasi-bridge schema board.toml -o schema.h */
#include <Kizzasi.h>
#include <avr/wdt.h>

#include "machine.h"
#include "reset.h"
#include "schema.h"

static KizzasiPort port(Serial, SCHEMA_TICK_US);
static kz_node node;

static uint16_t board_read(void *, uint8_t *buf, uint16_t room) { return port.read(buf, room); }
static void board_write(void *, const uint8_t *frame, uint16_t n) { port.write(frame, n); }
static uint32_t board_us(void *) { return micros(); }
static void board_idle(void *) { port.idle(); }
static void board_kick(void *) { wdt_reset(); }

static const kz_board board = {
    board_read,    board_write, board_us,      board_idle,      board_kick,     machine_actuate,
    machine_sense, schema,      sizeof schema, SCHEMA_CHANNELS, SCHEMA_SENSORS, SCHEMA_TICK_US,
    schema_modes,
};

/* The watchdog has been running since before main (reset.cpp): whatever hangs here ends in a reset. */
void setup() {
  machine_off();
  machine_start();
  Serial.begin(500000);
  port.begin();
  while (!kz_node_init(&node, &board, 0, reset_boot_id(), reset_cause())) {
  }
}

void loop() { kz_node_poll(&node); }
