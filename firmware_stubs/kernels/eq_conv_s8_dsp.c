/*
 * Convolution, int8, weights of 2..8 bits, with SMLAD. A channel's weights are unpacked once and
 * then meet every pixel; where two neighbours lie clear of the border, each weight that was loaded
 * meets both. A kernel row without dilation is one run of values.
 */
#include "eq_dsp.h"
#include "eq_unpack.h"
#include "eq_window.h"

/* Windows of at most so many values, in rows of fewer than SHORT_RUN, are copied to the stack. */
#define SMALL_WINDOW 32
#define SHORT_RUN 16

/* What is the same for every pixel of a channel. */
typedef struct {
    const eq_call_t *call;
    const int8_t *row;
    eq_stage_t stage;
    int32_t width;
    int32_t channels;
    uint32_t clear_first; /* columns of the output whose window lies inside the input */
    uint32_t clear_last;
} walk_t;

static uint32_t window_values(const eq_call_t *call)
{
    return (uint32_t)call->op->kernel_height * call->op->kernel_width * call->in[0]->shape[2];
}

/* Two dot products with the same weights. */
EQ_NOINLINE static void dot_two(const int8_t *weights, const int8_t *a, const int8_t *b,
                                int32_t count, int32_t zero_point, int32_t sums[2])
{
    const uint32_t offset = eq_pack(-zero_point, -zero_point);
    int32_t sum_a = sums[0];
    int32_t sum_b = sums[1];
    for (; count >= 4; count -= 4) {
        const uint32_t w = eq_load_quad(weights);
        const uint32_t x_a = eq_load_quad(a);
        const uint32_t x_b = eq_load_quad(b);
        const uint32_t even = eq_sxtb16(w);
        const uint32_t odd = eq_sxtb16_odd(w);
        sum_a = eq_smlad(even, eq_sxtab16(offset, x_a), sum_a);
        sum_b = eq_smlad(even, eq_sxtab16(offset, x_b), sum_b);
        sum_a = eq_smlad(odd, eq_sxtab16_odd(offset, x_a), sum_a);
        sum_b = eq_smlad(odd, eq_sxtab16_odd(offset, x_b), sum_b);
        weights += 4;
        a += 4;
        b += 4;
    }
    for (; count > 0; count--) {
        const int32_t w = *weights++;
        sum_a += w * (*a++ - zero_point);
        sum_b += w * (*b++ - zero_point);
    }
    sums[0] = sum_a;
    sums[1] = sum_b;
}

static int32_t window_sum(const walk_t *walk, eq_span_t rows, eq_span_t columns)
{
    const eq_operator_t *op = walk->call->op;
    const int32_t zero_point = walk->call->in[0]->zero_point;
    const int32_t runs = op->dilation_width == 1 ? 1 : columns.last - columns.first;
    const int32_t taps = op->dilation_width == 1 ? columns.last - columns.first : 1;
    int32_t sum = walk->stage.bias;
    for (int32_t ky = rows.first; taps > 0 && ky < rows.last; ky++) {
        const int32_t y = rows.start + ky * op->dilation_height;
        for (int32_t kx = columns.first; kx < columns.first + runs; kx++) {
            const int32_t x = columns.start + kx * op->dilation_width;
            const int32_t weight = (ky * op->kernel_width + kx) * walk->channels;
            const int32_t value = (y * walk->width + x) * walk->channels;
            sum = eq_dot_dsp(walk->row + weight, walk->call->input[0] + value,
                             taps * walk->channels, zero_point, sum);
        }
    }
    return sum;
}

/* Pixels x and x + 1 of a row, both clear of the left and right border, without dilation. */
static void two_pixels(const walk_t *walk, eq_span_t rows, uint32_t x, int8_t *output)
{
    const eq_operator_t *op = walk->call->op;
    const int32_t run = op->kernel_width * walk->channels;
    const int32_t step = op->stride_width * walk->channels;
    const int32_t left = (int32_t)x * op->stride_width - op->pad_left;
    int32_t sums[2] = {walk->stage.bias, walk->stage.bias};
    for (int32_t ky = rows.first; ky < rows.last; ky++) {
        const int32_t y = rows.start + ky * op->dilation_height;
        const int8_t *values = walk->call->input[0] + (y * walk->width + left) * walk->channels;
        dot_two(walk->row + ky * run, values, values + step, run, walk->call->in[0]->zero_point,
                sums);
    }
    output[0] = eq_finish(&walk->stage, sums[0]);
    output[walk->call->out->shape[2]] = eq_finish(&walk->stage, sums[1]);
}

