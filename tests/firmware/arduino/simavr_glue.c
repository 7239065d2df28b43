/* An AVR board in simavr, for avr.py: the UART at its baud rate, pins, voltages, and a record of the calls that are watched.
 * Time is the core's cycles; nothing depends on the machine that this runs on. */
#include <stdint.h>

#include "simavr_glue.h"

#include <simavr/avr_adc.h>
#include <simavr/avr_eeprom.h>
#include <simavr/avr_ioport.h>
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define FREQUENCY 16000000
#define BYTE_CYCLES 320 /* 10 bits at 500 000 baud */
#define ROOM 65536
#define WATCHES 16
#define MCUSR 0x54
#define EXTRF 2

struct board {
  avr_t *avr;
  elf_firmware_t elf;
  avr_irq_t *rx;
  uint8_t in[ROOM], out[ROOM];
  uint32_t in_first, in_n, out_n;
  uint8_t *watched; /* by flash word: number of the watch, from 1; 255: a return that is waited for */
  uint32_t depth, returns[WATCHES], starts;
  uint8_t open[WATCHES];
  uint16_t pointer[WATCHES];
  board_event *events;
  uint32_t n_events, room_events;
  board_edge edges[ROOM];
  uint32_t n_edges;
  int tracing, bootloader;
};

static void silent(avr_t *avr, const int level, const char *format, va_list rest) {
  (void)avr, (void)level, (void)format, (void)rest;
}

static void sent(struct avr_irq_t *irq, uint32_t value, void *param) {
  board *b = param;
  (void)irq;
  if (b->out_n < ROOM) b->out[b->out_n++] = (uint8_t)value;
}

static void edge(struct avr_irq_t *irq, uint32_t value, void *param) {
  board *b = param;
  if (b->n_edges == ROOM) return;
  b->edges[b->n_edges].cycle = b->avr->cycle;
  b->edges[b->n_edges].pin = (uint8_t)irq->irq;
  b->edges[b->n_edges++].level = (uint8_t)(value & 1);
}

/* The line: one byte each 20 us, as long as there are any. */
static avr_cycle_count_t line(avr_t *avr, avr_cycle_count_t when, void *param) {
  board *b = param;
  (void)avr;
  if (b->in_n == 0) return 0;
  avr_raise_irq(b->rx, b->in[b->in_first++ % ROOM]);
  return --b->in_n ? when + BYTE_CYCLES : 0;
}

board *board_new(const char *elf, const char *mcu) {
  board *b = calloc(1, sizeof *b);
  uint32_t flags = 0;
  avr_global_logger_set(silent);
  if (elf_read_firmware(elf, &b->elf)) return 0;
  b->avr = avr_make_mcu_by_name(mcu);
  if (!b->avr || avr_init(b->avr)) return 0;
  b->elf.frequency = FREQUENCY;
  b->elf.vcc = b->elf.avcc = b->elf.aref = 5000;
  avr_load_firmware(b->avr, &b->elf);
  avr_ioctl(b->avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags); /* no output here, no sleeping while it polls */
  b->rx = avr_io_getirq(b->avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT);
  avr_irq_register_notify(avr_io_getirq(b->avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), sent, b);
  b->watched = calloc(1, b->avr->flashend / 2 + 1);
  return b;
}

void board_free(board *b) {
  avr_terminate(b->avr);
  free(b->watched);
  free(b->events);
  free(b);
}

void board_give(board *b, const uint8_t *data, uint32_t n) {
  if (b->in_n == 0 && n) avr_cycle_timer_register(b->avr, BYTE_CYCLES, line, b);
  while (n-- && b->in_n < ROOM) b->in[(b->in_first + b->in_n++) % ROOM] = *data++;
}

uint32_t board_take(board *b, uint8_t *data) {
  const uint32_t n = b->out_n;
  memcpy(data, b->out, n);
  b->out_n = 0;
  return n;
}

/* Its first four bytes. */
void board_eeprom(board *b, uint8_t *four, int write) {
  avr_eeprom_desc_t part = {.ee = four, .offset = 0, .size = 4};
  avr_ioctl(b->avr, write ? AVR_IOCTL_EEPROM_SET : AVR_IOCTL_EEPROM_GET, &part);
}

void board_voltage(board *b, int channel, int millivolts) {
  avr_raise_irq(avr_io_getirq(b->avr, AVR_IOCTL_ADC_GETIRQ, ADC_IRQ_ADC0 + channel), (uint32_t)millivolts);
}

