/*
 * eq_fixed.h - rounding, saturation, multiplier and shift, defined once.
 *
 * The C twin of edgeq/fixedpoint.py; both are tested on the same golden vectors. The rules are
 * those of gemmlowp as TensorFlow Lite Micro uses them ("double rounding"). Right shifts of
 * negative values are arithmetic here, as every compiler for the cores that we name has them;
 * tests/test_fixed.c would show one that differs.
 */
#ifndef EQ_FIXED_H
#define EQ_FIXED_H

#include <stdint.h>

#define EQ_ADD_LEFT_SHIFT 20  /* head-room bits of both inputs of an addition */
#define EQ_AFFINE_FRACTION 21 /* bits below the point of an addition in affine form */

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

/* total / count, ties away from zero: the mean of an average pool. */
static inline int32_t eq_round_away_divide(int32_t total, int32_t count)
{
    const int32_t half = count / 2;
    return total < 0 ? -((half - total) / count) : (total + half) / count;
}

#endif
