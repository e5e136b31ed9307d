/*
 * test_lanes.c - the kernels of the layouts "lanes" and "sixes" against the portable kernels on the
 * same weights, bit for bit, and what eq_init makes of weights that they are not exact for.
 *
 *     test_lanes [rounds]
 *
 * Whether a case is within the layout's limits is found with wide sums. Blocks have their exact size.
 */
#include "lanes.h"

static uint32_t state = 20261124u;

typedef struct {
    layer_t layer;
    int six;
    uint32_t units; /* of a segment */
} case_t;

/// What is exact ///

static uint32_t most_value(const layer_t *layer)
{
    return (1u << eq_width(layer->in.bits)) - 1u;
}

static int alone(const case_t *c)
{
    return !c->six && c->layer.out.shape[0] * c->layer.out.shape[1] == 1;
}

/* The lanes of channel c in steps first .. last, at the greatest values. */
static uint64_t lane_sum(const layer_t *layer, uint32_t channel, uint32_t first, uint32_t last)
{
    uint64_t sum = 0;
    for (uint32_t k = first; k < last && k < layer->count; k++) {
        const int32_t field = weight(layer, channel, k) + (1 << (layer->op.weight_bits - 1));
        sum += (uint32_t)field * most_value(layer);
    }
    return sum;
}

/* Whether lanes that begin so that the least sum is 0 hold the greatest. */
static int signed_lanes_hold(const layer_t *layer)
{
    int32_t least = 0, most = 0;
    for (uint32_t channel = 0; channel < layer->out.shape[2]; channel++) {
        int32_t low = 0, high = 0;
        for (uint32_t k = 0; k < layer->count; k++) {
            const int32_t w = weight(layer, channel, k);
            low += w < 0 ? 3 * w : 0;
            high += w > 0 ? 3 * w : 0;
        }
        least = low < least ? low : least;
        most = high > most ? high : most;
    }
    return most - least < 1024 && least > -1024;
}

/* Whether segments of so many units, counted from the end, stay within their lanes. */
static int lanes_hold(const case_t *c, uint32_t units)
{
    const uint32_t all = padded(c->layer.count, 8), width = c->six ? 10 : alone(c) ? 28 : 14;
    for (uint32_t channel = 0; channel < c->layer.out.shape[2]; channel++) {
        for (uint32_t end = all; end > 0; end = end > 8 * units ? end - 8 * units : 0) {
            const uint32_t first = end > 8 * units ? end - 8 * units : 0;
            if (lane_sum(&c->layer, channel, first, end) >> width != 0) {
                return 0;
            }
        }
    }
    return 1;
}

/* Whether the layout is exact for the layer: eq_init must find the same. */
static int within_limits(const case_t *c)
{
    const layer_t *layer = &c->layer;
    const uint32_t width = c->six ? 10 : alone(c) ? 24 : 14;
    if (!eq_is_packed(&layer->in) ||
        (c->six && (layer->op.weight_bits != 2 || layer->in.bits != 2)) ||
        (uint64_t)layer->count * most_value(layer) >> width != 0 ||
        !(c->six ? signed_lanes_hold(layer) : lanes_hold(c, c->units))) {
        return 0;
    }
    const int32_t low = -(1 << (eq_width(layer->in.bits) - 1u)), high = -low - 1;
    for (uint32_t channel = 0; channel < layer->out.shape[2]; channel++) {
        int64_t most = layer->bias[channel], least = layer->bias[channel];
        for (uint32_t k = 0; k < layer->count; k++) {
            const int32_t w = weight(layer, channel, k);
            const int32_t a = w * (high - layer->in.zero_point);
            const int32_t b = w * (low - layer->in.zero_point);
            most += a > b ? a : b;
            least += a > b ? b : a;
        }
        const int32_t shift = layer->shift[channel];
        if (shift > 7 || shift < -22) {
            return 0;
        }
        const int64_t limit = INT64_C(1) << (30 - (shift > 0 ? shift : 0));
        if (most >= limit || least <= -limit) {
            return 0;
        }
    }
    return 1;
}

/// Cases ///

static void set_tensor(eq_tensor_record_t *tensor, uint32_t height, uint32_t width,
                       uint32_t channels, uint32_t bits)
{
    const int32_t low = -(1 << (bits - 1));
    tensor->shape[0] = height;
    tensor->shape[1] = width;
    tensor->shape[2] = channels;
    tensor->bits = (uint8_t)bits;
    tensor->zero_point = (int16_t)RANDOM_OF(&state, low, low, low, 0, 1, -low - 1, low / 2);
}

