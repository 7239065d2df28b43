#include "machine.h"

#include <Arduino.h>

#if F_CPU != 16000000 || !(defined(__AVR_ATmega328P__) || defined(__AVR_ATmega2560__))
#error "Uno, Nano or Mega 2560 at 16 MHz; for another board replace machine.cpp and reset.cpp"
#endif

#define JOINTS 2
#define SAMPLES 4 /* ADC readings of a joint in one tick, 112 us each */

static const uint8_t STOP = 2, POWER = 4;
#ifdef __AVR_ATmega2560__
static const uint8_t PULSE[JOINTS] = {11, 12};
#else
static const uint8_t PULSE[JOINTS] = {9, 10};
#endif
static const uint8_t WIPER[JOINTS] = {A0, A1};

/* Where a servo goes: pulse = CENTRE + (raw - RAW_CENTRE) * GAIN / 65536, in half microseconds, never beyond the ends.
 * Measured on the machine: send two pulses, read the potentiometer. A servo that is mounted the other way round has a
 * negative gain. */
static const uint16_t CENTRE = 3000, SHORTEST = 2000, LONGEST = 4000, FRAME = 40000;
static const int32_t RAW_CENTRE[JOINTS] = {32768, 32768}, GAIN[JOINTS] = {6004, 6004};

/* A wiper whose wire is broken reads 0, one that lost its ground nearly 1023. */
static const int LOWEST = 20, HIGHEST = 1003;

static const uint8_t CONNECTED[JOINTS] = {_BV(COM1A1), _BV(COM1B1)};
static volatile uint16_t *const WIDTH[JOINTS] = {&OCR1A, &OCR1B};
static uint16_t driven; /* bit per joint, as in kz_output.enabled */

void machine_off() {
  digitalWrite(POWER, LOW);
  TCCR1A = 0;
}

void machine_start() {
  uint8_t i;
  pinMode(STOP, INPUT_PULLUP);
  pinMode(POWER, OUTPUT);
  for (i = 0; i < JOINTS; ++i) pinMode(PULSE[i], OUTPUT);
  analogReference(DEFAULT);
}

static uint16_t width(uint8_t joint, int32_t raw) {
  int32_t off = raw - RAW_CENTRE[joint];
  off = constrain(off, -65536, 65536); /* beyond every end; the product fits */
  off = CENTRE + ((off * GAIN[joint]) >> 16);
  return (uint16_t)constrain(off, (int32_t)SHORTEST, (int32_t)LONGEST);
}

/* A pulse that was cut off lives on in the output latches: they are cleared first, which the timer allows in its normal
 * mode only. The frame begins at once. */
static void restart_timer() {
  TCCR1B = 0;
  TCCR1A = _BV(COM1A1) | _BV(COM1B1);
  TCCR1C = _BV(FOC1A) | _BV(FOC1B);
  TCCR1A = 0;
  ICR1 = FRAME - 1;
  TCNT1 = FRAME - 1;
}

void machine_actuate(void *, const kz_output *o) {
  const uint16_t risen = o->enabled & ~driven;
  uint8_t connected = _BV(WGM11), i;
  if (risen) restart_timer();
  for (i = 0; i < JOINTS; ++i) {
    *WIDTH[i] = width(i, o->out[i]) - 1; /* taken over at the next frame */
    if (o->enabled >> i & 1) connected |= CONNECTED[i];
  }
  TCCR1A = connected;
  TCCR1B = _BV(WGM13) | _BV(WGM12) | _BV(CS11); /* fast PWM up to ICR1, half a microsecond a count */
  digitalWrite(POWER, o->enabled ? HIGH : LOW);
  driven = o->enabled;
}

uint8_t machine_sense(void *, int32_t *sensors) {
  static bool settled; /* the ADC's reference: what is read before that counts for nothing */
  uint8_t inputs = digitalRead(STOP) == HIGH ? KZ_IN_ESTOP : 0, i, k;
  for (i = 0; i < JOINTS; ++i) {
    int sum = 0;
    for (k = 0; k < SAMPLES; ++k) {
      const int reading = analogRead(WIPER[i]);
      if (reading < LOWEST || reading > HIGHEST) inputs |= KZ_IN_SENSOR_FAULT;
      sum += reading;
    }
    sensors[i] = (int32_t)sum * (64 / SAMPLES);
  }
  if (!settled) inputs |= KZ_IN_NO_SAMPLE;
  settled = true;
  return inputs;
}