/* From outside, stronger than the pull-up. */
void board_set_pin(board *b, char port, int pin, int level) {
  avr_ioport_external_t external = {.name = (unsigned long)port, .mask = 1u << pin, .value = (unsigned)level << pin};
  avr_ioctl(b->avr, AVR_IOCTL_IOPORT_SET_EXTERNAL(port), &external);
  avr_raise_irq(avr_io_getirq(b->avr, AVR_IOCTL_IOPORT_GETIRQ(port), pin), (uint32_t)level);
}

/* Whether the firmware drives this pin high. */
int board_pin(board *b, char port, int pin) {
  avr_ioport_state_t state;
  avr_ioctl(b->avr, AVR_IOCTL_IOPORT_GETSTATE(port), &state);
  return (int)(state.port & state.ddr) >> pin & 1;
}

void board_record_edges(board *b, char port, int pin) {
  avr_irq_register_notify(avr_io_getirq(b->avr, AVR_IOCTL_IOPORT_GETIRQ(port), pin), edge, b);
}

uint32_t board_edges(board *b, board_edge *edges) {
  const uint32_t n = b->n_edges;
  memcpy(edges, b->edges, n * sizeof *edges);
  b->n_edges = 0;
  return n;
}

void board_watch(board *b, uint32_t address, int number) {
  b->watched[address / 2] = (uint8_t)number;
  b->tracing = 1;
}

uint64_t board_cycle(const board *b) { return b->avr->cycle; }
uint32_t board_starts(const board *b) { return b->starts; }
uint8_t *board_memory(board *b) { return b->avr->data; }
uint8_t *board_flash(board *b) { return b->avr->flash; }

static uint16_t stack(const avr_t *avr) { return (uint16_t)(avr->data[R_SPL] | avr->data[R_SPH] << 8); }
static uint16_t pair(const avr_t *avr, int r) { return (uint16_t)(avr->data[r] | avr->data[r + 1] << 8); }

static void record(board *b, uint8_t number, uint8_t returned, uint16_t pointer) {
  const avr_t *avr = b->avr;
  const uint32_t left = avr->ramend + 1u - (pointer <= avr->ramend ? pointer : avr->ramend);
  board_event *e;
  if (b->n_events == b->room_events) {
    b->room_events = b->room_events ? 2 * b->room_events : 4096;
    b->events = realloc(b->events, b->room_events * sizeof *b->events);
  }
  e = &b->events[b->n_events++];
  memset(e, 0, sizeof *e);
  e->cycle = avr->cycle;
  e->number = number;
  e->returned = returned;
  memcpy(e->r18_25, avr->data + 18, 8);
  memcpy(e->memory, avr->data + pointer, left < sizeof e->memory ? left : sizeof e->memory);
}

/* Calls nest properly here: the innermost one comes back first. The second argument is a pointer wherever it matters. */
static void watch(board *b) {
  const avr_t *avr = b->avr;
  if (b->depth && avr->pc == b->returns[b->depth - 1]) {
    --b->depth;
    record(b, b->open[b->depth], 1, b->pointer[b->depth]);
  }
  const uint8_t number = b->watched[avr->pc / 2];
  if (number && b->depth < WATCHES) {
    const uint8_t *top = avr->data + stack(avr) + 1;
    uint32_t back = 0;
    int i;
    for (i = 0; i < avr->address_size; ++i) back = back << 8 | top[i];
    b->returns[b->depth] = back * 2;
    b->open[b->depth] = number;
    b->pointer[b->depth++] = pair(avr, 22);
    record(b, number, 0, pair(avr, 22));
  }
}

/* The reset button. The flags add up until somebody clears them. */
void board_reset(board *b) {
  const uint8_t flags = b->avr->data[MCUSR];
  avr_reset(b->avr);
  b->avr->data[MCUSR] = flags | EXTRF;
}

/* From now on MCUSR is 0 when the sketch begins, as bootloaders leave it. */
void board_bootloader(board *b) { b->bootloader = 1; }

int board_run(board *b, uint64_t until) {
  avr_t *avr = b->avr;
  avr->run_cycle_limit = b->tracing ? 1 : 1000;
  while (avr->cycle < until) {
    int state;
    if (avr->pc == 0) {
      b->starts++;
      b->depth = 0;
      if (b->bootloader) avr->data[MCUSR] = 0;
    }
    if (b->tracing) watch(b);
    state = avr_run(avr);
    if (state == cpu_Done || state == cpu_Crashed) return 0;
  }
  return 1;
}

const board_event *board_events(board *b, uint32_t *n) {
  *n = b->n_events;
  b->n_events = 0;
  return b->events;
}
