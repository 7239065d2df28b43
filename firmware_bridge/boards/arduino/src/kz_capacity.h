/* How many channels and sensors a node holds: by the board's RAM. A channel costs 85 bytes, a sensor 16. The library and
 * the sketch must agree, so a #define in a sketch does not help: change the numbers here, or give both to the compiler
 * for everything. */
#ifndef KZ_CAPACITY_H
#define KZ_CAPACITY_H

#ifdef __AVR__
#include <avr/io.h>
#endif

#ifndef KZ_NODE_CH
#if !defined(__AVR__)
#define KZ_NODE_CH 16
#define KZ_NODE_SENSORS 32
#elif RAMEND < 0x1000 /* Uno, Nano, Leonardo: 2 KiB */
#define KZ_NODE_CH 4
#define KZ_NODE_SENSORS 6
#else /* Mega: 8 KiB */
#define KZ_NODE_CH 8
#define KZ_NODE_SENSORS 12
#endif
#endif

#endif
