/*
 * Depthwise convolution 3×3, int8, weights of 2..8 bits, one channel at a time: vertical pairs of
 * inputs meet vertical pairs of weights in SMLAD, columns stream by, and of stride 1 two rows of
 * outputs share what they read.
 *
 * Outside the input lies the zero point: rows of it stand in scratch, columns of it are constants.
 */
#include "eq_depthwise.h"
#include "eq_dsp.h"

#define TAPS 9u

/* A channel: its weights by column as vertical pairs, and from sums to outputs. */
typedef struct {
    uint32_t upper[3]; /* rows 0 and 1 */
    uint32_t lower[3]; /* rows 1 and 2 */
    int32_t bias;      /* less the zero point's share */
    int32_t left;      /* where column 0 of the window lies outside */
    int32_t right;     /* to add where column 2 does */
    eq_requantize_t scale;
} channel_t;

/* A run of output columns, of one or two rows. */
typedef struct {
    const int8_t *row[4];
    int8_t *output[2];
    int32_t step;    /* from column to column, of input and output */
    int32_t columns; /* of the output, whose windows end inside */
    int32_t outside_left;
    int32_t outside_right;
} run_t;

/* Two sums: of the upper and of the lower row of outputs. */
typedef struct {
    int32_t up;
    int32_t down;
} sums_t;

/* A column of four inputs, as two pairs. */
typedef struct {
    uint32_t top;
    uint32_t bottom;
} column_t;

static inline column_t load_column(const int8_t *const row[4], int32_t at)
{
    const column_t column = {eq_pkhbt(row[0][at], row[1][at]), eq_pkhbt(row[2][at], row[3][at])};
    return column;
}

static inline sums_t add_column(uint32_t upper, uint32_t lower, column_t in, sums_t sums)
{
    sums.up = eq_smlad(upper, in.top, sums.up);
    sums.down = eq_smlabt(upper, in.top, sums.down);
    sums.up = eq_smlatb(lower, in.bottom, sums.up);
    sums.down = eq_smlad(lower, in.bottom, sums.down);
    return sums;
}

static inline void finish_two(const channel_t *channel, const run_t *run, int32_t at, sums_t sums)
{
    run->output[1][at] = (int8_t)eq_requantize_s8(channel->scale, sums.down);
    run->output[0][at] = (int8_t)eq_requantize_s8(channel->scale, sums.up);
}

/* Stride 1. */
EQ_NOINLINE static void run_two_rows(const channel_t *channel, const run_t *run)
{
    const channel_t c = *channel;
    const int8_t *const row[4] = {run->row[0], run->row[1], run->row[2], run->row[3]};
    const sums_t start = {c.bias, c.bias};
    const int32_t step = run->step;
    sums_t first = {c.left, c.left};
    int32_t at = 0;
    int32_t to = 0;
    if (!run->outside_left) {
        first = add_column(c.upper[0], c.lower[0], load_column(row, at), start);
        at += step;
    }
    column_t in = load_column(row, at);
    at += step;
    first = add_column(c.upper[1], c.lower[1], in, first);
    sums_t second = add_column(c.upper[0], c.lower[0], in, start);
    for (int32_t count = run->columns; count > 0; count--) {
        in = load_column(row, at);
        at += step;
        first = add_column(c.upper[2], c.lower[2], in, first);
        finish_two(&c, run, to, first);
        to += step;
        first = add_column(c.upper[1], c.lower[1], in, second);
        second = add_column(c.upper[0], c.lower[0], in, start);
    }
    if (run->outside_right) {
        first.up += c.right;
        first.down += c.right;
        finish_two(&c, run, to, first);
    }
}

/* Stride 2. */
EQ_NOINLINE static void run_row(const channel_t *channel, const run_t *run)
{
    const channel_t c = *channel;
    const int8_t *const row[3] = {run->row[0], run->row[1], run->row[2]};
    const int32_t step = run->step;
    int32_t sum = c.left;
    int32_t at = 0;
    int8_t *to = run->output[0];
    if (!run->outside_left) {
        sum = eq_smlad(c.upper[0], eq_pkhbt(row[0][at], row[1][at]), c.bias);
        sum = eq_smlatb(c.lower[0], (uint32_t)row[2][at], sum);
        at += step;
    }
    sum = eq_smlad(c.upper[1], eq_pkhbt(row[0][at], row[1][at]), sum);
    sum = eq_smlatb(c.lower[1], (uint32_t)row[2][at], sum);
    at += step;
    for (int32_t count = run->columns;;) {
        if (count == 0) {
            break;
        }
        const uint32_t top = eq_pkhbt(row[0][at], row[1][at]);
        const uint32_t bottom = (uint32_t)row[2][at];
        at += step;
        sum = eq_smlad(c.upper[2], top, sum);
        sum = eq_smlatb(c.lower[2], bottom, sum);
        *to = (int8_t)eq_requantize_s8(c.scale, sum);
        to += step;
        if (--count == 0 && !run->outside_right) {
            return;
        }
        sum = eq_smlad(c.upper[0], top, c.bias);
        sum = eq_smlatb(c.lower[0], bottom, sum);
        sum = eq_smlad(c.upper[1], eq_pkhbt(row[0][at], row[1][at]), sum);
        sum = eq_smlatb(c.lower[1], (uint32_t)row[2][at], sum);
        at += step;
    }
    if (run->outside_right) {
        *to = (int8_t)eq_requantize_s8(c.scale, sum + c.right);
    }
}