/* The values under a window, the zero point outside the input, as one run of `count`. */
static void gather(const eq_call_t *call, eq_span_t rows, eq_span_t columns, int32_t count,
                   int8_t *patch)
{
    const eq_operator_t *op = call->op;
    const int32_t width = (int32_t)call->in[0]->shape[1];
    const int32_t channels = (int32_t)call->in[0]->shape[2];
    for (int32_t i = 0; i < count; i++) {
        patch[i] = (int8_t)call->in[0]->zero_point;
    }
    for (int32_t ky = rows.first; ky < rows.last; ky++) {
        const int32_t y = rows.start + ky * op->dilation_height;
        for (int32_t kx = columns.first; kx < columns.last; kx++) {
            const int32_t x = columns.start + kx * op->dilation_width;
            const int8_t *values = call->input[0] + (y * width + x) * channels;
            int8_t *to = patch + (ky * op->kernel_width + kx) * channels;
            for (int32_t i = 0; i < channels; i++) {
                to[i] = values[i];
            }
        }
    }
}

/* Small windows (a first layer's, as a rule): two are gathered and meet every channel. */
EQ_NOINLINE static void small_windows(const eq_call_t *call, uint32_t first, uint32_t end)
{
    const uint32_t *shape = call->out->shape;
    const int32_t count = (int32_t)window_values(call);
    const int32_t zero_point = call->in[0]->zero_point;
    int8_t patches[2][SMALL_WINDOW] = {{0}};
    int8_t *output = call->output + first * shape[1] * shape[2];
    for (uint32_t y = first; y < end; y++) {
        const eq_span_t rows = eq_clip_rows(call, y);
        for (uint32_t x = 0; x < shape[1]; x += 2) {
            const uint32_t pixels = x + 1 < shape[1] ? 2 : 1;
            const int8_t *row = (const int8_t *)call->weights;
            for (uint32_t i = 0; i < pixels; i++) {
                gather(call, rows, eq_clip_columns(call, x + i), count, patches[i]);
            }
            for (uint32_t channel = 0; channel < shape[2]; channel++) {
                const eq_stage_t stage = eq_stage(call, channel);
                int32_t sums[2] = {stage.bias, stage.bias};
                dot_two(row, patches[0], patches[1], count, zero_point, sums);
                for (uint32_t i = 0; i < pixels; i++) {
                    output[i * shape[2] + channel] = eq_finish(&stage, sums[i]);
                }
                row += count;
            }
            output += pixels * shape[2];
        }
    }
}

static void find_clear_columns(walk_t *walk)
{
    const uint32_t columns = walk->call->out->shape[1];
    if (walk->call->op->dilation_width != 1) {
        return; /* none: pairs of pixels need whole runs */
    }
    for (uint32_t x = 0; x < columns; x++) {
        const eq_span_t span = eq_clip_columns(walk->call, x);
        if (span.last - span.first == walk->call->op->kernel_width) {
            walk->clear_first = walk->clear_last == 0 ? x : walk->clear_first;
            walk->clear_last = x + 1;
        }
    }
}

EQ_NOINLINE static void large_windows(const eq_call_t *call, uint32_t first, uint32_t end)
{
    const uint32_t *shape = call->out->shape;
    const uint32_t channels = call->in[0]->shape[2];
    walk_t walk = {
        .call = call, .width = (int32_t)call->in[0]->shape[1], .channels = (int32_t)channels};
    find_clear_columns(&walk);
    for (uint32_t channel = 0; channel < shape[2]; channel++) {
        int8_t *output = call->output + first * shape[1] * shape[2] + channel;
        walk.row = eq_weight_row(call, channel, window_values(call));
        walk.stage = eq_stage(call, channel);
        for (uint32_t y = first; y < end; y++) {
            const eq_span_t rows = eq_clip_rows(call, y);
            for (uint32_t x = 0; x < shape[1];) {
                const uint32_t step = x >= walk.clear_first && x + 1 < walk.clear_last ? 2 : 1;
                if (step == 2) {
                    two_pixels(&walk, rows, x, output);
                } else {
                    const int32_t sum = window_sum(&walk, rows, eq_clip_columns(call, x));
                    *output = eq_finish(&walk.stage, sum);
                }
                output += step * shape[2];
                x += step;
            }
        }
    }
}

void eq_conv_s8_dsp(const eq_call_t *call)
{
    const uint32_t run = call->op->kernel_width * call->in[0]->shape[2];
    const int small = window_values(call) <= SMALL_WINDOW && run < SHORT_RUN;
    eq_run_rows(call, small && eq_stored_in_bytes(call->op) ? small_windows : large_windows);
}
