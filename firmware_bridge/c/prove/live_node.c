/* live_node FIRST COUNT [DIGESTS] — whole lives of a node among careless people, the same ones on every core.
 *
 * Life k is drawn from k alone: a board of one or two channels, limits, a clock that may soon wrap, a host who uploads,
 * arms, commands and clears as he should, and what happens to him: node_people.h. node_watch.h judges each event. All
 * bytes that the node sends and all that it drives are folded into one number for each life, and what happened is
 * counted, so that a proof of nothing shows.
 *
 * Prints the counts as one JSON line and writes the numbers to DIGESTS. A violation ends it, with the life in which it
 * was. For a core without an operating system, compile with -DBARE, call live() and look at live_digests, live_counts
 * and, after a trap, live_violated. */
#ifndef BARE
#include <stdio.h>
#include <stdlib.h>
#endif

#include "node_people.h"

enum { STEPS = 12, LIVES = 100000 };

uint32_t live_now, live_digests[LIVES];
const char *volatile live_violated;

static void violated(const char *what) {
  live_violated = what;
#ifndef BARE
  fprintf(stderr, "life %u: violated: %s\n", (unsigned)live_now, what);
  exit(1);
#endif
  __builtin_trap();
}

static uint32_t life(uint32_t k) {
  int i;
  state = 0x9E3779B97F4A7C15ull * (k + 1ull);
  for (i = 0; i < 4; ++i) random64();
  begin();
  for (i = 0; i < STEPS; ++i) {
    happen();
    wait_ticks(between(1, 2));
  }
  return digest;
}

/* `count` lives from `first` on. */
void live(uint32_t first, uint32_t count) {
  uint32_t i;
  for (i = 0; i < count && i < LIVES; ++i) live_digests[i] = life(live_now = first + i);
}

#ifndef BARE
static void numbers(const char *name, const uint32_t *number, int n) {
  int i;
  printf("\"%s\": [", name);
  for (i = 0; i < n; ++i) printf("%s%u", i ? ", " : "", (unsigned)number[i]);
  printf("], ");
}

static void names(const char *of, const char *const *name, int n) {
  int i;
  printf("\"%s\": [", of);
  for (i = 0; i < n; ++i) printf("%s\"%s\"", i ? ", " : "", name[i]);
  printf("]");
}

int main(int argc, char **argv) {
#define NAME(name, odds) #name,
  static const char *const happenings[] = {HAPPENINGS(NAME)}, *const odd[] = {ODD_COMMANDS(NAME)};
  static const char *const facts[] = {FACTS(NAME)};
  uint32_t first = argc > 2 ? (uint32_t)strtoul(argv[1], 0, 10) : 0;
  uint32_t left = argc > 2 ? (uint32_t)strtoul(argv[2], 0, 10) : 0;
  FILE *file = argc > 3 ? fopen(argv[3], "wb") : 0;
  if (argc < 3 || (argc > 3 && !file)) return 2;
  while (left) {
    const uint32_t some = left < LIVES ? left : LIVES;
    live(first, some);
    if (file && fwrite(live_digests, sizeof *live_digests, some, file) != some) return 2;
    first += some;
    left -= some;
  }
  if (file && fclose(file)) return 2;
  printf("{");
#define NUMBERS(name, n) numbers(#name, live_counts.name, n);
  COUNTS(NUMBERS)
  printf("\"names\": {");
  names("happened", happenings, HAPPENINGS_N);
  printf(", ");
  names("odd_commands", odd, ODD_COMMANDS_N);
  printf(", ");
  names("facts", facts, FACTS_N);
  printf("}}\n");
  return 0;
}
#endif
