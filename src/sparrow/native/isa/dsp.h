/* The vocabulary for cores with the DSP extension: Cortex-M4, M7, M33, M35P. */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "dsp_base.h"

#define SP_ISA_NAME "dsp"
/* A count goes down to 0 without a register for the end: 6 to 10 % of 1x1 layers. */
#define SP_COUNTS_QUADS 1

#endif
