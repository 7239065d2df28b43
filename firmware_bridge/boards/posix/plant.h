/* The machine behind the board: another process on a Unix stream socket, stepped in lock-step by firmware time
 * (docs/protocol.md, "Plant socket"), or ideal actuators without one. */
#ifndef KZ_POSIX_PLANT_H
#define KZ_POSIX_PLANT_H

#include "kz_node.h"

typedef struct {
  int fd; /* -1: ideal actuators */
  uint8_t n_channels, n_sensors;
  uint32_t tick_us;
  uint8_t inputs; /* KZ_IN_ bits */
  int32_t sensors[KZ_NODE_SENSORS];
} plant;

/* 0 on success; -1 with errno set. */
int plant_connect(plant *p, const char *path);

/* Send the outputs of this tick and take the sensors after it. 0 on success, -1 if the plant is gone or answers
 * wrongly, or *stop was set by a signal. */
int plant_step(plant *p, const kz_output *o, const volatile int *stop);

#endif
