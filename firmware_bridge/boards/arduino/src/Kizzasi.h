#ifndef KIZZASI_H
#define KIZZASI_H

#include "KizzasiPort.h"
#include "kz_node.h"

#endif