static int32_t column_sum(const int8_t *weights, uint32_t column)
{
    return weights[column] + weights[3 + column] + weights[6 + column];
}

static channel_t load_channel(const eq_call_t *call, uint32_t index)
{
    const int8_t *weights = eq_weight_row(call, index, TAPS);
    const int32_t zero_point = call->in[0]->zero_point;
    const int32_t multiplier = call->multiplier[index];
    channel_t channel;
    int32_t total = 0;
    for (uint32_t i = 0; i < 3; i++) {
        channel.upper[i] = eq_pack(weights[i], weights[3 + i]);
        channel.lower[i] = eq_pack(weights[3 + i], weights[6 + i]);
        total += column_sum(weights, i);
    }
    channel.bias = call->bias[index] - zero_point * total;
    channel.left = channel.bias + zero_point * column_sum(weights, 0);
    channel.right = zero_point * column_sum(weights, 2);
    channel.scale = eq_requantize_of(multiplier, multiplier == 0 ? -1 : call->shift[index],
                                     call->out->zero_point);
    return channel;
}

/* The row of zero points, in scratch behind unpacked weights. */
static int8_t *strip_of(const eq_call_t *call)
{
    return (int8_t *)call->scratch + (call->op->weight_bits == 8 ? 0 : TAPS);
}

static void fill_strip(const eq_call_t *call)
{
    int8_t *strip = strip_of(call);
    const uint32_t quad = 0x01010101u * (uint8_t)call->in[0]->zero_point;
    uint32_t count = call->in[0]->shape[1] * call->in[0]->shape[2];
    for (; count >= 4; count -= 4) {
        eq_store_quad(strip, quad);
        strip += 4;
    }
    for (; count > 0; count--) {
        *strip++ = (int8_t)quad;
    }
}

/* Columns that the last window has beyond the input. */
static int32_t beyond(const eq_call_t *call)
{
    const int32_t last = ((int32_t)call->out->shape[1] - 1) * call->op->stride_width;
    return last - call->op->pad_left + 3 - (int32_t)call->in[0]->shape[1];
}

/* A row of the input, or of its zero point. */
static const int8_t *input_row(const eq_call_t *call, int32_t y)
{
    const int32_t height = (int32_t)call->in[0]->shape[0];
    const int32_t row = (int32_t)(call->in[0]->shape[1] * call->in[0]->shape[2]);
    return y < 0 || y >= height ? strip_of(call) : call->input[0] + y * row;
}

/* All rows of a channel. */
static void run_channel(const eq_call_t *call, uint32_t index, const channel_t *channel)
{
    const uint32_t *shape = call->out->shape;
    const int32_t stride = call->op->stride_height;
    const int32_t rows = stride == 1 ? 2 : 1;
    const int32_t row = (int32_t)(shape[1] * shape[2]);
    run_t run;
    run.step = (int32_t)shape[2];
    run.outside_left = call->op->pad_left;
    run.outside_right = beyond(call) > 0;
    run.columns = (int32_t)shape[1] - run.outside_right;
    run.output[0] = call->output + index;
    for (int32_t y = 0; y < (int32_t)shape[0]; y += rows) {
        const int32_t top = y * stride - call->op->pad_top;
        for (int32_t i = 0; i < 2 + rows; i++) {
            run.row[i] = input_row(call, top + i) + index;
        }
        if (stride == 1) {
            run.output[1] = run.output[0] + (y + 1 < (int32_t)shape[0] ? row : 0);
            run_two_rows(channel, &run);
        } else {
            run_row(channel, &run);
        }
        run.output[0] += rows * row;
    }
}

/* Whether all windows are of the one kind; kernels.py asks the same. */
static int serves(const eq_call_t *call)
{
    const eq_operator_t *op = call->op;
    return op->kernel_height == 3 && op->kernel_width == 3 &&
           op->stride_height == op->stride_width && op->stride_height <= 2 &&
           op->dilation_height == 1 && op->dilation_width == 1 && op->pad_left <= 1 &&
           beyond(call) <= 1 && call->out->shape[2] == call->in[0]->shape[2];
}

void eq_depthwise_3x3_s8_dsp(const eq_call_t *call)
{
    const int all = serves(call);
    if (all) {
        fill_strip(call);
    }
    for (uint32_t i = 0; i < call->out->shape[2]; i++) {
        if (all && (call->multiplier[i] == 0 || eq_requantize_fits(call->shift[i]))) {
            const channel_t channel = load_channel(call, i);
            run_channel(call, i, &channel);
        } else {
            eq_depthwise_channel(call, i);
        }
    }
    eq_clamp_bytes(call->output, eq_elements(call->out), call->op->clamp_min, call->op->clamp_max);
}
