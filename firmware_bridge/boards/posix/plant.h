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
  uint8_t due;    /* an answer that has not been taken yet */
  int32_t sensors[KZ_NODE_SENSORS];
} plant;

/* 0 on success; -1 with errno set. */
int plant_connect(plant *p, const char *path);

/* Send the outputs of a tick; the sensors after it are taken by plant_sense, so that the plant moves while the board
 * sleeps. Both: 0 on success, -1 if the plant is gone or answers wrongly, or *stop was set by a signal. */
int plant_actuate(plant *p, const kz_output *o, const volatile int *stop);

/* Wait for the answer to the last plant_actuate, if one is due. */
int plant_sense(plant *p, const volatile int *stop);

#endif
