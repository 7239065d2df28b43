/* kz_guard and kz_channel, case by case from memory. On an AVR test_same_node.py fills `cases` and waits for `left` to be 0;
 * on the host it calls `judge`. */
#include "kz_channel.h"

typedef struct {
  kz_limit limit;
  kz_axis axis; /* and the axis after */
  int32_t want, measured, fallback, was, reach, sent, between;
  uint8_t what, coast, mode, idle; /* what: 0 admit, 1 miss, 2 follow, 3 idle */
  uint8_t rules, viable, ok, shaped;
} guard_case;

void judge(guard_case *c) {
  kz_channel channel;
  channel.limit = c->limit;
  channel.axis = c->axis;
  channel.fallback = c->fallback;
  channel.was = c->was;
  channel.mode = c->mode;
  c->viable = (uint8_t)kz_viable(&c->limit, &c->axis);
  c->reach = kz_reach(c->want, c->limit.h, c->coast);
  c->ok = (uint8_t)kz_channel_ok(&channel);
  if (c->what == 0) kz_admit(&c->limit, &c->axis, c->want, c->coast, &c->rules);
  if (c->what == 1) kz_miss(&c->limit, &c->axis, c->coast);
  if (c->what < 2 || !c->ok) return;
  if (c->what == 2)
    c->shaped = (uint8_t)kz_channel_follow(&channel, c->measured, c->want, c->coast);
  else
    kz_channel_idle(&channel, c->measured, c->idle);
  c->axis = channel.axis;
  c->was = channel.was;
  c->sent = kz_channel_sent(&channel);
  c->between = kz_channel_between(&channel, (uint16_t)(c->want & 4095));
}

#ifdef __AVR__
#define CASES 20

guard_case cases[CASES];
volatile uint8_t left;

int main(void) {
  uint8_t i;
  for (;;) {
    while (!left) {
    }
    for (i = 0; i < left; ++i) judge(&cases[i]);
    left = 0;
  }
}
#endif
