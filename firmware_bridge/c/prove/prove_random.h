/* What the harnesses share: random numbers (xorshift64*). */
#ifndef PROVE_RANDOM_H
#define PROVE_RANDOM_H

#include <stdint.h>

static uint64_t state;

static uint64_t random64(void) { /* xorshift64* */
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return state * 0x2545F4914F6CDD1Dull;
}

static int64_t between(int64_t lo, int64_t hi) { return lo + (int64_t)(random64() % (uint64_t)(hi - lo + 1)); }

#endif
