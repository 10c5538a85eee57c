/* The kernels for one type of feature map `T`; included by kernels.c once for each. All return 0, or 1 where memory
 * ran out. */
#include "norm.h"
#include "maps.h"
#include "loss.h"
