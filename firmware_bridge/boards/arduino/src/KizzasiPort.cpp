#include "KizzasiPort.h"

uint16_t KizzasiPort::read(uint8_t *buf, uint16_t room) {
  uint16_t n = 0;
  while (n < room && serial_.available() > 0) buf[n++] = (uint8_t)serial_.read();
  return n;
}

void KizzasiPort::write(const uint8_t *frame, uint16_t n) {
  uint16_t at;
  if (n > ROOM - waiting_) return;
  at = (first_ + waiting_) % ROOM;
  waiting_ += n;
  while (n--) {
    queue_[at] = *frame++;
    if (++at == ROOM) at = 0;
  }
  pump();
}

void KizzasiPort::pump() {
  while (waiting_ && serial_.availableForWrite() > 0) {
    serial_.write(queue_[first_]);
    if (++first_ == ROOM) first_ = 0;
    --waiting_;
  }
}

void KizzasiPort::idle() {
  do pump();
  while ((int32_t)(micros() - next_) < 0);
  /* Ticks that were missed are skipped, not caught up. */
  do next_ += tick_us_;
  while ((int32_t)(micros() - next_) >= 0);
}
