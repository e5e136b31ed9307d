/*
 * eq_fixed.h - rounding, saturation, multiplier and shift, defined once.
 *
 * The C twin of edgeq/fixedpoint.py; both are tested on the same golden vectors. The rules are
 * those of gemmlowp as TensorFlow Lite Micro uses them ("double rounding").
 */
#ifndef EQ_FIXED_H
#define EQ_FIXED_H

#include <stdint.h>

/*
 * C99 lets a compiler choose how it shifts negative values to the right (6.5.7). Here and in the
 * kernels the sign is kept; a compiler that does otherwise stops at this line.
 */
typedef char eq_right_shift_keeps_the_sign[(-1 >> 1) == -1 ? 1 : -1];

#define EQ_ADD_LEFT_SHIFT 20      /* head-room bits of both inputs of an addition */
#define EQ_ADD_LEFT_SHIFT_WIDE 15 /* where an operand has 16 bits */
#define EQ_AFFINE_FRACTION 21     /* bits below the point of an addition in affine form */

static inline int32_t eq_clamp(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : x > high ? high : x;
}

/* The rounded high word of 2·a·b, where a and b are not both −2^31. */
static inline int32_t eq_high_multiply_small(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + (INT64_C(1) << 30)) >> 31);
}

/* The rounded high word of 2·a·b, saturated (gemmlowp SaturatingRoundingDoublingHighMul). */
static inline int32_t eq_high_multiply(int32_t a, int32_t b)
{
    return a == INT32_MIN && b == INT32_MIN ? INT32_MAX : eq_high_multiply_small(a, b);
}

/* x / 2^exponent, ties away from zero (gemmlowp RoundingDivideByPOT); exponent in [0, 31]. */
static inline int32_t eq_rounding_shift_right(int32_t x, int32_t exponent)
{
    const int32_t mask = (int32_t)((UINT32_C(1) << exponent) - 1u);
    const int32_t threshold = (mask >> 1) + (x < 0);
    /* cppcheck-suppress shiftTooManyBitsSigned ; its sign is kept, as asserted above */
    return (x >> exponent) + ((x & mask) > threshold);
}

/* x · 2^exponent, saturated; exponent in [0, 31]. */
static inline int32_t eq_shift_left_saturate(int32_t x, int32_t exponent)
{
    const int64_t wide = (int64_t)x * (INT64_C(1) << exponent);
    return wide > INT32_MAX ? INT32_MAX : wide < INT32_MIN ? INT32_MIN : (int32_t)wide;
}

/* A shift as its two parts, of which one is 0. */
typedef struct {
    int32_t left;
    int32_t right;
} eq_shift_t;

static inline eq_shift_t eq_shift(int32_t shift)
{
    const eq_shift_t parts = {shift > 0 ? shift : 0, shift > 0 ? 0 : -shift};
    return parts;
}

/*
 * x · multiplier · 2^(left − right − 31) with double rounding (MultiplyByQuantizedMultiplier).
 * |x| · 2^left must be below 2^31, which eq_init checks; left in [0, 30], right in [0, 31].
 */
static inline int32_t eq_requantize(int32_t x, int32_t multiplier, eq_shift_t shift)
{
    const int32_t scaled = x * (int32_t)(UINT32_C(1) << shift.left);
    return eq_rounding_shift_right(eq_high_multiply_small(scaled, multiplier), shift.right);
}

/*
 * x · multiplier · 2^(left − right − 31) rounded once, ties up: sums of layers with 16-bit inputs
 * (the int64 MultiplyByQuantizedMultiplier, which reduces the multiplier to 15 bits). |x| < 2^47,
 * left in [0, 14], right in [0, 31], and the result an int32, which eq_init checks.
 */
static inline int32_t eq_requantize_wide(int64_t x, int32_t multiplier, eq_shift_t shift)
{
    const int32_t reduced = multiplier < 0x7FFF0000 ? (multiplier + (1 << 15)) >> 16 : 0x7FFF;
    const int32_t total = 15 - shift.left + shift.right;
    return (int32_t)((x * reduced + (INT64_C(1) << (total - 1))) >> total);
}

/* total / count, ties away from zero: the mean of an average pool. */
static inline int32_t eq_round_away_divide(int32_t total, int32_t count)
{
    const int32_t half = count / 2;
    return total < 0 ? -((half - total) / count) : (total + half) / count;
}

#endif
