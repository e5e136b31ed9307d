/*
 * Two tensors joined along an axis, int8, in portable C. Each goes to the output's scale as in
 * TensorFlow Lite's QUANTIZE; equal scales copy.
 */
#include "eq_kernel.h"

/* From one input's integers to the output's. */
typedef struct {
    const int8_t *next;
    uint32_t run; /* elements in a row */
    int32_t zero_in;
    int32_t zero_out;
    int32_t multiplier;
    eq_shift_t shift;
    int32_t low; /* the clamp less the output's zero point */
    int32_t high;
} part_t;

/* Elements in a row: the axis and all behind it. */
static uint32_t run_of(const eq_tensor_record_t *tensor, uint32_t axis)
{
    uint32_t run = 1;
    for (uint32_t i = axis; i < 3; i++) {
        run *= tensor->shape[i];
    }
    return run;
}

static part_t part_of(const eq_call_t *call, uint32_t i)
{
    const int32_t zero_out = call->out->zero_point;
    const part_t part = {call->input[i],
                         run_of(call->in[i], call->op->parameter),
                         call->in[i]->zero_point,
                         zero_out,
                         call->multiplier[i],
                         eq_shift(call->shift[i]),
                         call->op->clamp_min - zero_out,
                         call->op->clamp_max - zero_out};
    return part;
}

/* A multiplier of 1 is stored as 2^30 with a shift of 1. */
static int copies(const part_t *part)
{
    return part->multiplier == 1 << 30 && part->shift.left == 1 &&
           part->zero_in == part->zero_out && part->low + part->zero_out == INT8_MIN &&
           part->high + part->zero_out == INT8_MAX;
}

static int8_t *append(part_t *part, int8_t *output)
{
    const int8_t *input = part->next;
    const uint32_t run = part->run;
    if (copies(part)) {
        for (uint32_t i = 0; i < run; i++) {
            output[i] = input[i];
        }
    } else {
        const part_t p = *part; /* a copy: an int8 that is stored might alias *part */
        for (uint32_t i = 0; i < run; i++) {
            const int32_t value = eq_requantize(input[i] - p.zero_in, p.multiplier, p.shift);
            output[i] = (int8_t)(eq_clamp(value, p.low, p.high) + p.zero_out);
        }
    }
    part->next = input + run;
    return output + run;
}

void eq_concat_s8_ref(const eq_call_t *call)
{
    part_t first = part_of(call, 0);
    part_t second = part_of(call, 1);
    int8_t *output = call->output;
    const int8_t *end = output + eq_elements(call->out);
    while (output != end) {
        output = append(&first, output);
        output = append(&second, output);
    }
}
