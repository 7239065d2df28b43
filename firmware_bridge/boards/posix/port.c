#define _XOPEN_SOURCE 700
#define _DEFAULT_SOURCE
#include "port.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static int make_raw(const char *slave) {
  struct termios t;
  const int fd = open(slave, O_RDWR | O_NOCTTY);
  int rc;
  if (fd < 0) return -1;
  rc = tcgetattr(fd, &t);
  if (rc == 0) {
    cfmakeraw(&t);
    rc = tcsetattr(fd, TCSANOW, &t);
  }
  /* From this close until a host opens the slave, poll reports POLLHUP on the master. */
  close(fd);
  return rc;
}

/* Symlink under a temporary name and rename, so that the host never finds a half-made one. */
static int place_link(const char *slave, const char *link_path) {
  char scratch[4096];
  if (snprintf(scratch, sizeof scratch, "%s.new", link_path) >= (int)sizeof scratch) {
    errno = ENAMETOOLONG;
    return -1;
  }
  unlink(scratch);
  if (symlink(slave, scratch) != 0) return -1;
  return rename(scratch, link_path);
}

int port_plug(port *p) {
  const char *name;
  const int fd = posix_openpt(O_RDWR | O_NOCTTY);
  if (fd < 0) return -1;
  if (grantpt(fd) != 0 || unlockpt(fd) != 0 || !(name = ptsname(fd)) || strlen(name) >= sizeof p->slave ||
      fcntl(fd, F_SETFL, O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || make_raw(name) != 0 ||
      place_link(name, p->link) != 0) {
    const int why = errno;
    close(fd);
    errno = why;
    return -1;
  }
  strcpy(p->slave, name);
  p->fd = fd;
  p->queued = 0;
  p->host_open = 0;
  return 0;
}

void port_unplug(port *p) {
  if (p->fd < 0) return;
  unlink(p->link);
  close(p->fd);
  p->fd = -1;
  p->host_open = 0;
  p->queued = 0;
}

static void flush(port *p) {
  if (p->queued) {
    const ssize_t sent = write(p->fd, p->queue, p->queued);
    if (sent > 0) {
      p->queued -= (uint32_t)sent;
      memmove(p->queue, p->queue + sent, p->queued);
    }
  }
}

void port_poll(port *p) {
  struct pollfd f = {p->fd, POLLOUT, 0};
  if (p->fd < 0) return;
  poll(&f, 1, 0);
  p->host_open = !(f.revents & POLLHUP);
  if (p->host_open)
    flush(p);
  else
    p->queued = 0;
}

uint16_t port_read(port *p, uint8_t *buf, uint16_t room) {
  ssize_t got;
  if (p->fd < 0) return 0;
  got = read(p->fd, buf, room); /* EAGAIN: nothing there; EIO: no host */
  return got > 0 ? (uint16_t)got : 0;
}

void port_write(port *p, const uint8_t *frame, uint16_t n) {
  if (!p->host_open || p->queued + n > sizeof p->queue) {
    p->dropped++;
    return;
  }
  memcpy(p->queue + p->queued, frame, n);
  p->queued += n;
  flush(p);
}
