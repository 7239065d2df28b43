/* kz_node — sessions, failsafe and guarded setpoints on the microcontroller (docs/protocol.md).
 *
 * A board is a const struct of function pointers, not a set of extern functions: it costs a few words of flash,
 * and lets one process run many nodes on virtual boards, which is how the state machine is tested.
 *
 * The node knows no clock of its own: whoever drives it says what time it is. Bytes go in through kz_node_rx,
 * time through kz_node_tick; kz_node_poll does both from the board's functions and is a firmware's main loop.
 * C99, no malloc, no floats, no libc but memcpy/memset. Not reentrant: call everything from one context.
 */
#ifndef KZ_NODE_H
#define KZ_NODE_H

#include "kz_channel.h"
#include "kz_codes.h"
#include "kz_wire.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Capacity; a firmware sets both to what it has. */
#ifndef KZ_NODE_CH
#define KZ_NODE_CH KZ_MAX_CH
#endif
#ifndef KZ_NODE_SENSORS
#define KZ_NODE_SENSORS 64
#endif

#define KZ_LIMITS_BYTES 28
#define KZ_STATE_HEADER 28
#define KZ_VALUES_PER_PAGE ((KZ_MAX_PAYLOAD - KZ_STATE_HEADER) / 4)

/* The longest payload the node sends: one STATE with every value, or a full page of them. */
#if KZ_NODE_CH + KZ_NODE_SENSORS > KZ_VALUES_PER_PAGE
#define KZ_TX_PAYLOAD KZ_MAX_PAYLOAD
#else
#define KZ_TX_PAYLOAD (KZ_STATE_HEADER + 4 * (KZ_NODE_CH + KZ_NODE_SENSORS))
#endif

/* What the sense hook reports beside the values. */
enum { KZ_IN_ESTOP = 1, KZ_IN_ACTUATOR_FAULT = 2, KZ_IN_SENSOR_FAULT = 4, KZ_IN_NO_SAMPLE = 8 };

/* What the actuate hook gets, every tick. */
typedef struct {
  uint32_t t_us;
  uint32_t session;          /* 0 when there is none */
  const int32_t *out;        /* interpolated between setpoints: drive this */
  const kz_channel *channel; /* kz_channel_sent: setpoint of this period, reached on its last tick */
  uint16_t enabled;          /* bit per channel; a channel that is off must be without torque */
  uint8_t state;
  uint8_t boundary; /* 1 on the tick that a new setpoint was applied */
} kz_output;

typedef struct {
  /* The port: five functions. read: at most `room` bytes that have arrived, 0 if none. write: one whole frame,
   * never blocks; a frame that does not fit is dropped whole. us: free-running timer. idle: wait for the next
   * tick. kick: the watchdog. */
  uint16_t (*read)(void *ctx, uint8_t *buf, uint16_t room);
  void (*write)(void *ctx, const uint8_t *frame, uint16_t n);
  uint32_t (*us)(void *ctx);
  void (*idle)(void *ctx);
  void (*kick)(void *ctx);
  /* The machine. sense fills n_sensors raw values, the first n_channels of them the measured positions, and
   * returns KZ_IN_ bits. */
  void (*actuate)(void *ctx, const kz_output *o);
  uint8_t (*sense)(void *ctx, int32_t *sensors);

  const uint8_t *schema; /* zlib-compressed JSON */
  uint16_t schema_len;
  uint8_t n_channels, n_sensors; /* n_channels <= n_sensors */
  uint32_t tick_us;              /* nominal time between ticks; the period must be a multiple of it */
  const uint8_t *modes;          /* KZ_MODE_ of each channel; null: all take positions */
} kz_board;

/* Small and often used members come first: Thumb-1 reaches bytes at 0-31, halves at 0-62, words at 0-124 in one step. */
typedef struct {
  uint8_t state, fault, reset_cause, inputs, miss_budget, budget_used, window;
  uint8_t greeted, commanded, pending_valid, stopping, retreating; /* flags */

  uint16_t tx_seq, arm_seq, clear_seq, command_seq, pending_seq, applied_seq;
  uint16_t ttl_max_ms, arm_ttl_ms;
  uint16_t enabled, brake_first, staged, clamped; /* bit per channel */
  uint16_t moving;                                /* measured to move faster than recovery speed */
  uint16_t ignored, misses, stale;                /* these wrap */

  const kz_board *board;
  void *ctx;
  uint32_t boot_id, schema_hash, limits_hash, random, nonce, session;
  uint32_t now;        /* time of the last tick */
  uint32_t due;        /* next period boundary */
  uint32_t started;    /* the last one */
  uint32_t armed_at;   /* ARM accepted */
  uint32_t deadline;   /* of the newest COMMAND */
  uint32_t last_obs;   /* its observation stamp */
  uint32_t armed_with; /* nonce that the session was armed with */
  uint32_t cleared_with;
  uint32_t period_us;
  uint32_t late; /* boundaries that were skipped because a tick came late */

  kz_channel channel[KZ_NODE_CH];
  int32_t pending[KZ_NODE_CH]; /* newest COMMAND of this period */
  int32_t out[KZ_NODE_CH];
  int32_t last[KZ_NODE_CH]; /* positions measured when the motion window began */
  int32_t sensors[KZ_NODE_SENSORS];
  kz_decoder rx;
  uint8_t upload[KZ_NODE_CH][KZ_LIMITS_BYTES]; /* staged LIMITS payloads, as they came */
  uint8_t tx[KZ_TX_PAYLOAD + KZ_OVERHEAD];
} kz_node;

/* Returns 0 if the board has more channels or sensors than this build holds, or an unknown mode. boot_id must differ from boot to
 * boot (random, or a counter in non-volatile memory): the nonces start from it. */
int kz_node_init(kz_node *n, const kz_board *board, void *ctx, uint32_t boot_id, uint8_t reset_cause);

/* Bytes from the host, whenever they come. Answers are written at once. */
void kz_node_rx(kz_node *n, const uint8_t *data, uint16_t len);

/* One tick at `now_us` (wraps): sense, check, apply a setpoint if a period is over, actuate, report. */
void kz_node_tick(kz_node *n, uint32_t now_us);

/* Main loop body: read, tick, kick, idle. */
void kz_node_poll(kz_node *n);

#ifdef __cplusplus
}
#endif
#endif
