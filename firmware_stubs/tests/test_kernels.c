/*
 * test_kernels.c - every kernel against a plain definition of its operator, bit for bit.
 *
 * The portable and the SMLAD kernels meet the same cases, so that they agree with each other; inputs
 * and outputs have 2..8 or 16 bits each, through eq_rows_s8_ref where they are packed. Every block has
 * its exact size and the tensors start at any address that their values allow, so that a sanitizer
 * sees a kernel that reads or writes too far, or aligned where it must not.
 */
#include <string.h>

#include "check.h"
#include "eq_image.h"
#include "eq_kernel.h"
#include "eq_overlap.h"
#include "eq_rows.h"
#include "vectors/lags.h"

static uint32_t state = 20261121u;

/// Plain definitions ///

/* ⌊a / 2^31⌋ and the like, by division. */
static int64_t floor_divide(int64_t a, int64_t b)
{
    const int64_t quotient = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

static int32_t naive_requantize(int32_t x, int32_t multiplier, int32_t shift)
{
    const int64_t left = INT64_C(1) << (shift > 0 ? shift : 0);
    const int64_t right = INT64_C(1) << (shift < 0 ? -shift : 0);
    const int64_t high = floor_divide(x * left * multiplier + (INT64_C(1) << 30), INT64_C(1) << 31);
    const int64_t magnitude = ((high < 0 ? -high : high) + right / 2) / right;
    return (int32_t)(high < 0 ? -magnitude : magnitude);
}

/* ⌊x · m / 2^s + 1/2⌋ with m the upper half of the multiplier, rounded, and at most 0x7FFF. */
static int32_t naive_requantize_wide(int64_t x, int32_t multiplier, int32_t shift)
{
    const int64_t rounded = ((int64_t)multiplier + 0x8000) / 0x10000;
    const int64_t unit = INT64_C(1) << (15 - shift);
    return (int32_t)floor_divide(x * (rounded < 0x7FFF ? rounded : 0x7FFF) + unit / 2, unit);
}

static int32_t naive_weight(const uint8_t *stream, uint32_t index, uint32_t bits)
{
    int32_t value = 0;
    for (uint32_t b = 0; b < bits; b++) {
        const uint32_t bit = index * bits + b;
        value |= (stream[bit / 8] >> bit % 8 & 1) << b;
    }
    return value >= 1 << (bits - 1) ? value - (1 << bits) : value;
}

/* The input under a tap, or the zero point outside. */
static int32_t naive_value(const eq_call_t *call, int32_t y, int32_t x, uint32_t channel)
{
    const uint32_t *shape = call->in[0]->shape;
    if (y < 0 || x < 0 || y >= (int32_t)shape[0] || x >= (int32_t)shape[1]) {
        return call->in[0]->zero_point;
    }
    return eq_get(call->input[0], call->in[0]->bits,
                  ((uint32_t)y * shape[1] + (uint32_t)x) * shape[2] + channel);
}

static int32_t naive_finish(const eq_call_t *call, int64_t sum, uint32_t channel)
{
    const int32_t multiplier = call->multiplier[channel], shift = call->shift[channel];
    const int64_t value =
        (call->in[0]->bits == 16 ? naive_requantize_wide(sum, multiplier, shift)
                                 : (int64_t)naive_requantize((int32_t)sum, multiplier, shift)) +
        call->out->zero_point;
    const int64_t low = call->op->clamp_min;
    const int64_t high = call->op->clamp_max;
    return (int32_t)(value < low ? low : value > high ? high : value);
}

static int32_t naive_conv(const eq_call_t *call, int32_t y, int32_t x, uint32_t channel,
                          int depthwise)
{
    const eq_operator_t *op = call->op;
    const uint32_t channels = call->in[0]->shape[2];
    const uint32_t depth = depthwise ? 1 : channels;
    int64_t sum = call->bias[channel];
    for (uint32_t k = 0; k < (uint32_t)op->kernel_height * op->kernel_width; k++) {
        const int32_t ty = y * op->stride_height - op->pad_top +
                           (int32_t)(k / op->kernel_width) * op->dilation_height;
        const int32_t tx = x * op->stride_width - op->pad_left +
                           (int32_t)(k % op->kernel_width) * op->dilation_width;
        for (uint32_t i = 0; i < depth; i++) {
            const uint32_t index = (channel * op->kernel_height * op->kernel_width + k) * depth + i;
            const uint32_t source = depthwise ? channel / (call->out->shape[2] / channels) : i;
            sum += naive_weight(call->weights, index, op->weight_bits) *
                   (naive_value(call, ty, tx, source) - call->in[0]->zero_point);
        }
    }
    return naive_finish(call, sum, channel);
}

static int32_t naive_fc(const eq_call_t *call, uint32_t channel)
{
    const uint32_t count = eq_elements(call->in[0]);
    int64_t sum = call->bias[channel];
    for (uint32_t i = 0; i < count; i++) {
        sum += naive_weight(call->weights, channel * count + i, call->op->weight_bits) *
               (eq_get(call->input[0], call->in[0]->bits, i) - call->in[0]->zero_point);
    }
    return naive_finish(call, sum, channel);
}

static int32_t naive_pool(const eq_call_t *call, int32_t y, int32_t x, uint32_t channel,
                          int average)
{
    const eq_operator_t *op = call->op;
    int32_t count = 0, sum = 0, best = INT16_MIN;
    for (int32_t k = 0; k < op->kernel_height * op->kernel_width; k++) {
        const int32_t ty = y * op->stride_height - op->pad_top + k / op->kernel_width;
        const int32_t tx = x * op->stride_width - op->pad_left + k % op->kernel_width;
        if (ty >= 0 && tx >= 0 && ty < (int32_t)call->in[0]->shape[0] &&
            tx < (int32_t)call->in[0]->shape[1]) {
            const int32_t value = naive_value(call, ty, tx, channel);
            count++;
            sum += value;
            best = value > best ? value : best;
        }
    }
    const int32_t magnitude = ((sum < 0 ? -sum : sum) * 2 + count) / (2 * count);
    const int32_t value = average ? (sum < 0 ? -magnitude : magnitude) : best;
    return value < op->clamp_min ? op->clamp_min : value > op->clamp_max ? op->clamp_max : value;
}

/// Cases ///

/* An operator with memory of its own; the call's pointers point into blocks. */
typedef struct {
    eq_operator_t op;
    eq_tensor_record_t in[2];
    eq_tensor_record_t out;
    eq_call_t call;
    void *blocks[8];
    uint32_t block_count;
} case_t;

static void *case_block(case_t *c, size_t bytes, size_t misalign)
{
    uint8_t *block = exact_block(bytes + misalign);
    c->blocks[c->block_count++] = block;
    return block + misalign;
}

static void case_free(case_t *c)
{
    for (uint32_t i = 0; i < c->block_count; i++) {
        free(c->blocks[i]);
    }
}

/* Bytes at random, or all of one extreme. */
static void fill(void *bytes, uint32_t count)
{
    static const uint8_t extremes[] = {0x80, 0x7F, 0xFF, 0x00, 0x55};
    uint8_t *to = bytes;
    const uint32_t kind = random_next(&state) % 8;
    for (uint32_t i = 0; i < count; i++) {
        to[i] = kind < sizeof extremes ? extremes[kind] : (uint8_t)random_next(&state);
    }
}

static int32_t least(uint32_t bits)
{
    return -(1 << (bits - 1));
}

static int16_t random_zero_point(uint32_t bits)
{
    if (bits == 16) {
        return 0;
    }
    const int32_t value = RANDOM_OF(&state, -128, -127, -3, 0, 5, 127);
    return (int16_t)eq_clamp(value, least(bits), -least(bits) - 1);
}

static void set_shape(eq_tensor_record_t *record, uint32_t height, uint32_t width,
                      uint32_t channels)
{
    record->shape[0] = height;
    record->shape[1] = width;
    record->shape[2] = channels;
    record->bits = (uint8_t)RANDOM_OF(&state, 8, 8, 8, 7, 5, 4, 4, 3, 2, 16, 16, 16);
    record->zero_point = random_zero_point(record->bits);
}

static uint32_t window_outputs(uint32_t size, uint32_t pads, uint32_t taps, uint32_t stride,
                               uint32_t dilation)
{
    const uint32_t span = dilation * (taps - 1) + 1;
    return size + pads < span ? 0 : (size + pads - span) / stride + 1;
}

static void random_window(eq_operator_t *op, int pool)
{
    op->kernel_height = (uint16_t)RANDOM_OF(&state, 1, 1, 2, 3, 3, 5);
    op->kernel_width = (uint16_t)RANDOM_OF(&state, 1, 1, 2, 3, 3, 5, 7);
    op->stride_height = (uint16_t)RANDOM_OF(&state, 1, 1, 2, 3);
    op->stride_width = (uint16_t)RANDOM_OF(&state, 1, 1, 2, 3);
    op->dilation_height = (uint16_t)(pool ? 1 : RANDOM_OF(&state, 1, 1, 1, 2, 3));
    op->dilation_width = (uint16_t)(pool ? 1 : RANDOM_OF(&state, 1, 1, 1, 2, 3));
    op->pad_top = (uint16_t)random_in(&state, 0, pool ? op->kernel_height - 1 : 6);
    op->pad_left = (uint16_t)random_in(&state, 0, pool ? op->kernel_width - 1 : 6);
}

/* 0 where the window does not fit. */
static int random_shapes(case_t *c, uint32_t channels, uint32_t outputs, int pool)
{
    eq_operator_t *op = &c->op;
    const uint32_t height = (uint32_t)random_in(&state, 1, 9);
    const uint32_t width = (uint32_t)random_in(&state, 1, 9);
    random_window(op, pool);
    const uint32_t bottom = (uint32_t)random_in(&state, 0, pool ? op->kernel_height - 1 : 6);
    const uint32_t right = (uint32_t)random_in(&state, 0, pool ? op->kernel_width - 1 : 6);
    const uint32_t out_height = window_outputs(height, op->pad_top + bottom, op->kernel_height,
                                               op->stride_height, op->dilation_height);
    const uint32_t out_width = window_outputs(width, op->pad_left + right, op->kernel_width,
                                              op->stride_width, op->dilation_width);
    set_shape(&c->in[0], height, width, channels);
    set_shape(&c->out, out_height, out_width, outputs);
    return out_height > 0 && out_width > 0 && out_height * out_width <= 120;
}

static void random_clamp(eq_operator_t *op, uint32_t bits)
{
    const int32_t low = least(bits);
    op->clamp_min = (int16_t)RANDOM_OF(&state, low, low, low / 6, 0);
    op->clamp_max = (int16_t)RANDOM_OF(&state, -low - 1, -low - 1, 0, -low / 3);
}

/* Tables of a weighted operator with `count` weights a channel; scales bring sums to about int8. */
static void random_tables(case_t *c, uint32_t count, uint32_t scratch_bytes)
{
    const uint32_t channels = c->out.shape[2];
    int32_t *bias = case_block(c, channels * 4, 0);
    int32_t *multiplier = case_block(c, channels * 4, 0);
    int8_t *shift = case_block(c, channels, 0);
    c->op.weight_bits = (uint8_t)random_in(&state, 2, 8);
    const uint32_t bytes = (count * channels * c->op.weight_bits + 7) / 8;
    uint8_t *weights = case_block(c, bytes, random_next(&state) % 4);
    fill(weights, bytes);
    for (uint32_t i = 0; i < channels; i++) {
        bias[i] = RANDOM_OF(&state, 0, 1000, -1000, 1 << 20, -(1 << 20), 77);
        multiplier[i] =
            random_next(&state) % 16 == 0 ? 0 : (1 << 30) + (int32_t)(random_next(&state) >> 2);
        shift[i] = (int8_t)RANDOM_OF(&state, 3, 1, 0, -1, -5, -7, -9, -11, -20, -31);
        if (c->in[0].bits == 16) { /* sums reach 2^31 unshifted */
            shift[i] = (int8_t)(shift[i] > 0 ? -12 - shift[i] : shift[i]);
        }
    }
    c->op.scratch_bytes = scratch_bytes;
    c->call.bias = bias;
    c->call.multiplier = multiplier;
    c->call.shift = shift;
    c->call.weights = weights;
}

/* Up to 3 bytes off, or 2 where values are words. */
static size_t misalign(const eq_tensor_record_t *tensor)
{
    return random_next(&state) % 4 & (tensor->bits == 16 ? 2u : 3u);
}

static void random_memory(case_t *c, uint32_t scratch_bytes)
{
    const uint32_t in_bytes = eq_tensor_bytes(&c->in[0]);
    int8_t *input = case_block(c, in_bytes, misalign(&c->in[0]));
    fill(input, in_bytes);
    random_clamp(&c->op, c->out.bits);
    c->call.op = &c->op;
    c->call.in[0] = &c->in[0];
    c->call.in[1] = &c->in[0];
    c->call.out = &c->out;
    c->call.input[0] = input;
    c->call.input[1] = input;
    c->call.output = case_block(c, eq_tensor_bytes(&c->out), misalign(&c->out));
    c->call.scratch = case_block(c, scratch_bytes, 0);
    memset(c->call.scratch, 0xA5, scratch_bytes);
}

static void describe(const case_t *c, char *text, size_t bytes)
{
    const eq_operator_t *op = &c->op;
    snprintf(text, bytes,
             "in %u×%u×%u of %d out %u×%u×%u of %d bits kernel %d×%d stride %d×%d dilation %d×%d "
             "pads %d,%d weights of %d",
             c->in[0].shape[0], c->in[0].shape[1], c->in[0].shape[2], c->in[0].bits,
             c->out.shape[0], c->out.shape[1], c->out.shape[2], c->out.bits, op->kernel_height,
             op->kernel_width, op->stride_height, op->stride_width, op->dilation_height,
             op->dilation_width, op->pad_top, op->pad_left, op->weight_bits);
}

static void check_output(const char *name, const case_t *c, const int32_t *expected)
{
    const uint32_t count = eq_elements(&c->out);
    for (uint32_t i = 0; i < count; i++) {
        const int32_t value = eq_get(c->call.output, c->out.bits, i);
        if (value != expected[i]) {
            char text[200];
            describe(c, text, sizeof text);
            CHECK(0, "%s: value %u is %d, expected %d (%s)", name, i, value, expected[i], text);
            return;
        }
    }
    const uint32_t per_byte = c->out.bits == 16 ? 1 : 8 / eq_width(c->out.bits);
    for (uint32_t i = count; i % per_byte != 0; i++) {
        CHECK(eq_get(c->call.output, c->out.bits, i) == 0, "%s: dirt behind the end", name);
    }
    CHECK(1, "%s", name);
}

/// Kernels ///

typedef struct {
    const char *name;
    eq_kernel_t kernel;
} tested_t;

static uint32_t scratch_for(const tested_t *tested, const case_t *c, uint32_t count)
{
    const uint32_t family = tested->kernel.family;
    const eq_rows_scratch_t rows = eq_rows_scratch(&c->op, family, &c->in[0], &c->in[1], &c->out);
    const uint32_t row = c->op.weight_bits == 8 ? 0 : count;
    const uint32_t own = tested->kernel.scratch == EQ_SCRATCH_PAIRS    ? 16 * ((count + 1) / 2)
                         : tested->kernel.scratch == EQ_SCRATCH_TABLES ? EQ_TABLES_BYTES
                         : tested->kernel.scratch == EQ_SCRATCH_STRIP
                             ? row + (uint32_t)eq_row(&c->in[0]) + 2 * (uint32_t)eq_row(&c->out)
                         : tested->kernel.scratch == EQ_SCRATCH_NONE || c->op.weight_bits == 8
                             ? 0
                             : count;
    return (uint32_t)(rows.input + rows.output) + own;
}

/* As eq_run does it. */
static void run_kernel(const eq_kernel_t *kernel, eq_call_t *call)
{
    call->kernel = kernel;
    if (eq_is_packed(call->in[0]) || eq_is_packed(call->in[1]) || eq_is_packed(call->out)) {
        eq_rows_s8_ref(call);
    } else {
        kernel->run(call);
    }
}

/* Runs a kernel with the output `distance` bytes behind the input, in one block of their own. */
static int8_t *run_over(case_t *c, const tested_t *tested, int64_t distance)
{
    const uint32_t in_bytes = eq_tensor_bytes(&c->in[0]), out_bytes = eq_tensor_bytes(&c->out);
    const uint32_t from = distance < 0 ? (uint32_t)-distance : 0;
    const uint32_t to = distance < 0 ? 0 : (uint32_t)distance;
    const uint32_t in_end = from + in_bytes, out_end = to + out_bytes;
    int8_t *block = exact_block(in_end > out_end ? in_end : out_end);
    eq_call_t call = c->call;
    memcpy(block + from, c->call.input[0], in_bytes);
    call.input[0] = call.input[1] = block + from;
    call.output = block + to;
    run_kernel(&tested->kernel, &call);
    int8_t *output = exact_block(out_bytes);
    memcpy(output, block + to, out_bytes);
    free(block);
    return output;
}

/* The least distance before the input, or behind it, if that is nearer than clear of it. */
static int least_distance(const case_t *c, const tested_t *tested, int before, int64_t *distance)
{
    const uint32_t order = eq_order(&tested->kernel, &c->in[0], &c->out);
    if (order == EQ_ORDER_NONE || (!before && !eq_by_rows(order))) {
        return 0;
    }
    const int64_t out_bytes = eq_tensor_bytes(&c->out), in_bytes = eq_tensor_bytes(&c->in[0]);
    const eq_lag_t lag = eq_lag(order, &c->op, &c->in[0], &c->out);
    *distance = before ? -(int64_t)lag.before : lag.after;
    if (before && *distance > in_bytes) {
        *distance = in_bytes; /* nothing is read after the first row is written */
    }
    return before ? *distance > -out_bytes : *distance < in_bytes;
}

/* The kernel as near to its input as it may be, and further off, with the scratch of the case. */
static void check_over(case_t *c, const tested_t *tested, const int32_t *expected)
{
    for (int before = 0; before < 2; before++) {
        int64_t distance;
        if (!least_distance(c, tested, before, &distance)) {
            continue;
        }
        const int64_t row = (int64_t)eq_row(&c->in[0]);
        const int64_t off = (before ? -distance : distance) % row; /* to whole rows */
        const int64_t some = random_in(&state, 1, (int32_t)row);
        const int64_t steps[] = {0, off > 0 ? row - off : -off, some, row + some};
        for (uint32_t i = 0; i < 4; i++) {
            int8_t *apart = c->call.output;
            c->call.output = run_over(c, tested, distance + (before ? -steps[i] : steps[i]));
            check_output(before ? "over its input" : "over its input, from the end", c, expected);
            free(c->call.output);
            c->call.output = apart;
        }
    }
}

/* Runs each kernel for such operands on the case, with scratch of exactly its size. */
static void check_kernels(case_t *c, const tested_t *kernels, uint32_t kernel_count, uint32_t count,
                          const int32_t *expected)
{
    const int wide = c->in[0].bits == 16 || c->out.bits == 16;
    for (uint32_t i = 0; i < kernel_count; i++) {
        if (wide != (kernels[i].kernel.activations == 16)) {
            continue;
        }
        const uint32_t bytes = scratch_for(&kernels[i], c, count);
        void *scratch = exact_block(bytes);
        memset(scratch, 0xA5, bytes);
        memset(c->call.output, 0x5A, eq_tensor_bytes(&c->out));
        c->call.scratch = scratch;
        run_kernel(&kernels[i].kernel, &c->call);
        check_output(kernels[i].name, c, expected);
        check_over(c, &kernels[i], expected);
        free(scratch);
    }
}

static void expect_conv(const case_t *c, int32_t *expected, int depthwise)
{
    const uint32_t *shape = c->out.shape;
    for (uint32_t i = 0; i < eq_elements(&c->out); i++) {
        expected[i] = naive_conv(&c->call, (int32_t)(i / shape[2] / shape[1]),
                                 (int32_t)(i / shape[2] % shape[1]), i % shape[2], depthwise);
    }
}

static void test_conv(uint32_t rounds)
{
    static const tested_t kernels[] = {
        {"eq_conv_s8_ref",
         {0, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, 8, EQ_ORDER_ROWS, eq_conv_s8_ref, NULL}},
        {"eq_conv_s8_dsp",
         {0, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, 8, EQ_ORDER_ROWS, eq_conv_s8_dsp, NULL}},
        {"eq_conv_s16_ref",
         {0, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, 16, EQ_ORDER_NONE, eq_conv_s16_ref, NULL}}};
    for (uint32_t i = 0; i < rounds; i++) {
        case_t c = {.block_count = 0};
        const uint32_t channels = (uint32_t)RANDOM_OF(&state, 1, 2, 3, 4, 5, 7, 8, 9);
        if (!random_shapes(&c, channels, (uint32_t)random_in(&state, 1, 5), 0)) {
            continue;
        }
        const uint32_t count = (uint32_t)c.op.kernel_height * c.op.kernel_width * channels;
        random_tables(&c, count, 0);
        random_memory(&c, 0);
        int32_t *expected = case_block(&c, eq_elements(&c.out) * sizeof *expected, 0);
        expect_conv(&c, expected, 0);
        check_kernels(&c, kernels, 3, count, expected);
        case_free(&c);
    }
}

/* Windows of 3×3 about the limits of the kernel that knows no others, and beyond them. */
static int three_by_three(case_t *c, uint32_t channels)
{
    eq_operator_t *op = &c->op;
    const uint32_t height = (uint32_t)random_in(&state, 1, 13);
    const uint32_t width = (uint32_t)random_in(&state, 1, 13);
    op->kernel_height = op->kernel_width = 3;
    op->stride_height = (uint16_t)RANDOM_OF(&state, 1, 1, 2, 2, 3);
    op->stride_width = random_next(&state) % 16 == 0 ? 1 : op->stride_height;
    op->dilation_height = op->dilation_width = random_next(&state) % 32 == 0 ? 2 : 1;
    op->pad_top = (uint16_t)RANDOM_OF(&state, 0, 0, 0, 1, 1, 1, 1, 2);
    op->pad_left = (uint16_t)RANDOM_OF(&state, 0, 0, 0, 1, 1, 1, 1, 2);
    const uint32_t bottom = (uint32_t)RANDOM_OF(&state, 0, 0, 0, 1, 1, 1, 1, 2);
    const uint32_t right = (uint32_t)RANDOM_OF(&state, 0, 0, 0, 1, 1, 1, 1, 2);
    const uint32_t out_height =
        window_outputs(height, op->pad_top + bottom, 3, op->stride_height, op->dilation_height);
    const uint32_t out_width =
        window_outputs(width, op->pad_left + right, 3, op->stride_width, op->dilation_width);
    set_shape(&c->in[0], height, width, channels);
    set_shape(&c->out, out_height, out_width, channels);
    return out_height > 0 && out_width > 0;
}

static void test_depthwise(uint32_t rounds)
{
    static const tested_t kernels[] = {
        {"eq_depthwise_s8_ref",
         {0, EQ_FAMILY_DEPTHWISE, EQ_SCRATCH_ROW, 8, EQ_ORDER_CHANNELS, eq_depthwise_s8_ref, NULL}},
        {"eq_depthwise_s8_dsp",
         {0, EQ_FAMILY_DEPTHWISE, EQ_SCRATCH_PAIRS, 8, EQ_ORDER_CHANNELS, eq_depthwise_s8_dsp,
          NULL}},
        {"eq_depthwise_s16_ref",
         {0, EQ_FAMILY_DEPTHWISE, EQ_SCRATCH_ROW, 16, EQ_ORDER_NONE, eq_depthwise_s16_ref, NULL}},
        {"eq_depthwise_3x3_s8_dsp",
         {0, EQ_FAMILY_DEPTHWISE, EQ_SCRATCH_STRIP, 8, EQ_ORDER_BUFFERED, eq_depthwise_3x3_s8_dsp,
          NULL}}};
    for (uint32_t i = 0; i < rounds; i++) {
        case_t c = {.block_count = 0};
        const uint32_t channels = (uint32_t)RANDOM_OF(&state, 1, 3, 4, 5, 7, 8, 9);
        const uint32_t multiplier = (uint32_t)RANDOM_OF(&state, 1, 1, 1, 2, 3);
        const int fits = i % 2 == 0 ? random_shapes(&c, channels, channels * multiplier, 0)
                                    : three_by_three(&c, channels);
        if (!fits) {
            continue;
        }
        const uint32_t count = (uint32_t)c.op.kernel_height * c.op.kernel_width;
        random_tables(&c, count, 0);
        random_memory(&c, 0);
        int32_t *expected = case_block(&c, eq_elements(&c.out) * sizeof *expected, 0);
        expect_conv(&c, expected, 1);
        check_kernels(&c, kernels, 4, count, expected);
        case_free(&c);
    }
}

/* Whether eq_init would let the output lie so far behind the input. */
static int allowed(const case_t *c, const tested_t *tested, int64_t distance)
{
    eq_tensor_record_t in = c->in[0], out = c->out;
    in.offset = 1u << 20;
    out.offset = (uint32_t)(in.offset + distance);
    const int64_t out_bytes = eq_tensor_bytes(&out), in_bytes = eq_tensor_bytes(&in);
    return distance <= -out_bytes || distance >= in_bytes ||
           eq_lies_over(eq_order(&tested->kernel, &in, &out), &c->op, &in, &out);
}

/* Inputs, weights and scales that let every byte that is lost show. */
static void lively(case_t *c, uint32_t count)
{
    int32_t *multiplier = case_block(c, c->out.shape[2] * 4, 0);
    int8_t *shift = case_block(c, c->out.shape[2], 0);
    int32_t *bias = case_block(c, c->out.shape[2] * 4, 0);
    uint8_t *weights = case_block(c, count * c->out.shape[2], 0);
    for (uint32_t i = 0; i < c->out.shape[2]; i++) {
        multiplier[i] = 1 << 30;
        shift[i] = (int8_t)RANDOM_OF(&state, -5, -3, -1);
        bias[i] = random_in(&state, -99, 99);
    }
    for (uint32_t i = 0; i < count * c->out.shape[2]; i++) {
        weights[i] = (uint8_t)(random_in(&state, 1, 9) * (random_next(&state) % 2 ? 1 : -1));
    }
    c->op.weight_bits = 8;
    c->call.multiplier = multiplier;
    c->call.shift = shift;
    c->call.bias = bias;
    c->call.weights = weights;
    random_memory(c, 0);
    for (uint32_t i = 0; i < eq_tensor_bytes(&c->in[0]); i++) {
        ((int8_t *)(uintptr_t)c->call.input[0])[i] = (int8_t)random_in(&state, -128, 127);
    }
    c->op.clamp_min = (int16_t)least(c->out.bits);
    c->op.clamp_max = (int16_t)(-1 - least(c->out.bits));
}

/* The number of values that differ where the output lies 8 bytes nearer than it may. */
static uint32_t lost_nearer(case_t *c, const tested_t *tested, uint32_t count, int before,
                            int64_t distance)
{
    uint32_t lost = 0;
    void *scratch = exact_block(scratch_for(tested, c, count));
    c->call.scratch = scratch;
    run_kernel(&tested->kernel, &c->call);
    int8_t *nearer = run_over(c, tested, before ? distance + 8 : distance - 8);
    for (uint32_t i = 0; i < eq_elements(&c->out); i++) {
        lost += eq_get(nearer, c->out.bits, i) != eq_get(c->call.output, c->out.bits, i);
    }
    free(nearer);
    free(scratch);
    return lost;
}

/* A shape class at the least distance that offsets of multiples of 8 allow, and nearer. */
static void check_least(const case_t *shape, const tested_t *tested, uint32_t count, int before)
{
    int64_t distance;
    if (!least_distance(shape, tested, before, &distance)) {
        return;
    }
    const int64_t up = before ? -distance : distance;
    const int64_t rounded = up < 0 ? up / 8 * 8 : (up + 7) / 8 * 8;
    distance = before ? -rounded : rounded;
    CHECK(allowed(shape, tested, distance), "%s: %d", tested->name, (int)distance);
    if (allowed(shape, tested, before ? distance + 8 : distance - 8)) {
        return; /* from the other side */
    }
    uint32_t lost = 0;
    for (uint32_t draw = 0; draw < 40 && lost == 0; draw++) {
        case_t c = *shape;
        lively(&c, count);
        lost = lost_nearer(&c, tested, count, before, distance);
        case_free(&c);
    }
    char text[200];
    describe(shape, text, sizeof text);
    CHECK(lost != 0, "%s is exact %s %d (%s)", tested->name, before ? "before" : "behind",
          (int)distance, text);
}

/*
 * Windows of 1 to 3 with all strides and pads, on all sizes about the blocks of the kernels. Left out
 * is what may lie nearer by chance: depthwise windows of one tap; depthwise layers and pools of 8
 * channels, where a shift of 8 keeps each channel to itself; pools of 16, which are read before one is
 * written; small windows, which eq_conv_s8_dsp gathers; eq_depthwise_3x3_s8_dsp, whose pairs of rows
 * may lie a row nearer in some shapes.
 */
static void test_least_distances(void)
{
    static const tested_t kernels[] = {
        {"eq_conv_s8_ref",
         {0, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, 8, EQ_ORDER_ROWS, eq_conv_s8_ref, NULL}},
        {"eq_conv_s8_dsp",
         {0, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, 8, EQ_ORDER_ROWS, eq_conv_s8_dsp, NULL}},
        {"eq_depthwise_s8_ref",
         {0, EQ_FAMILY_DEPTHWISE, EQ_SCRATCH_ROW, 8, EQ_ORDER_CHANNELS, eq_depthwise_s8_ref, NULL}},
        {"eq_depthwise_s8_dsp",
         {0, EQ_FAMILY_DEPTHWISE, EQ_SCRATCH_PAIRS, 8, EQ_ORDER_CHANNELS, eq_depthwise_s8_dsp,
          NULL}},
        {"eq_max_pool_s8_ref",
         {0, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, 8, EQ_ORDER_VALUES, eq_max_pool_s8_ref, NULL}},
        {"eq_average_pool_s8_ref",
         {0, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, 8, EQ_ORDER_VALUES, eq_average_pool_s8_ref, NULL}},
        {"eq_max_pool_s8_dsp",
         {0, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, 8, EQ_ORDER_VALUES, eq_max_pool_s8_dsp, NULL}},
        {"eq_average_pool_s8_dsp",
         {0, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, 8, EQ_ORDER_VALUES, eq_average_pool_s8_dsp, NULL}}};
    static const uint8_t bits[][2] = {{8, 8}, {8, 4}, {4, 8}, {4, 4}, {2, 4}};
    for (uint32_t i = 0; i < 3000; i++) {
        const tested_t *tested = &kernels[i % (sizeof kernels / sizeof kernels[0])];
        const int conv = tested->kernel.family == EQ_FAMILY_CONV;
        const int pool = tested->kernel.family == EQ_FAMILY_POOL;
        const uint8_t *width = bits[pool ? 0 : random_next(&state) % 5];
        case_t c = {.block_count = 0};
        const uint32_t channels =
            pool ? (uint32_t)RANDOM_OF(&state, 9, 17, 20)
                 : (uint32_t)(conv ? RANDOM_OF(&state, 16, 17, 33) : RANDOM_OF(&state, 9, 15, 16));
        const uint32_t outputs = conv ? (uint32_t)RANDOM_OF(&state, 8, 9, 15, 16, 17) : channels;
        const uint32_t side = (uint32_t)random_in(&state, 3, 7);
        eq_operator_t *op = &c.op;
        op->kernel_height = op->kernel_width = (uint16_t)random_in(&state, conv || pool ? 1 : 2, 3);
        op->stride_height = op->stride_width = (uint16_t)random_in(&state, 1, 2);
        op->dilation_height = op->dilation_width = 1;
        op->pad_top = op->pad_left = (uint16_t)random_in(&state, 0, op->kernel_width - 1);
        set_shape(&c.in[0], side, side, channels);
        const uint32_t size =
            window_outputs(side, 2u * op->pad_top, op->kernel_width, op->stride_width, 1);
        set_shape(&c.out, size, size, outputs);
        c.in[0].bits = width[0];
        c.out.bits = width[1];
        c.in[0].zero_point = c.out.zero_point = 0;
        const uint32_t taps = (uint32_t)op->kernel_height * op->kernel_width;
        check_least(&c, tested, conv ? taps * channels : taps, (int)(i / 6 % 2));
    }
}

/* overlap.py, to which the planner listens, and eq_overlap.h agree. */
static void test_lags(void)
{
    for (uint32_t i = 0; i < sizeof lag_rows / sizeof lag_rows[0]; i++) {
        const int32_t *row = lag_rows[i];
        const uint32_t order = (uint32_t)row[0];
        eq_operator_t op = {.kernel_height = (uint16_t)row[7], .kernel_width = (uint16_t)row[8]};
        eq_tensor_record_t in = {.bits = (uint8_t)row[15]}, out = {.bits = (uint8_t)row[16]};
        for (uint32_t axis = 0; axis < 3; axis++) {
            in.shape[axis] = (uint32_t)row[1 + axis];
            out.shape[axis] = (uint32_t)row[4 + axis];
        }
        op.stride_height = (uint16_t)row[9];
        op.stride_width = (uint16_t)row[10];
        op.dilation_height = (uint16_t)row[11];
        op.dilation_width = (uint16_t)row[12];
        op.pad_top = (uint16_t)row[13];
        op.pad_left = (uint16_t)row[14];
        const eq_lag_t lag = eq_lag(order, &op, &in, &out);
        const int32_t before = lag.before < -(1 << 30) ? -(1 << 30) : lag.before;
        const int32_t after = eq_by_rows(order) ? lag.after : 0;
        CHECK(before == row[17] && after == row[18], "row %u: lag %d, %d", i, before, after);
    }
}

static void test_fc(uint32_t rounds)
{
    static const tested_t kernels[] = {
        {"eq_fc_s8_ref", {0, EQ_FAMILY_FC, EQ_SCRATCH_ROW, 8, EQ_ORDER_NONE, eq_fc_s8_ref, NULL}},
        {"eq_fc_s8_dsp", {0, EQ_FAMILY_FC, EQ_SCRATCH_ROW, 8, EQ_ORDER_NONE, eq_fc_s8_dsp, NULL}},
        {"eq_fc_s16_ref",
         {0, EQ_FAMILY_FC, EQ_SCRATCH_ROW, 16, EQ_ORDER_NONE, eq_fc_s16_ref, NULL}}};
    for (uint32_t i = 0; i < rounds; i++) {
        case_t c = {.block_count = 0};
        const uint32_t count = i % 40 + 1;
        set_shape(&c.in[0], 1, 1, count);
        set_shape(&c.out, 1, 1, (uint32_t)random_in(&state, 1, 6));
        random_tables(&c, count, 0);
        random_memory(&c, 0);
        int32_t *expected = case_block(&c, eq_elements(&c.out) * sizeof *expected, 0);
        for (uint32_t channel = 0; channel < c.out.shape[2]; channel++) {
            expected[channel] = naive_fc(&c.call, channel);
        }
        check_kernels(&c, kernels, 3, count, expected);
        case_free(&c);
    }
}

/* One window over an image, of more or fewer taps than an int16 sums. */
static int global_pool(case_t *c, uint32_t channels)
{
    const uint32_t height = (uint32_t)random_in(&state, 1, 30);
    const uint32_t width =
        (uint32_t)RANDOM_OF(&state, 1, 8, 25, 254, 255, 256, 300, 510 / (int32_t)height);
    set_shape(&c->in[0], height, width, channels);
    set_shape(&c->out, 1, 1, channels);
    c->op.kernel_height = (uint16_t)height;
    c->op.kernel_width = (uint16_t)width;
    c->op.stride_height = c->op.stride_width = 1;
    c->op.dilation_height = c->op.dilation_width = 1;
    return 1;
}

static void test_pool(uint32_t rounds)
{
    static const tested_t kernels[2][3] = {
        {{"eq_max_pool_s8_ref",
          {0, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, 8, EQ_ORDER_VALUES, eq_max_pool_s8_ref, NULL}},
         {"eq_max_pool_s8_dsp",
          {0, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, 8, EQ_ORDER_VALUES, eq_max_pool_s8_dsp, NULL}},
         {"eq_max_pool_s16_ref",
          {0, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, 16, EQ_ORDER_NONE, eq_max_pool_s16_ref, NULL}}},
        {{"eq_average_pool_s8_ref",
          {0, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, 8, EQ_ORDER_VALUES, eq_average_pool_s8_ref, NULL}},
         {"eq_average_pool_s8_dsp",
          {0, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, 8, EQ_ORDER_VALUES, eq_average_pool_s8_dsp, NULL}},
         {"eq_average_pool_s16_ref",
          {0, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, 16, EQ_ORDER_NONE, eq_average_pool_s16_ref, NULL}}}};
    for (uint32_t i = 0; i < rounds; i++) {
        case_t c = {.block_count = 0};
        const uint32_t channels =
            (uint32_t)RANDOM_OF(&state, random_in(&state, 1, 19), 4 * random_in(&state, 4, 12));
        const int average = (int)(i % 2);
        const int fits = i % 16 < 14 ? random_shapes(&c, channels, channels, 1)
                                     : global_pool(&c, channels % 20 + 1);
        if (!fits) {
            continue;
        }
        c.out.bits = c.in[0].bits;
        random_memory(&c, 0);
        int32_t *expected = case_block(&c, eq_elements(&c.out) * sizeof *expected, 0);
        const uint32_t *shape = c.out.shape;
        for (uint32_t e = 0; e < eq_elements(&c.out); e++) {
            expected[e] = naive_pool(&c.call, (int32_t)(e / shape[2] / shape[1]),
                                     (int32_t)(e / shape[2] % shape[1]), e % shape[2], average);
        }
        check_kernels(&c, kernels[average], 3, 0, expected);
        case_free(&c);
    }
}

/*
 * The mean of n bytes, for every n whose sums an int16 holds: the least and greatest sums, and those
 * about each that lies halfway between two means; sixteen channels, each with a sum of its own.
 */
static void test_means(void)
{
    enum { MOST = 255, WIDE = 16, SUMS = 3 * 256 };
    eq_operator_t op = {.kernel_height = 1,
                        .stride_height = 1,
                        .stride_width = 1,
                        .dilation_height = 1,
                        .dilation_width = 1,
                        .clamp_min = INT8_MIN,
                        .clamp_max = INT8_MAX};
    eq_tensor_record_t in = {.rank = 4, .bits = 8}, out = in;
    static uint64_t memory[MOST * WIDE / 8];
    int8_t *values = (int8_t *)memory, means[WIDE];
    const eq_call_t call = {
        .op = &op, .in = {&in, &in}, .out = &out, .input = {values, values}, .output = means};
    set_shape(&out, 1, 1, WIDE);
    for (int32_t n = 1; n <= MOST; n++) {
        op.kernel_width = (uint16_t)n;
        set_shape(&in, 1, (uint32_t)n, WIDE);
        for (int32_t first = 0; first < SUMS; first += WIDE) {
            int32_t sums[WIDE];
            for (int32_t channel = 0; channel < WIDE; channel++) {
                const int32_t i = first + channel, mean = i / 3 + INT8_MIN;
                const int32_t sum = mean * n + (n - 1) / 2 + i % 3;
                const int32_t most = INT8_MAX * n;
                sums[channel] = sum < most ? sum : (i % 3 != 0 ? INT8_MIN * n : most);
                const int32_t each = (int32_t)floor_divide(sums[channel], n);
                for (int32_t tap = 0; tap < n; tap++) {
                    values[tap * WIDE + channel] =
                        (int8_t)(each + (tap < sums[channel] - each * n));
                }
            }
            eq_average_pool_s8_dsp(&call);
            for (int32_t channel = 0; channel < WIDE; channel++) {
                const int32_t mean = eq_round_away_divide(sums[channel], n);
                CHECK(means[channel] == mean, "%d / %d is %d", (int)sums[channel], (int)n,
                      means[channel]);
            }
        }
    }
}

/* The low bits of all values as the tensor has them. */
static void store(const eq_tensor_record_t *tensor, int8_t *data, const int32_t *values)
{
    for (uint32_t i = 0; i < eq_elements(tensor); i++) {
        const int8_t value = (int8_t)values[i];
        if (tensor->bits == 16) {
            ((int16_t *)(void *)data)[i] = (int16_t)values[i];
        } else if (eq_is_packed(tensor)) {
            eq_store_run(tensor, data, i, &value, 1);
        } else {
            data[i] = value;
        }
    }
}

/* TensorFlow Lite's ADD, or the affine form. */
static int32_t naive_add(const eq_call_t *call, int32_t a, int32_t b)
{
    const int32_t *multiplier = call->multiplier;
    if (call->kernel->family == EQ_FAMILY_AFFINE) {
        const int64_t terms = floor_divide((int64_t)multiplier[0] * a, 256) +
                              floor_divide((int64_t)multiplier[1] * b, 256);
        return eq_clamp((int32_t)floor_divide(terms + multiplier[2], 1 << 21), call->op->clamp_min,
                        call->op->clamp_max);
    }
    const int32_t unit = call->kernel->activations == 16 ? 1 << 15 : 1 << 20;
    const int32_t x = a - call->in[0]->zero_point;
    const int32_t y = b - call->in[1]->zero_point;
    const int32_t sum = naive_requantize(x * unit, multiplier[0], call->shift[0]) +
                        naive_requantize(y * unit, multiplier[1], call->shift[1]);
    const int32_t value = naive_requantize(sum, multiplier[2], call->shift[2]);
    return eq_clamp(value + call->out->zero_point, call->op->clamp_min, call->op->clamp_max);
}

/* A tensor of a kind that the kernel takes. */
static void set_bits(eq_tensor_record_t *tensor, const eq_kernel_t *kernel)
{
    if (kernel->activations == 16 || tensor->bits == 16) {
        tensor->bits = kernel->activations;
        tensor->zero_point = 0;
    }
}

/* Every pair of bytes, or every word with some; apart, or the output being either input. */
static void check_add(const tested_t *tested, const int32_t *multiplier, const int8_t *shift,
                      uint32_t aliased)
{
    enum { COUNT = 65536 };
    case_t c = {.block_count = 0};
    const int wide = tested->kernel.activations == 16;
    set_shape(&c.in[0], 1, 1, COUNT);
    set_shape(&c.in[1], 1, 1, COUNT);
    set_shape(&c.out, 1, 1, COUNT - random_next(&state) % 7);
    set_bits(&c.in[0], &tested->kernel);
    if (!wide) {
        set_bits(&c.in[1], &tested->kernel);
        set_bits(&c.out, &tested->kernel);
    }
    if (aliased != 0) { /* the output's place is an input's */
        c.out.bits = c.in[aliased - 1].bits;
        c.out.zero_point = c.in[aliased - 1].zero_point;
    }
    const int8_t shifts[] = {shift[0], shift[1], (int8_t)(wide ? shift[2] + 5 : shift[2])};
    random_memory(&c, scratch_for(tested, &c, 0));
    c.call.kernel = &tested->kernel;
    int8_t *a = case_block(&c, eq_tensor_bytes(&c.in[0]), c.in[0].bits == 16 ? 2 : 1);
    int8_t *b = case_block(&c, eq_tensor_bytes(&c.in[1]), 2);
    int32_t *values = case_block(&c, COUNT * sizeof *values, 0);
    int32_t *expected = case_block(&c, COUNT * sizeof *expected, 0);
    c.call.in[1] = &c.in[1];
    c.call.input[0] = a;
    c.call.input[1] = b;
    c.call.output = aliased == 0 ? c.call.output : aliased == 1 ? a : b;
    c.call.multiplier = multiplier;
    c.call.shift = shifts;
    for (uint32_t i = 0; i < COUNT; i++) {
        values[i] = (int32_t)i - 32768;
    }
    store(&c.in[0], a, values);
    for (uint32_t i = 0; i < COUNT; i++) {
        values[i] =
            (int32_t)(i / 256) - 128 + (c.in[1].bits == 16 ? (int32_t)(i * 40503u >> 8) : 0);
    }
    store(&c.in[1], b, values);
    for (uint32_t i = 0; i < eq_elements(&c.out); i++) {
        expected[i] = naive_add(&c.call, eq_get(a, c.in[0].bits, i), eq_get(b, c.in[1].bits, i));
    }
    run_kernel(&tested->kernel, &c.call);
    check_output(tested->name, &c, expected);
    case_free(&c);
}

static void test_add(uint32_t rounds)
{
    static const tested_t kernels[] = {
        {"eq_add_s8_ref",
         {0, EQ_FAMILY_ADD, EQ_SCRATCH_NONE, 8, EQ_ORDER_NONE, eq_add_s8_ref, NULL}},
        {"eq_add_table_s8_dsp",
         {0, EQ_FAMILY_ADD, EQ_SCRATCH_TABLES, 8, EQ_ORDER_NONE, eq_add_table_s8_dsp, NULL}},
        {"eq_add_s16_ref",
         {0, EQ_FAMILY_ADD, EQ_SCRATCH_NONE, 16, EQ_ORDER_NONE, eq_add_s16_ref, NULL}}};
    for (uint32_t i = 0; i < rounds; i++) {
        const int32_t multiplier[] = {(1 << 30) + (int32_t)(random_next(&state) >> 2),
                                      (1 << 30) + (int32_t)(random_next(&state) >> 2),
                                      (1 << 30) + (int32_t)(random_next(&state) >> 2)};
        const int8_t shift[] = {(int8_t)random_in(&state, -6, 0), (int8_t)random_in(&state, -6, 0),
                                (int8_t)RANDOM_OF(&state, -25, -22, -21, -19, -17, -15, -12)};
        check_add(&kernels[i % 3], multiplier, shift, i / 3 % 3);
    }
}

/* Half of the greatest factors and offsets that eq_init lets pass, or about those of a model. */
static void test_affine(uint32_t rounds)
{
    static const tested_t kernel = {
        "eq_add_affine_s8_dsp",
        {0, EQ_FAMILY_AFFINE, EQ_SCRATCH_NONE, 8, EQ_ORDER_NONE, eq_add_affine_s8_dsp, NULL}};
    static const int8_t shift[] = {0, 0, 0};
    for (uint32_t i = 0; i < rounds; i++) {
        const int32_t most = RANDOM_OF(&state, INT32_MAX - 1, 1 << 29, 1 << 27, 0);
        const int32_t multiplier[] = {RANDOM_OF(&state, most, most / 3, -most),
                                      RANDOM_OF(&state, most / 5, -most / 2, most / 7 * 2),
                                      RANDOM_OF(&state, most / 4, -most / 4, 1 << 20, -(5 << 21))};
        check_add(&kernel, multiplier, shift, i % 3);
    }
}

/* Runs at every offset and of every length, against values taken one at a time. */
static void test_runs(void)
{
    enum { COUNT = 41 };
    for (uint8_t bits = 2; bits <= 8; bits++) {
        const eq_tensor_record_t tensor = {.shape = {1, 1, COUNT}, .bits = bits};
        const uint32_t bytes = eq_tensor_bytes(&tensor);
        CHECK(bytes == (bits > 4 ? 41u : bits > 2 ? 21u : 11u), "%d bits: %u bytes", bits, bytes);
        for (uint32_t first = 0; first < COUNT; first++) {
            for (uint32_t count = 1; count <= COUNT - first; count++) {
                int8_t *data = exact_block(bytes);
                int8_t *buffer = exact_block(count);
                fill(data, bytes);
                const int8_t *run = eq_load_run(&tensor, data, first, count, buffer);
                for (uint32_t i = 0; i < count; i++) {
                    CHECK(run[i] == eq_get(data, bits, first + i), "value %u + %u", first, i);
                }
                free(buffer);
                free(data);
            }
        }
    }
}

/* What stands before a run stays, what shares its last byte becomes 0, all else stays. */
static void test_stores(void)
{
    enum { COUNT = 41 };
    for (uint8_t bits = 2; bits <= 4; bits++) {
        const eq_tensor_record_t tensor = {.shape = {1, 1, COUNT}, .bits = bits};
        const uint32_t bytes = eq_tensor_bytes(&tensor), per_byte = 8 / eq_width(bits);
        for (uint32_t first = 0; first < COUNT; first++) {
            for (uint32_t count = 1; count <= COUNT - first; count++) {
                int8_t *data = exact_block(bytes), *before = exact_block(bytes);
                int8_t *values = exact_block(count);
                const uint32_t shared = (first + count + per_byte - 1) / per_byte * per_byte;
                fill(data, bytes);
                fill(values, count);
                memcpy(before, data, bytes);
                eq_store_run(&tensor, data, first, values, count);
                for (uint32_t i = 0; i < bytes * per_byte; i++) {
                    const int inside = i >= first && i < first + count;
                    const int32_t value = inside ? eq_get(&values[i - first], bits, 0)
                                          : i >= first && i < shared ? 0
                                                                     : eq_get(before, bits, i);
                    CHECK(eq_get(data, bits, i) == value, "%d bits, value %u", bits, i);
                }
                free(values);
                free(before);
                free(data);
            }
        }
    }
}

int main(int argc, char **argv)
{
    const uint32_t rounds = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 4000u;
    if (rounds >= 1000) { /* fewer are for slow emulators, which see random cases alone */
        test_runs();
        test_stores();
        test_lags();
        test_least_distances();
    }
    test_conv(rounds);
    test_depthwise(rounds);
    test_fc(rounds);
    test_pool(rounds);
    test_means();
    test_add(rounds < 90 ? 3 : 90);
    test_affine(rounds < 90 ? 1 : 30);
    return check_report("test_kernels");
}
