/*
 * Addition, int8, in affine form with SMLAWx: equal to the portable kernel for the constants that
 * edgeq/affine.py proves by enumeration. The output may be either input.
 */
#include "eq_dsp.h"
#include "eq_kernel.h"

/* What a byte is multiplied by stands in the upper byte of its half. */
#define UPPER 0xFF00FF00u

typedef struct {
    int32_t first;
    int32_t second;
    int32_t offset;
} eq_affine_t;

static inline int32_t low(eq_affine_t form, uint32_t a, uint32_t b)
{
    const int32_t sum = eq_smlawb(form.second, b, eq_smlawb(form.first, a, form.offset));
    return eq_ssat8_affine(sum);
}

static inline int32_t high(eq_affine_t form, uint32_t a, uint32_t b)
{
    const int32_t sum = eq_smlawt(form.second, b, eq_smlawt(form.first, a, form.offset));
    return eq_ssat8_affine(sum);
}

static inline void add_quads(eq_affine_t form, uint32_t a, uint32_t b, int8_t *output)
{
    const uint32_t a_even = a << 8 & UPPER;
    const uint32_t b_even = b << 8 & UPPER;
    const uint32_t a_odd = a & UPPER;
    const uint32_t b_odd = b & UPPER;
    output[0] = (int8_t)low(form, a_even, b_even);
    output[1] = (int8_t)low(form, a_odd, b_odd);
    output[2] = (int8_t)high(form, a_even, b_even);
    output[3] = (int8_t)high(form, a_odd, b_odd);
}

void eq_add_affine_s8_dsp(const eq_call_t *call)
{
    const eq_affine_t form = {call->multiplier[0], call->multiplier[1], call->multiplier[2]};
    const int8_t *a = call->input[0];
    const int8_t *b = call->input[1];
    const uint32_t count = eq_elements(call->out);
    int8_t *output = call->output;
    uint32_t i = 0;
    for (; count - i >= 8; i += 8) {
        add_quads(form, eq_load_quad(a + i), eq_load_quad(b + i), output + i);
        add_quads(form, eq_load_quad(a + i + 4), eq_load_quad(b + i + 4), output + i + 4);
    }
    for (; i < count; i++) {
        output[i] = (int8_t)low(form, (uint32_t)a[i] << 8, (uint32_t)b[i] << 8);
    }
    eq_clamp_bytes(output, count, call->op->clamp_min, call->op->clamp_max);
}
