// XXH3, compiled into the files that include this: nothing of it is linked.
#pragma once

#define XXH_INLINE_ALL
#include <xxhash.h>