static void random_shapes(case_t *c)
{
    layer_t *layer = &c->layer;
    eq_operator_t *op = &layer->op;
    const uint32_t kind = random_next(&state) % 8;
    const uint32_t in_bits = (uint32_t)RANDOM_OF(&state, 4, 4, 2, 2, 3, 8);
    const uint32_t out_bits = (uint32_t)RANDOM_OF(&state, 4, 4, 2, 2, 3, 8, 8, 6);
    const uint32_t features = (uint32_t)random_in(&state, 1, MOST_CHANNELS);
    const uint32_t around = (uint32_t)RANDOM_OF(&state, 8, 16, 24, 32, 40, 64, 96, 128, 160);
    layer->count = random_next(&state) % 3 == 0 ? (uint32_t)random_in(&state, 1, 70)
                                                : around + random_next(&state) % 3 - 1;
    if (random_next(&state) % 16 == 0) { /* at what lanes of values hold */
        layer->count = (uint32_t)RANDOM_OF(&state, 341, 342, 1092, 1093);
    }
    op->weight_bits = (uint8_t)RANDOM_OF(&state, 4, 4, 3, 2, 2);
    c->six = kind < 3;
    if (c->six) {
        op->weight_bits = random_next(&state) % 16 == 0 ? 3 : 2;
    }
    layer->fully_connected = kind == 7;
    if (layer->fully_connected) {
        set_tensor(&layer->in, 1, 1, layer->count, in_bits);
        set_tensor(&layer->out, 1, 1, features, out_bits);
        return;
    }
    op->kernel_height = op->kernel_width = 1;
    op->dilation_height = op->dilation_width = 1;
    op->stride_height = (uint16_t)RANDOM_OF(&state, 1, 1, 2, 3);
    op->stride_width = (uint16_t)RANDOM_OF(&state, 1, 1, 2, 3);
    const uint32_t height = (uint32_t)random_in(&state, 1, 5);
    const uint32_t width = (uint32_t)random_in(&state, 1, 7);
    set_tensor(&layer->in, height, width, layer->count,
               c->six && random_next(&state) % 16 != 0 ? 2 : in_bits);
    set_tensor(&layer->out, (height - 1) / op->stride_height + 1,
               (width - 1) / op->stride_width + 1, features, out_bits);
}

static void random_weights(layer_t *layer)
{
    const uint32_t channels = layer->out.shape[2];
    const uint32_t bits = layer->op.weight_bits;
    const int32_t high = (1 << (bits - 1)) - 1, low = -high - 1;
    const uint32_t kind = random_next(&state) % 8;
    layer->weights = exact_block(layer->count * channels);
    for (uint32_t i = 0; i < layer->count * channels; i++) {
        layer->weights[i] = (int8_t)(kind == 0   ? low
                                     : kind == 1 ? high
                                     : kind == 2 ? (i % 2 == 0 ? low : high)
                                     : kind == 3 ? random_in(&state, low, 0)
                                                 : random_in(&state, low, high));
    }
    for (uint32_t c = 0; c < channels; c++) {
        layer->bias[c] = RANDOM_OF(&state, 0, 100, -100, 1 << 20, -(1 << 20), 7, 127 << 22);
        layer->multiplier[c] = RANDOM_OF(&state, 0, 1 << 30, INT32_MAX,
                                         (1 << 30) + (int32_t)(random_next(&state) >> 2),
                                         (1 << 30) + (int32_t)(random_next(&state) >> 2));
        layer->shift[c] = (int8_t)(kind < 6 ? RANDOM_OF(&state, -1, -5, -6, -7, -8, -9, -22)
                                            : RANDOM_OF(&state, 7, 3, 1, 0, 0, -1, -6, -7));
        if (random_next(&state) % 64 == 0) {
            layer->shift[c] = (int8_t)RANDOM_OF(&state, 8, -23, -31);
        }
    }
}

/* All in one segment, or the greatest segments that lanes hold, or one unit more. */
static void choose_units(case_t *c)
{
    const uint32_t all = padded(c->layer.count, 8) / 8;
    c->units = all;
    if (c->six || alone(c) || random_next(&state) % 4 == 0) {
        return;
    }
    uint32_t units = padded(all, 4);
    while (units > 4 && !lanes_hold(c, units)) {
        units -= 4;
    }
    c->units = random_next(&state) % 4 == 0 ? 4 : units;
}

