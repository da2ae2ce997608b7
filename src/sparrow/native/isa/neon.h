/* The vocabulary for any AArch64 CPU. gcc >= 9, clang >= 9; no flag needed. */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "neon64.h"
#include "neon_pairs.h"

#define SP_ISA_NAME "neon"

#endif
