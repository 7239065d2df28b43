#define _XOPEN_SOURCE 700
#include "plant.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../plant_message.h"

enum { ANSWER_HEADER = 4 };

int plant_connect(plant *p, const char *path) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof a.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  strcpy(a.sun_path, path);
  p->fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (p->fd < 0) return -1;
  p->inputs = KZ_IN_NO_SAMPLE;
  return connect(p->fd, (struct sockaddr *)&a, sizeof a);
}

static int send_all(int fd, const uint8_t *data, size_t n, const volatile int *stop) {
  while (n) {
    const ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR && !*stop) continue;
    if (sent <= 0) return -1;
    data += sent;
    n -= (size_t)sent;
  }
  return 0;
}

static int receive_all(int fd, uint8_t *data, size_t n, const volatile int *stop) {
  while (n) {
    const ssize_t got = recv(fd, data, n, 0);
    if (got < 0 && errno == EINTR && !*stop) continue;
    if (got <= 0) return -1;
    data += got;
    n -= (size_t)got;
  }
  return 0;
}

int plant_actuate(plant *p, const kz_output *o, const volatile int *stop) {
  uint8_t buf[PLANT_MESSAGE(KZ_NODE_CH)];
  if (p->fd < 0) {
    plant_ideal(p->sensors, o, p->n_channels, p->n_sensors);
    return 0;
  }
  plant_message(buf, o, p->n_channels, p->tick_us);
  p->due = 1;
  return send_all(p->fd, buf, PLANT_MESSAGE(p->n_channels), stop);
}

int plant_sense(plant *p, const volatile int *stop) {
  uint8_t buf[ANSWER_HEADER + 4 * KZ_NODE_SENSORS];
  uint8_t i;
  if (!p->due) return 0;
  p->due = 0;
  if (receive_all(p->fd, buf, ANSWER_HEADER + 4u * p->n_sensors, stop) != 0) return -1;
  if (buf[1] != p->n_sensors) {
    errno = EPROTO;
    return -1;
  }
  p->inputs = buf[0] & (KZ_IN_ESTOP | KZ_IN_ACTUATOR_FAULT | KZ_IN_SENSOR_FAULT);
  for (i = 0; i < p->n_sensors; ++i) p->sensors[i] = kz_get32s(buf + ANSWER_HEADER + 4 * i);
  return 0;
}
