/*
 * Maximum over windows, int8, four channels at a time with SSUB8 and SEL. Padding takes no part.
 */
#include "eq_dsp.h"
#include "eq_window.h"

static inline uint32_t max_of_four(const eq_patch_t *patch, const int8_t *at)
{
    uint32_t best = 0x80808080u;
    for (int32_t rows = patch->rows; rows > 0; rows--) {
        const int8_t *from = at;
        for (int32_t columns = patch->columns; columns > 0; columns--) {
            best = eq_max_quad(best, eq_load_quad(from));
            from += patch->step;
        }
        at += patch->row;
    }
    return best;
}

static inline int8_t max_of_one(const eq_patch_t *patch, const int8_t *at)
{
    int8_t best = INT8_MIN;
    for (int32_t rows = 0; rows < patch->rows; rows++) {
        for (int32_t columns = 0; columns < patch->columns; columns++) {
            const int8_t value = at[rows * patch->row + columns * patch->step];
            best = value > best ? value : best;
        }
    }
    return best;
}

static void max_of_window(const eq_patch_t *patch, int8_t *output)
{
    int32_t channel = 0;
    for (; patch->step - channel >= 4; channel += 4) {
        eq_store_quad(output + channel, max_of_four(patch, patch->first + channel));
    }
    for (; channel < patch->step; channel++) {
        output[channel] = max_of_one(patch, patch->first + channel);
    }
}

void eq_max_pool_s8_dsp(const eq_call_t *call)
{
    const uint32_t *shape = call->out->shape;
    int8_t *output = call->output;
    for (uint32_t y = 0; y < shape[0]; y++) {
        for (uint32_t x = 0; x < shape[1]; x++) {
            const eq_patch_t patch = eq_patch(call, y, x);
            max_of_window(&patch, output);
            output += shape[2];
        }
    }
    eq_clamp_bytes(call->output, eq_elements(call->out), call->op->clamp_min, call->op->clamp_max);
}
