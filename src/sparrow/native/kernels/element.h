/* Element types for kernels that are written once as a macro over them.
 *
 * A row M(name, T, A, W) says: elements are stored as T, handled as A, and summed in W. Half
 * types are handled in float; integer sums are taken in uint64_t, where they wrap, and cut to T.
 *   sp_get_<name>(const T *) -> A   sp_put_<name>(T *, A)
 *   sp_low_<name>(), sp_high_<name>()   least and greatest A, infinities where it has them */
#ifndef SP_ELEMENT_H
#define SP_ELEMENT_H

#include "../base.h"
#include "lane.h"
#include "scalar_math.h"

#define SP_HALF_TYPES(M) M(f16, uint16_t, float, float) M(bf16, uint16_t, float, float)
#define SP_REAL_TYPES(M) M(f32, float, float, float) M(f64, double, double, double)
#define SP_FLOAT_TYPES(M) SP_HALF_TYPES(M) SP_REAL_TYPES(M)
#define SP_INT_TYPES(M)              \
  M(i8, int8_t, int8_t, uint64_t)    \
  M(u8, uint8_t, uint8_t, uint64_t)  \
  M(i16, int16_t, int16_t, uint64_t) \
  M(u16, uint16_t, uint16_t, uint64_t) \
  M(i32, int32_t, int32_t, uint64_t) \
  M(u32, uint32_t, uint32_t, uint64_t) \
  M(i64, int64_t, int64_t, uint64_t) \
  M(u64, uint64_t, uint64_t, uint64_t)

#define SP_PLAIN_ACCESS(name, T, A, W)                       \
  SP_INLINE A sp_get_##name(const T *p) { return *p; }       \
  SP_INLINE void sp_put_##name(T *p, A x) { *p = x; }
SP_REAL_TYPES(SP_PLAIN_ACCESS)
SP_INT_TYPES(SP_PLAIN_ACCESS)

SP_INLINE float sp_inf_f32(void) { return sp_lane0(sp_from_bits_f32(sp_set1_i32(0x7f800000))); }
SP_INLINE float sp_low_f32(void) { return -sp_inf_f32(); }
SP_INLINE float sp_high_f32(void) { return sp_inf_f32(); }
SP_INLINE float sp_low_f16(void) { return -sp_inf_f32(); }
SP_INLINE float sp_high_f16(void) { return sp_inf_f32(); }
SP_INLINE float sp_low_bf16(void) { return -sp_inf_f32(); }
SP_INLINE float sp_high_bf16(void) { return sp_inf_f32(); }
SP_INLINE double sp_low_f64(void) { return -sp_inf_f64(); }
SP_INLINE double sp_high_f64(void) { return sp_inf_f64(); }
#define SP_LIMITS(name, A, low, high)              \
  SP_INLINE A sp_low_##name(void) { return low; }  \
  SP_INLINE A sp_high_##name(void) { return high; }
SP_LIMITS(i8, int8_t, INT8_MIN, INT8_MAX)
SP_LIMITS(u8, uint8_t, 0, UINT8_MAX)
SP_LIMITS(i16, int16_t, INT16_MIN, INT16_MAX)
SP_LIMITS(u16, uint16_t, 0, UINT16_MAX)
SP_LIMITS(i32, int32_t, INT32_MIN, INT32_MAX)
SP_LIMITS(u32, uint32_t, 0, UINT32_MAX)
SP_LIMITS(i64, int64_t, INT64_MIN, INT64_MAX)
SP_LIMITS(u64, uint64_t, 0, UINT64_MAX)

/* A into W and back; signed values reach W by sign extension. */
#define SP_FLOAT_SUM(name, T, A, W)                       \
  SP_INLINE W sp_widen_##name(A x) { return (W)x; }       \
  SP_INLINE A sp_narrow_##name(W x) { return (A)x; }      \
  SP_INLINE A sp_quotient_##name(W x, ptrdiff_t n) { return (A)(x / (W)n); }
SP_FLOAT_TYPES(SP_FLOAT_SUM)
#define SP_SIGNED_SUM(name, T, A, W)                                      \
  SP_INLINE W sp_widen_##name(A x) { return (W)(int64_t)x; }              \
  SP_INLINE A sp_narrow_##name(W x) { return (A)(int64_t)x; }             \
  SP_INLINE A sp_quotient_##name(W x, ptrdiff_t n) { return (A)((int64_t)x / (int64_t)n); }
SP_SIGNED_SUM(i8, int8_t, int8_t, uint64_t)
SP_SIGNED_SUM(i16, int16_t, int16_t, uint64_t)
SP_SIGNED_SUM(i32, int32_t, int32_t, uint64_t)
SP_SIGNED_SUM(i64, int64_t, int64_t, uint64_t)
#define SP_UNSIGNED_SUM(name, T, A, W)                      \
  SP_INLINE W sp_widen_##name(A x) { return (W)x; }         \
  SP_INLINE A sp_narrow_##name(W x) { return (A)x; }        \
  SP_INLINE A sp_quotient_##name(W x, ptrdiff_t n) { return (A)(x / (W)n); }
SP_UNSIGNED_SUM(u8, uint8_t, uint8_t, uint64_t)
SP_UNSIGNED_SUM(u16, uint16_t, uint16_t, uint64_t)
SP_UNSIGNED_SUM(u32, uint32_t, uint32_t, uint64_t)
SP_UNSIGNED_SUM(u64, uint64_t, uint64_t, uint64_t)

#endif
