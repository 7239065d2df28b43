#ifndef APP_H
#define APP_H

/* Everything after CubeMX's initialisation. Returns only where something is broken; the watchdog bites then. */
void app_run(void);

#endif
