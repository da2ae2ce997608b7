/* The vocabulary for cores with the DSP extension: Cortex-M4, M7, M33, M35P. */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "dsp_base.h"

#define SP_ISA_NAME "dsp"

#endif
