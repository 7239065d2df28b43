/* The board's serial port: the master side of a pty, with a symlink to the slave for the host to open. */
#ifndef KZ_POSIX_PORT_H
#define KZ_POSIX_PORT_H

#include <stdint.h>

typedef struct {
  const char *link;
  int fd; /* -1 while unplugged */
  int host_open;
  char slave[128];
  uint8_t queue[8192]; /* frames the kernel has not taken yet */
  uint32_t queued;
  uint64_t dropped; /* frames: unplugged, nobody listening, or no room */
} port;

/* Both return 0 on success, -1 with errno set. */
int port_plug(port *p);
void port_unplug(port *p);

/* Once a tick: is a host there, and does it take more of the queue? */
void port_poll(port *p);

uint16_t port_read(port *p, uint8_t *buf, uint16_t room);

/* Never blocks; a frame that does not fit is dropped whole. */
void port_write(port *p, const uint8_t *frame, uint16_t n);

#endif
