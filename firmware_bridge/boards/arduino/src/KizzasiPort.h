/* The node's port on any Arduino serial line: what read, write and idle of kz_board owe. */
#ifndef KIZZASI_PORT_H
#define KIZZASI_PORT_H

#include <Arduino.h>

#include "kz_node.h"

class KizzasiPort {
 public:
  /* `serial` must have availableForWrite(), as HardwareSerial and the USB ports of most cores do. */
  KizzasiPort(Stream &serial, uint32_t tick_us) : serial_(serial), tick_us_(tick_us) {}

  /* The first tick begins `tick_us` from now. */
  void begin() { next_ = micros() + tick_us_; }

  /* At most `room` bytes that have arrived. */
  uint16_t read(uint8_t *buf, uint16_t room);

  /* Takes the whole frame, or drops it when there is no room. */
  void write(const uint8_t *frame, uint16_t n);

  /* Sends what waits until the next tick begins; returns at once if it has begun. */
  void idle();

 private:
  /* The longest burst: a STATE and an answer. A core's own buffer (64 bytes on AVR) may hold neither. */
  static const uint16_t ROOM = 2 * (KZ_TX_PAYLOAD + KZ_OVERHEAD);

  void pump();

  Stream &serial_;
  const uint32_t tick_us_;
  uint32_t next_ = 0;
  uint16_t first_ = 0, waiting_ = 0;
  uint8_t queue_[ROOM];
};

#endif
