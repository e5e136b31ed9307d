/*
 * Addition, int8, in portable C (TensorFlow Lite's ADD): both inputs go to a common scale with 20
 * bits of head-room, the sum to the output's. The output may be either input.
 */
#include "eq_kernel.h"

void eq_add_s8_ref(const eq_call_t *call)
{
    const int32_t *multiplier = call->multiplier;
    const eq_shift_t shift_0 = eq_shift(call->shift[0]);
    const eq_shift_t shift_1 = eq_shift(call->shift[1]);
    const eq_shift_t shift_out = eq_shift(call->shift[2]);
    const int32_t zero_0 = call->in[0]->zero_point;
    const int32_t zero_1 = call->in[1]->zero_point;
    const int32_t zero_out = call->out->zero_point;
    const int32_t low = call->op->clamp_min - zero_out;
    const int32_t high = call->op->clamp_max - zero_out;
    const uint32_t count = eq_elements(call->out);
    for (uint32_t i = 0; i < count; i++) {
        const int32_t a = (call->input[0][i] - zero_0) * (1 << EQ_ADD_LEFT_SHIFT);
        const int32_t b = (call->input[1][i] - zero_1) * (1 << EQ_ADD_LEFT_SHIFT);
        const int32_t sum =
            eq_requantize(a, multiplier[0], shift_0) + eq_requantize(b, multiplier[1], shift_1);
        const int32_t value = eq_requantize(sum, multiplier[2], shift_out);
        call->output[i] = (int8_t)(eq_clamp(value, low, high) + zero_out);
    }
}
