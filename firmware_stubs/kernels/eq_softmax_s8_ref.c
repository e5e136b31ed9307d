/*
 * Softmax over the channels, int8, in portable C: the C twin of fixedpoint.softmax. The output has
 * scale 1/256 and zero point -128, and may be the input.
 */
#include "eq_kernel.h"

#define INTEGER_BITS 5 /* differences to the maximum are Q5.26 */
#define SUM_BITS 12    /* sums of exponentials are Q12.19 */

/* exp(x) as Q0.31 for x <= 0 in Q5.26 (gemmlowp exp_on_negative_values). */
static int32_t exp_on_negative(int32_t x)
{
    static const int32_t factors[] = {/* exp(-2^i) for i from -2 */
                                      1672461947, 1302514674, 790015084, 290630308,
                                      39332535,   720401,     242};
    const int32_t quarter = 1 << (31 - INTEGER_BITS - 2);
    const int32_t third = 715827883;
    const int32_t centre = 1895147668; /* exp(-1/8), around which the series stands */
    const int32_t reduced = (x & (quarter - 1)) - quarter;
    const int32_t a = reduced * (1 << INTEGER_BITS) + (1 << 28);
    const int32_t a2 = eq_high_multiply(a, a);
    const int32_t a3 = eq_high_multiply(a2, a);
    const int32_t a4 = eq_high_multiply(a2, a2);
    const int32_t series = eq_high_multiply(eq_rounding_shift_right(a4, 2) + a3, third) + a2;
    int32_t result = centre + eq_high_multiply(a + eq_rounding_shift_right(series, 1), centre);
    if (x == 0) {
        return INT32_MAX;
    }
    const int32_t rest = reduced - x; /* a multiple of a quarter */
    for (uint32_t i = 0; i < sizeof factors / sizeof factors[0]; i++) {
        if ((rest >> (31 - INTEGER_BITS - 2)) & (1 << i)) {
            result = eq_high_multiply(result, factors[i]);
        }
    }
    return result;
}

/* 1 / (1 + x) as Q0.31 for x in [0, 1) as Q0.31: three Newton-Raphson steps (gemmlowp). */
static int32_t reciprocal_one_plus(int32_t x)
{
    const int32_t half_denominator = (int32_t)(((uint32_t)x + 0x80000000u) >> 1);
    /* 48/17 - 32/17·d as Q2.29 */
    int32_t estimate = 1515870810 + eq_high_multiply(half_denominator, -1010580540);
    for (int32_t i = 0; i < 3; i++) {
        const int32_t error = (1 << 29) - eq_high_multiply(half_denominator, estimate);
        estimate += eq_shift_left_saturate(eq_high_multiply(estimate, error), 2);
    }
    return eq_shift_left_saturate(estimate, 1);
}

/* exp of a kept difference as Q0.31. */
static int32_t exponential(const eq_call_t *call, int32_t difference)
{
    const int32_t scaled = difference * (int32_t)(UINT32_C(1) << call->shift[0]);
    return exp_on_negative(eq_high_multiply(scaled, call->multiplier[0]));
}

static void softmax_row(const eq_call_t *call, const int8_t *input, int8_t *output, uint32_t count)
{
    /* Differences below this one have probability 0. */
    const int32_t minimum = -((((1 << INTEGER_BITS) - 1) << (31 - INTEGER_BITS)) >> call->shift[0]);
    int32_t best = INT8_MIN;
    uint32_t total = 0;
    int32_t headroom = 0;
    for (uint32_t i = 0; i < count; i++) {
        best = input[i] > best ? input[i] : best;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (input[i] - best >= minimum) {
            total +=
                (uint32_t)eq_rounding_shift_right(exponential(call, input[i] - best), SUM_BITS);
        }
    }
    while ((total & 0x80000000u) == 0) { /* the maximum alone brings 2^19 */
        total <<= 1;
        headroom++;
    }
    const int32_t scale = reciprocal_one_plus((int32_t)(total - 0x80000000u));
    const int32_t exponent = SUM_BITS - headroom + 31 - 8;
    for (uint32_t i = 0; i < count; i++) {
        int32_t value = 0;
        if (input[i] - best >= minimum && exponent <= 31) {
            const int32_t share = eq_high_multiply(exponential(call, input[i] - best), scale);
            value = eq_rounding_shift_right(share, exponent);
        }
        output[i] = (int8_t)(eq_clamp(value, 0, 255) - 128);
    }
}

void eq_softmax_s8_ref(const eq_call_t *call)
{
    const uint32_t channels = call->in[0]->shape[2];
    const uint32_t count = eq_elements(call->in[0]);
    for (uint32_t i = 0; i < count; i += channels) {
        softmax_row(call, call->input[0] + i, call->output + i, channels);
    }
}
