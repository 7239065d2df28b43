#include "bench.h"

#include <string.h>
#include <ucontext.h>

bench_state bench;

static ucontext_t test, firmware;
static uint32_t until;

static void life(void) {
  bench_firmware();
  bench.returned = 1;
  for (;;) bench_spend(1000);
}

void bench_boot(void) {
  static uint8_t stack[1 << 18];
  getcontext(&firmware);
  firmware.uc_stack.ss_sp = stack;
  firmware.uc_stack.ss_size = sizeof stack;
  firmware.uc_link = 0;
  makecontext(&firmware, life, 0);
}

void bench_run(uint32_t us) {
  until = bench.us + us;
  swapcontext(&test, &firmware);
}

void bench_spend(uint32_t us) {
  while (us--) {
    bench.us++;
    bench_time_passes();
    if (bench.us == until) swapcontext(&firmware, &test);
  }
}

void bench_call(const char *name) {
  const size_t used = strlen(bench.calls);
  if (used + strlen(name) + 2 > sizeof bench.calls) return;
  strcat(strcat(bench.calls, name), " ");
}

void bench_output(void) {
  while (bench.hang) bench_spend(1000);
}
