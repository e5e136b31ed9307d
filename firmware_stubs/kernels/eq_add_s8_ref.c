/*
 * Addition, int8, in portable C (TensorFlow Lite's ADD): both inputs go to a common scale with 20
 * bits of head-room, the sum to the output's. The output may be either input.
 */
#include "eq_kernel.h"

void eq_add_s8_ref(const eq_call_t *call)
{
    /* Copies: an int8 that is stored might alias what the call points to. */
    const int32_t multiplier[3] = {call->multiplier[0], call->multiplier[1], call->multiplier[2]};
    const eq_shift_t shift[3] = {eq_shift(call->shift[0]), eq_shift(call->shift[1]),
                                 eq_shift(call->shift[2])};
    const int8_t *input[2] = {call->input[0], call->input[1]};
    const int32_t zero[2] = {call->in[0]->zero_point, call->in[1]->zero_point};
    const int32_t zero_out = call->out->zero_point;
    const int32_t low = call->op->clamp_min - zero_out;
    const int32_t high = call->op->clamp_max - zero_out;
    const uint32_t count = eq_elements(call->out);
    int8_t *output = call->output;
    for (uint32_t i = 0; i < count; i++) {
        const int32_t a = (input[0][i] - zero[0]) * (1 << EQ_ADD_LEFT_SHIFT);
        const int32_t b = (input[1][i] - zero[1]) * (1 << EQ_ADD_LEFT_SHIFT);
        const int32_t sum =
            eq_requantize(a, multiplier[0], shift[0]) + eq_requantize(b, multiplier[1], shift[1]);
        const int32_t value = eq_requantize(sum, multiplier[2], shift[2]);
        output[i] = (int8_t)(eq_clamp(value, low, high) + zero_out);
    }
}