static void fill(uint8_t *bytes, uint32_t count)
{
    static const uint8_t extremes[] = {0x88, 0xAA, 0x77, 0x55, 0xFF, 0x00};
    const uint32_t kind = random_next(&state) % 9;
    for (uint32_t i = 0; i < count; i++) {
        bytes[i] = kind < 6    ? extremes[kind]
                   : kind == 6 ? (i % 2 == 0 ? 0x88 : 0x77)
                               : (uint8_t)random_next(&state);
    }
}

static const eq_kernel_t reference[] = {
    {1, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, 8, EQ_ORDER_NONE, eq_conv_s8_ref, NULL},
    {5, EQ_FAMILY_FC, EQ_SCRATCH_ROW, 8, EQ_ORDER_NONE, eq_fc_s8_ref, NULL},
};
static const eq_kernel_t tested[] = {
    {60, EQ_FAMILY_CONV, EQ_SCRATCH_LAYOUT, 8, EQ_ORDER_NONE, eq_conv_lanes_s4_dsp,
     &eq_lanes_rules},
    {61, EQ_FAMILY_FC, EQ_SCRATCH_LAYOUT, 8, EQ_ORDER_NONE, eq_fc_lanes_s4_dsp, &eq_lanes_rules},
    {62, EQ_FAMILY_CONV, EQ_SCRATCH_LAYOUT, 8, EQ_ORDER_NONE, eq_conv_sixes_s2_dsp,
     &eq_sixes_rules},
};

static void check_case(const case_t *c)
{
    const layer_t *layer = &c->layer;
    const uint32_t bits = layer->op.weight_bits, kind = layer->fully_connected ? 1 : 0;
    const eq_kernel_t *kernel = &tested[c->six ? 2 : kind];
    uint32_t words;
    uint32_t *packed = pack_lanes(layer, c->six, &words);
    int32_t *tables = pack_lane_tables(layer, c->six, c->units);
    CHECK(kernel->rules->weight_bytes(layer->out.shape[2], layer->count, bits) == words * 4u,
          "%u bits, %u weights", bits, layer->count);
    const eq_call_t call = {.kernel = kernel,
                            .op = &layer->op,
                            .in = {&layer->in, &layer->in},
                            .out = &layer->out,
                            .weights = (const void *)packed,
                            .bias = tables};
    const int fits = kernel->rules->fits(&call, layer->count);
    CHECK(fits == within_limits(c), "%u bits of %d, %u weights by %u: fits %d", bits,
          layer->in.bits, layer->count, c->units, fits);
    const uint32_t in_bytes = eq_tensor_bytes(&layer->in), misaligned = random_next(&state) % 4;
    uint8_t *block = exact_block(in_bytes + misaligned);
    const int8_t *input = (const int8_t *)block + misaligned;
    fill(block, in_bytes + misaligned);
    if (fits) {
        int8_t *expected =
            run_layer(&reference[kind], layer, layer->weights, layer->bias, input, 0);
        int8_t *got = run_layer(kernel, layer, packed, tables, input, 0);
        CHECK(memcmp(expected, got, eq_tensor_bytes(&layer->out)) == 0,
              "%s, %u bits in %ux%ux%u of %d out %ux%ux%u of %d stride %dx%d, by %u units",
              c->six ? "sixes" : "lanes", bits, layer->in.shape[0], layer->in.shape[1],
              layer->in.shape[2], layer->in.bits, layer->out.shape[0], layer->out.shape[1],
              layer->out.shape[2], layer->out.bits, layer->op.stride_height, layer->op.stride_width,
              c->units);
        free(got);
        free(expected);
    }
    free(block);
    free(tables);
    free(packed);
}

static void test_layers(uint32_t rounds)
{
    for (uint32_t i = 0; i < rounds; i++) {
        case_t c = {.six = 0};
        random_shapes(&c);
        const int32_t low = -(1 << (c.layer.out.bits - 1));
        c.layer.op.clamp_min = (int16_t)RANDOM_OF(&state, low, low, low / 2, 0);
        c.layer.op.clamp_max = (int16_t)RANDOM_OF(&state, -low - 1, -low - 1, 0, -low / 3);
        random_weights(&c.layer);
        choose_units(&c);
        check_case(&c);
        free(c.layer.weights);
    }
}

/// Refusals ///

