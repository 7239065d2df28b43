/* What avr.py calls; plain declarations, which cffi reads as they are. */
typedef struct board board;

typedef struct {
  uint64_t cycle;
  uint8_t number, returned; /* of the watched function; 0: it is entered */
  uint8_t r18_25[8];
  uint8_t memory[150]; /* at its second argument */
} board_event;

typedef struct {
  uint64_t cycle;
  uint8_t pin, level;
} board_edge;

board *board_new(const char *elf, const char *mcu);
void board_free(board *b);
int board_run(board *b, uint64_t until);
void board_reset(board *b);
void board_bootloader(board *b);
uint64_t board_cycle(const board *b);
uint32_t board_starts(const board *b);
uint8_t *board_memory(board *b);
uint8_t *board_flash(board *b);
void board_eeprom(board *b, uint8_t *four, int write);
void board_give(board *b, const uint8_t *data, uint32_t n);
uint32_t board_take(board *b, uint8_t *data);
void board_voltage(board *b, int channel, int millivolts);
void board_set_pin(board *b, char port, int pin, int level);
int board_pin(board *b, char port, int pin);
void board_record_edges(board *b, char port, int pin);
uint32_t board_edges(board *b, board_edge *edges);
void board_watch(board *b, uint32_t address, int number);
const board_event *board_events(board *b, uint32_t *n);
