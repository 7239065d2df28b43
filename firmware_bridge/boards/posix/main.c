/* kz_posix_board — the firmware as a process: the node on a pty, its own clock, a plant behind a socket.
 *
 * Firmware time is virtual. It advances one tick a loop, paced to absolute deadlines of the monotonic clock. A tick
 * that is a little late (a desktop's timer) keeps its deadlines; after a stall they start anew, the tick is counted as
 * late and the time is not made up. Since the plant is stepped by firmware time too, a stalled test machine slows
 * everything down and bends nothing.
 */
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kz_node.h"
#include "plant.h"
#include "port.h"

#define SLACK_TICKS 4

static volatile sig_atomic_t unplug_asked, replug_asked;
static volatile int stop;

static void on_signal(int number) {
  if (number == SIGUSR1)
    unplug_asked = 1;
  else if (number == SIGUSR2)
    replug_asked = 1;
  else
    stop = 1;
}

typedef struct {
  port port;
  plant plant;
  uint32_t t_us, tick_us;
  int fast, plant_failed;
  struct timespec deadline;
  unsigned long long ticks, late;
} board;

static uint16_t board_read(void *ctx, uint8_t *buf, uint16_t room) { return port_read(&((board *)ctx)->port, buf, room); }

static void board_write(void *ctx, const uint8_t *frame, uint16_t n) { port_write(&((board *)ctx)->port, frame, n); }

static uint32_t board_us(void *ctx) { return ((board *)ctx)->t_us; }

static void board_kick(void *ctx) { (void)ctx; /* a process has no watchdog of its own */ }

static uint8_t board_sense(void *ctx, int32_t *sensors) {
  board *b = ctx;
  const plant *p = &b->plant;
  if (plant_sense(&b->plant, &stop) != 0) b->plant_failed = 1;
  memcpy(sensors, p->sensors, sizeof(int32_t) * p->n_sensors);
  return p->inputs;
}

static void board_actuate(void *ctx, const kz_output *o) {
  board *b = ctx;
  if (plant_actuate(&b->plant, o, &stop) != 0) b->plant_failed = 1;
}

static void board_idle(void *ctx) {
  board *b = ctx;
  struct timespec now;
  int64_t behind_ns;
  b->t_us += b->tick_us;
  b->ticks++;
  if (b->fast) return;
  b->deadline.tv_nsec += (long)(b->tick_us % 1000000u) * 1000;
  b->deadline.tv_sec += (time_t)(b->tick_us / 1000000u);
  if (b->deadline.tv_nsec >= 1000000000L) {
    b->deadline.tv_nsec -= 1000000000L;
    b->deadline.tv_sec++;
  }
  clock_gettime(CLOCK_MONOTONIC, &now);
  behind_ns = (int64_t)(now.tv_sec - b->deadline.tv_sec) * 1000000000 + (now.tv_nsec - b->deadline.tv_nsec);
  if (behind_ns > (int64_t)SLACK_TICKS * b->tick_us * 1000) {
    b->deadline = now;
    b->late++;
    return;
  }
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &b->deadline, NULL); /* a signal ends it early: harmless */
}

static void die(const char *what, const char *which) {
  fprintf(stderr, "kz_posix_board: %s %s: %s\n", what, which, strerror(errno));
  exit(1);
}

static void usage(const char *why) {
  fprintf(stderr,
          "kz_posix_board: %s\n"
          "usage: kz_posix_board --link PATH --schema FILE --channels N --sensors M\n"
          "                      [--modes pvt...] [--plant UNIX_SOCKET] [--tick-us 1000] [--boot-id N] [--fast]\n"
          "modes: p position, v velocity, t torque, a letter for each channel\n",
          why);
  exit(2);
}

static unsigned long number(const char *text, unsigned long least, unsigned long most) {
  char *end;
  unsigned long v;
  errno = 0;
  v = strtoul(text, &end, 0);
  if (errno || end == text || *end || text[0] == '-' || v < least || v > most) {
    char why[128];
    snprintf(why, sizeof why, "found `%.32s`, expected a whole number in %lu...%lu", text, least, most);
    usage(why);
  }
  return v;
}

static void read_modes(uint8_t *modes, const char *letters, uint8_t channels) {
  static const char known[] = {[KZ_MODE_POSITION] = 'p', [KZ_MODE_VELOCITY] = 'v', [KZ_MODE_TORQUE] = 't'};
  uint8_t i;
  if (strlen(letters) != channels) usage("--modes needs a letter for each channel");
  for (i = 0; i < channels; ++i) {
    const char *at = memchr(known, letters[i], sizeof known);
    if (!at) usage("--modes takes the letters p, v and t");
    modes[i] = (uint8_t)(at - known);
  }
}

