/* The vocabulary for WebAssembly with relaxed SIMD. clang (zig: wasm32, generic+simd128+relaxed_simd). */
#ifndef SP_ISA_H
#define SP_ISA_H

#include "wasm_relaxed_base.h"
#include "wasm_halves.h"

#define SP_ISA_NAME "wasm_relaxed"

#endif