/* Damages a fresh image by a statement over the names below, and expects a status. */
#define REFUSED(expected, statement)                                                               \
    do {                                                                                           \
        const image_t image = lanes_image();                                                       \
        const uint32_t arena_bytes = image_header(image)->arena_bytes;                             \
        eq_tensor_record_t *tensor = image_section(image, EQ_SECTION_TENSORS);                     \
        eq_operator_t *op = image_section(image, EQ_SECTION_OPERATORS);                            \
        int32_t *tables =                                                                          \
            (void *)((uint8_t *)image_section(image, EQ_SECTION_TABLES) + op[OP_CONV_LANES].bias); \
        int32_t *sixes = tables + (op[OP_CONV_SIXES].bias - op[OP_CONV_LANES].bias) / 4;           \
        int32_t *stage = tables + EQ_LANES_HEADER;                                                 \
        uint32_t *weights = image_section(image, EQ_SECTION_WEIGHTS);                              \
        (void)tensor, (void)op, (void)stage, (void)weights, (void)sixes;                           \
        statement;                                                                                 \
        check_damaged(image, arena_bytes, expected, #statement);                                   \
    } while (0)

static void test_refusals(void)
{
    REFUSED(EQ_OK, (void)0);
    REFUSED(EQ_E_LAYOUT, op[OP_CONV_LANES].layout = EQ_LAYOUT_SIXES);
    REFUSED(EQ_E_LAYOUT, op[OP_CONV_SIXES].layout = EQ_LAYOUT_LANES);
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_WIDE].weight_bits = 5); /* more than there are */
    REFUSED(EQ_E_ARITHMETIC, op[OP_CONV_LANES].weight_bits = 5);
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_LANES].weights += 2);
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_WIDE].weights += 8); /* beyond the end */
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_LANES].bias += 2);
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_LANES].multiplier = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_LANES].scratch_bytes -= 8);
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_SIXES].scratch_bytes -= 8);
    REFUSED(EQ_E_OPERATOR, op[OP_FC_LANES].scratch_bytes -= 8);
    REFUSED(EQ_E_ARITHMETIC, tensor[0].bits = 8;
            tensor[0].shape[2] = 20); /* activations of bytes */
    REFUSED(EQ_E_ARITHMETIC, op[OP_CONV_LANES].pad_left = 1);
    REFUSED(EQ_E_ARITHMETIC, op[OP_CONV_WIDE].stride_height = 2); /* leaves the input */
    REFUSED(EQ_E_ARITHMETIC, tables[EQ_LANES_UNITS] = 0);
    REFUSED(EQ_E_ARITHMETIC, tables[EQ_LANES_UNITS] = 3);
    REFUSED(EQ_OK, tables[EQ_LANES_UNITS] = 5);
    REFUSED(EQ_E_ARITHMETIC, tables[EQ_LANES_START] = 2);
    REFUSED(EQ_E_ARITHMETIC, tables[EQ_LANES_ANY] ^= 1);
    REFUSED(EQ_E_ARITHMETIC, tables[EQ_LANES_ANY] = 3);
    REFUSED(EQ_E_ARITHMETIC, sixes[EQ_LANES_START] = -1);
    REFUSED(EQ_E_ARITHMETIC, sixes[EQ_LANES_START] = 0);
    REFUSED(EQ_E_ARITHMETIC, sixes[EQ_LANES_START] = 1024);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_LANES_SUM] += 1);
    REFUSED(EQ_OK, stage[EQ_LANES_SUM] += 2);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_LANES_SUM] = INT32_MIN);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_LANES_MULTIPLIER] = (1 << 30) - 1);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_LANES_ADDEND] += 1);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_LANES_SHIFT] += 1);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_LANES_SHIFT] += 1 << 8); /* both ways */
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_LANES_SHIFT] |= EQ_LANES_EXACT);
    REFUSED(EQ_E_ARITHMETIC, stage[3 * EQ_LANES_WORDS + EQ_LANES_SHIFT] &= ~EQ_LANES_EXACT);
    REFUSED(EQ_OK, weights[0] = 0xFFFFFFFFu); /* within the lanes of 32 steps */
}

/* An image of these layouts alone needs nothing that unpacks activations. */
static void test_rows_are_not_needed(void)
{
    const eq_kernel_t *rows = eq_kernel_of(EQ_FAMILY_ROWS);
    const uint32_t bit = 1u << rows->id % 32;
    REFUSED(EQ_OK, image_header(image)->kernels[rows->id / 32] &= ~bit);
    REFUSED(EQ_E_KERNEL, image_header(image)->kernels[rows->id / 32] &= ~bit;
            image_header(image)->kernels[0] |= 2; op[OP_CONV_LANES].kernel = 1);
}

int main(int argc, char **argv)
{
    test_layers(argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 4000);
    test_refusals();
    test_rows_are_not_needed();
    return check_report("test_lanes");
}