static uint16_t load(const char *path, uint8_t *buf, size_t room) {
  FILE *f = fopen(path, "rb");
  size_t n;
  if (!f) die("schema", path);
  n = fread(buf, 1, room, f);
  if (ferror(f)) die("schema", path);
  fclose(f);
  if (n == room) {
    errno = EFBIG;
    die("schema", path);
  }
  return (uint16_t)n;
}

static void announce(const port *p) {
  printf("ready %s\n", p->slave);
  fflush(stdout);
}

int main(int argc, char **argv) {
  static const struct option options[] = {
      {"link", required_argument, 0, 'l'},    {"schema", required_argument, 0, 's'},
      {"channels", required_argument, 0, 'n'}, {"sensors", required_argument, 0, 'm'},
      {"modes", required_argument, 0, 'o'},   {"plant", required_argument, 0, 'p'},
      {"tick-us", required_argument, 0, 't'},
      {"boot-id", required_argument, 0, 'b'}, {"fast", no_argument, 0, 'f'},
      {0, 0, 0, 0}};
  static uint8_t schema[1 << 16];
  static uint8_t modes[KZ_NODE_CH];
  static kz_node node;
  static board b;
  kz_board hooks = {board_read, board_write, board_us, board_idle, board_kick, board_actuate, board_sense,
                    schema,     0,           0,        0,          1000,       modes};
  const char *schema_path = NULL, *plant_path = NULL, *mode_letters = NULL;
  struct sigaction action;
  uint32_t boot_id;
  int c;

  clock_gettime(CLOCK_REALTIME, &b.deadline);
  boot_id = (uint32_t)b.deadline.tv_nsec ^ ((uint32_t)b.deadline.tv_sec << 10);
  while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
    switch (c) {
      case 'l': b.port.link = optarg; break;
      case 's': schema_path = optarg; break;
      case 'n': hooks.n_channels = (uint8_t)number(optarg, 1, KZ_NODE_CH); break;
      case 'm': hooks.n_sensors = (uint8_t)number(optarg, 1, KZ_NODE_SENSORS); break;
      case 'o': mode_letters = optarg; break;
      case 'p': plant_path = optarg; break;
      case 't': hooks.tick_us = (uint32_t)number(optarg, 10, 1000000); break;
      case 'b': boot_id = (uint32_t)number(optarg, 0, 0xFFFFFFFFul); break;
      case 'f': b.fast = 1; break;
      default: usage("unknown option");
    }
  }
  if (!b.port.link || !schema_path || !hooks.n_channels || !hooks.n_sensors || optind != argc)
    usage("--link, --schema, --channels and --sensors are needed");
  if (mode_letters) read_modes(modes, mode_letters, hooks.n_channels);
  if (hooks.n_sensors < hooks.n_channels) usage("every channel needs a sensor: --sensors is less than --channels");

  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal; /* without SA_RESTART: a wait on the plant must end on SIGTERM */
  sigaction(SIGUSR1, &action, NULL);
  sigaction(SIGUSR2, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);

  hooks.schema_len = load(schema_path, schema, sizeof schema);
  b.tick_us = b.plant.tick_us = hooks.tick_us;
  b.plant.fd = -1;
  b.plant.n_channels = hooks.n_channels;
  b.plant.n_sensors = hooks.n_sensors;
  if (plant_path && plant_connect(&b.plant, plant_path) != 0) die("plant", plant_path);
  if (port_plug(&b.port) != 0) die("pty for", b.port.link);
  kz_node_init(&node, &hooks, &b, boot_id, KZ_RESET_POWER_ON); /* capacity was checked with the options */
  announce(&b.port);

  clock_gettime(CLOCK_MONOTONIC, &b.deadline);
  while (!stop && !b.plant_failed) {
    if (unplug_asked) {
      unplug_asked = 0;
      port_unplug(&b.port);
    }
    if (replug_asked) {
      replug_asked = 0;
      port_unplug(&b.port);
      if (port_plug(&b.port) != 0) die("pty for", b.port.link);
      announce(&b.port);
    }
    port_poll(&b.port);
    kz_node_poll(&node);
  }
  port_unplug(&b.port);
  fprintf(stderr, "kz_posix_board: %llu ticks, %llu late, %llu frames dropped%s\n", b.ticks, b.late,
          (unsigned long long)b.port.dropped, stop ? "" : "; the plant is gone");
  return stop ? 0 : 1;
}
