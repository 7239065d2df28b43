#define _XOPEN_SOURCE 700
#include "plant.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { HEADER = 16, ANSWER_HEADER = 4 };

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

static void ideal(plant *p, const kz_output *o) {
  uint8_t i;
  for (i = 0; i < p->n_sensors; ++i) {
    const uint8_t c = (uint8_t)(i % p->n_channels);
    if ((uint32_t)o->enabled >> c & 1) p->sensors[i] = o->out[c];
  }
}

int plant_actuate(plant *p, const kz_output *o, const volatile int *stop) {
  uint8_t buf[HEADER + 8 * KZ_NODE_CH];
  const uint8_t n = p->n_channels;
  uint8_t i;
  if (p->fd < 0) {
    ideal(p, o);
    return 0;
  }
  kz_put32(buf, o->t_us);
  kz_put32(buf + 4, p->tick_us);
  buf[8] = o->enabled != 0;
  buf[9] = o->state;
  buf[10] = o->boundary;
  buf[11] = n;
  kz_put32(buf + 12, o->session);
  for (i = 0; i < n; ++i) {
    kz_put32(buf + HEADER + 4 * i, (uint32_t)o->out[i]);
    kz_put32(buf + HEADER + 4 * (n + i), (uint32_t)o->axis[i].q);
  }
  p->due = 1;
  return send_all(p->fd, buf, HEADER + 8u * n, stop);
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
