/*
 * test_pairs.c - the kernels of the layouts "pairs" and "fields" against the portable kernels on the
 * same weights, bit for bit, and what eq_init makes of weights that they are not exact for.
 *
 *     test_pairs [rounds]
 *
 * Whether a case is within the layout's limits is found with wide sums. Blocks have their exact size.
 */
#include "eq_overlap.h"
#include "pairs.h"

static uint32_t state = 20261122u;

/* Whether the layout is exact for the layer: eq_init must find the same. */
static int within_limits(const layer_t *layer)
{
    const int32_t high = (1 << (eq_width(layer->in.bits) - 1u)) - 1;
    for (uint32_t c = 0; c < layer->out.shape[2]; c++) {
        int64_t most = layer->bias[c], least = layer->bias[c];
        for (uint32_t k = 0; k < layer->count; k++) {
            const int32_t w = weight(layer, c, k);
            const int32_t a = w * (high - layer->in.zero_point);
            const int32_t b = w * (-high - 1 - layer->in.zero_point);
            most += a > b ? a : b;
            least += a > b ? b : a;
        }
        if (most >= 1 << 23 || least <= -(1 << 23) || layer->shift[c] > 7 ||
            layer->shift[c] < -22) {
            return 0;
        }
    }
    return 1;
}

/// Cases ///

static void set_tensor(eq_tensor_record_t *tensor, uint32_t height, uint32_t width,
                       uint32_t channels)
{
    tensor->shape[0] = height;
    tensor->shape[1] = width;
    tensor->shape[2] = channels;
    tensor->bits = (uint8_t)RANDOM_OF(&state, 8, 8, 8, 8, 7, 5, 4, 3, 2);
    const int32_t low = -(1 << (tensor->bits - 1));
    tensor->zero_point = (int16_t)RANDOM_OF(&state, low, low, 0, 1, -low - 1, low / 2);
}

static uint32_t outputs(uint32_t size, uint32_t pads, uint32_t taps, uint32_t stride,
                        uint32_t dilation)
{
    const uint32_t span = dilation * (taps - 1) + 1;
    return size + pads < span ? 0 : (size + pads - span) / stride + 1;
}

/* 0 where the window does not fit, or there is too much of it. */
static int random_shapes(layer_t *layer)
{
    eq_operator_t *op = &layer->op;
    const uint32_t channels = (uint32_t)RANDOM_OF(&state, 1, 2, 3, 4, 4, 5, 8, 12, 16, 20);
    const uint32_t features = (uint32_t)random_in(&state, 1, MOST_CHANNELS);
    const uint32_t height = (uint32_t)random_in(&state, 1, 9);
    const uint32_t width = (uint32_t)random_in(&state, 1, 9);
    layer->fully_connected = random_next(&state) % 5 == 0;
    if (layer->fully_connected) {
        layer->count = (uint32_t)random_in(&state, 1, 70);
        set_tensor(&layer->in, 1, 1, layer->count);
        set_tensor(&layer->out, 1, 1, features);
        return 1;
    }
    op->kernel_height = (uint16_t)RANDOM_OF(&state, 1, 1, 2, 3, 3, 5, 10);
    op->kernel_width = (uint16_t)RANDOM_OF(&state, 1, 1, 2, 3, 3, 4, 5);
    op->stride_height = (uint16_t)RANDOM_OF(&state, 1, 1, 2, 3);
    op->stride_width = (uint16_t)RANDOM_OF(&state, 1, 1, 2, 3);
    op->dilation_height = (uint16_t)RANDOM_OF(&state, 1, 1, 1, 2);
    op->dilation_width = (uint16_t)RANDOM_OF(&state, 1, 1, 1, 2);
    const int padded_window = random_next(&state) % 3 != 0;
    op->pad_top = (uint16_t)(padded_window ? random_in(&state, 0, 6) : 0);
    op->pad_left = (uint16_t)(padded_window ? random_in(&state, 0, 6) : 0);
    const uint32_t bottom = padded_window ? random_next(&state) % 7 : 0;
    const uint32_t right = padded_window ? random_next(&state) % 7 : 0;
    const uint32_t out_height = outputs(height, op->pad_top + bottom, op->kernel_height,
                                        op->stride_height, op->dilation_height);
    const uint32_t out_width = outputs(width, op->pad_left + right, op->kernel_width,
                                       op->stride_width, op->dilation_width);
    layer->count = (uint32_t)op->kernel_height * op->kernel_width * channels;
    set_tensor(&layer->in, height, width, channels);
    set_tensor(&layer->out, out_height, out_width, features);
    return out_height > 0 && out_width > 0 && out_height * out_width <= 80;
}

static void random_weights(layer_t *layer)
{
    const uint32_t channels = layer->out.shape[2];
    const uint32_t bits = layer->op.weight_bits;
    const int32_t high = (1 << (bits - 1)) - 1, low = bits == 8 ? -high : -high - 1;
    const uint32_t kind = random_next(&state) % 8;
    layer->weights = exact_block(layer->count * channels);
    for (uint32_t i = 0; i < layer->count * channels; i++) {
        layer->weights[i] = (int8_t)(kind == 0   ? low
                                     : kind == 1 ? high
                                     : kind == 2 ? (i % 2 == 0 ? low : high)
                                                 : random_in(&state, low, high));
    }
    for (uint32_t c = 0; c < channels; c++) {
        layer->bias[c] = RANDOM_OF(&state, 0, 1000, -1000, 1 << 20, -(1 << 20), 77, 7 << 20);
        layer->multiplier[c] = RANDOM_OF(&state, 0, 1 << 30, INT32_MAX,
                                         (1 << 30) + (int32_t)(random_next(&state) >> 2),
                                         (1 << 30) + (int32_t)(random_next(&state) >> 2));
        layer->shift[c] = (int8_t)(kind < 6 ? RANDOM_OF(&state, -1, -5, -7, -8, -9, -11, -22)
                                            : RANDOM_OF(&state, 7, 3, 1, 0, 0, -1, -7, -8));
        if (random_next(&state) % 64 == 0) {
            layer->shift[c] = (int8_t)RANDOM_OF(&state, 8, -23, -31);
        }
    }
}

static void fill(uint8_t *bytes, uint32_t count)
{
    static const uint8_t extremes[] = {0x80, 0x7F, 0xFF, 0x00};
    const uint32_t kind = random_next(&state) % 8;
    for (uint32_t i = 0; i < count; i++) {
        bytes[i] = kind < 4    ? extremes[kind]
                   : kind == 4 ? (i % 2 == 0 ? 0x80 : 0x7F)
                               : (uint8_t)random_next(&state);
    }
}

/* The same with the output as near before the input, or over it, as it may lie; NULL: nowhere. */
static int8_t *run_over(const eq_kernel_t *kernel, const layer_t *layer, const void *weights,
                        const int32_t *bias, const int8_t *input, uint32_t more)
{
    const uint32_t in_bytes = eq_tensor_bytes(&layer->in), out_bytes = eq_tensor_bytes(&layer->out);
    const uint32_t order = eq_order(kernel, &layer->in, &layer->out);
    if (order == EQ_ORDER_NONE) {
        return NULL;
    }
    const int32_t before = eq_lag(order, &layer->op, &layer->in, &layer->out).before;
    const uint32_t from = before > 0 ? (uint32_t)before : 0;
    const uint32_t to = before >= 0                   ? 0
                        : before < -(int32_t)in_bytes ? in_bytes
                                                      : (uint32_t)-before;
    const uint32_t in_end = from + in_bytes, out_end = to + out_bytes;
    int8_t *block = exact_block(in_end > out_end ? in_end : out_end);
    memcpy(block + from, input, in_bytes);
    run_layer_to(kernel, layer, weights, bias, block + from, more, block + to);
    int8_t *output = exact_block(out_bytes);
    memcpy(output, block + to, out_bytes);
    free(block);
    return output;
}

static const eq_kernel_t reference[] = {
    {1, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, 8, EQ_ORDER_ROWS, eq_conv_s8_ref, NULL},
    {5, EQ_FAMILY_FC, EQ_SCRATCH_ROW, 8, EQ_ORDER_NONE, eq_fc_s8_ref, NULL},
};
static const eq_kernel_t tested[] = {
    {55, EQ_FAMILY_CONV, EQ_SCRATCH_LAYOUT, 8, EQ_ORDER_PIXELS, eq_conv_pairs_s8_dsp,
     &eq_pairs_rules},
    {56, EQ_FAMILY_FC, EQ_SCRATCH_LAYOUT, 8, EQ_ORDER_NONE, eq_fc_pairs_s8_dsp, &eq_pairs_rules},
    {57, EQ_FAMILY_CONV, EQ_SCRATCH_LAYOUT, 8, EQ_ORDER_PIXELS, eq_conv_fields_s8_dsp,
     &eq_fields_rules},
    {58, EQ_FAMILY_FC, EQ_SCRATCH_LAYOUT, 8, EQ_ORDER_NONE, eq_fc_fields_s8_dsp, &eq_fields_rules},
};

static void check_layer(const layer_t *layer)
{
    const uint32_t bits = layer->op.weight_bits, kind = layer->fully_connected ? 1 : 0;
    const eq_kernel_t *kernel = &tested[(bits == 8 ? 0 : 2) + kind];
    uint32_t words;
    uint32_t *packed = pack_weights(layer, &words);
    int32_t *tables = pack_tables(layer);
    CHECK(kernel->rules->weight_bytes(layer->out.shape[2], layer->count, bits) == words * 4u,
          "%u bits, %u weights", bits, layer->count);
    const eq_call_t call = {.op = &layer->op,
                            .in = {&layer->in, &layer->in},
                            .out = &layer->out,
                            .weights = (const void *)packed,
                            .bias = tables};
    const int fits = kernel->rules->fits(&call, layer->count);
    CHECK(fits == within_limits(layer), "%u bits, %u weights: fits %d", bits, layer->count, fits);
    const uint32_t in_bytes = eq_tensor_bytes(&layer->in), misaligned = random_next(&state) % 4;
    uint8_t *block = exact_block(in_bytes + misaligned);
    const int8_t *input = (const int8_t *)block + misaligned;
    fill(block, in_bytes + misaligned);
    if (fits) {
        int8_t *expected =
            run_layer(&reference[kind], layer, layer->weights, layer->bias, input, 0);
        const uint32_t strip = 8 * (padded(layer->count, 4));
        for (uint32_t strips = 0; strips < 3; strips++) {
            int8_t *got = run_layer(kernel, layer, packed, tables, input, strips * strip);
            CHECK(memcmp(expected, got, eq_tensor_bytes(&layer->out)) == 0,
                  "%u bits in %ux%ux%u of %d out %ux%ux%u of %d kernel %dx%d stride %dx%d dilation "
                  "%dx%d pads %d,%d, %u strips more",
                  bits, layer->in.shape[0], layer->in.shape[1], layer->in.shape[2], layer->in.bits,
                  layer->out.shape[0], layer->out.shape[1], layer->out.shape[2], layer->out.bits,
                  layer->op.kernel_height, layer->op.kernel_width, layer->op.stride_height,
                  layer->op.stride_width, layer->op.dilation_height, layer->op.dilation_width,
                  layer->op.pad_top, layer->op.pad_left, strips);
            free(got);
            int8_t *over = run_over(kernel, layer, packed, tables, input, strips * strip);
            CHECK(over == NULL || memcmp(expected, over, eq_tensor_bytes(&layer->out)) == 0,
                  "%u bits in %ux%ux%u out %ux%ux%u kernel %dx%d over its input", bits,
                  layer->in.shape[0], layer->in.shape[1], layer->in.shape[2], layer->out.shape[0],
                  layer->out.shape[1], layer->out.shape[2], layer->op.kernel_height,
                  layer->op.kernel_width);
            free(over);
        }
        free(expected);
    }
    free(block);
    free(tables);
    free(packed);
}

static void test_layers(uint32_t rounds)
{
    for (uint32_t i = 0; i < rounds; i++) {
        layer_t layer = {
            .op = {.weight_bits = (uint8_t)RANDOM_OF(&state, 8, 8, 8, 2, 3, 4, 5, 6, 7)}};
        if (!random_shapes(&layer)) {
            continue;
        }
        const int32_t low = -(1 << (layer.out.bits - 1));
        layer.op.clamp_min = (int16_t)RANDOM_OF(&state, low, low, low / 6, 0);
        layer.op.clamp_max = (int16_t)RANDOM_OF(&state, -low - 1, -low - 1, 0, -low / 3);
        random_weights(&layer);
        check_layer(&layer);
        free(layer.weights);
    }
}

/// Refusals ///

/* Damages a fresh image by a statement over the names below, and expects a status. */
#define REFUSED(expected, statement)                                                               \
    do {                                                                                           \
        const image_t image = pairs_image();                                                       \
        const uint32_t arena_bytes = image_header(image)->arena_bytes;                             \
        eq_section_t *section = image_sections(image) - 1; /* by kind */                           \
        eq_tensor_record_t *tensor = image_section(image, EQ_SECTION_TENSORS);                     \
        eq_operator_t *op = image_section(image, EQ_SECTION_OPERATORS);                            \
        int32_t *stage =                                                                           \
            (void *)((uint8_t *)image_section(image, EQ_SECTION_TABLES) + op[OP_CONV_PAIRS].bias); \
        uint32_t *weights = image_section(image, EQ_SECTION_WEIGHTS);                              \
        (void)section, (void)tensor, (void)op, (void)stage, (void)weights;                         \
        statement;                                                                                 \
        check_damaged(image, arena_bytes, expected, #statement);                                   \
    } while (0)

static void test_refusals(void)
{
    REFUSED(EQ_OK, (void)0);
    REFUSED(EQ_E_LAYOUT, op[OP_CONV_PAIRS].layout = EQ_LAYOUT_DENSE);
    REFUSED(EQ_E_LAYOUT, op[OP_CONV_PAIRS].layout = EQ_LAYOUT_FIELDS);
    REFUSED(EQ_E_LAYOUT, op[OP_CONV_PAIRS].kernel = 2; image_header(image)->kernels[0] |= 4u);
    REFUSED(EQ_E_ARITHMETIC, op[OP_FC_PAIRS].weight_bits = 7);
    REFUSED(EQ_E_ARITHMETIC, op[OP_FC_FIELDS].weight_bits = 2);
    REFUSED(EQ_E_OPERATOR, op[OP_FC_FIELDS].weight_bits = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_PAIRS].weights += 2);
    REFUSED(EQ_E_OPERATOR, op[OP_FC_PAIRS].weights += 4); /* beyond the end */
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_PAIRS].bias += 2);
    REFUSED(EQ_E_OPERATOR, op[OP_FC_PAIRS].bias += 8);
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_PAIRS].multiplier = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_PAIRS].shift = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_PAIRS].scratch_bytes -= 1);
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_FIELDS].scratch_bytes -= 1);
    REFUSED(EQ_E_OPERATOR, op[OP_FC_FIELDS].scratch_bytes -= 1);
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_PAIRS].scratch += 4);
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_FIELDS].dilation_width = 2); /* windows need a patch */
    REFUSED(EQ_E_OPERATOR, op[OP_CONV_FIELDS].pad_left = 1);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_STAGE_SUM] += 1); /* 256 times a sum no more */
    REFUSED(EQ_OK, stage[EQ_STAGE_SUM] += 256);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_STAGE_SUM] += INT32_MIN);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_STAGE_MULTIPLIER] = (1 << 30) - 1);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_STAGE_MULTIPLIER] = -1);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_STAGE_OFFSET] += 1);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_STAGE_SHIFT] += 1);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_STAGE_SHIFT] += 1 << 8);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_STAGE_SHIFT] -= 1 << 8); /* both ways */
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_STAGE_SHIFT] |= EQ_STAGE_ANY);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_STAGE_WORDS + EQ_STAGE_SHIFT] ^= EQ_STAGE_ANY);
    REFUSED(EQ_E_ARITHMETIC, stage[EQ_STAGE_SHIFT + EQ_STAGE_STEP] |= EQ_STAGE_ANY);
    REFUSED(EQ_E_ARITHMETIC, tensor[1].zero_point += 1); /* it stands in the offsets, too */
    REFUSED(EQ_E_ARITHMETIC, weights[0] += 1);           /* and each weight in the sums */
}

int main(int argc, char **argv)
{
    test_refusals();
    test_layers(argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 20000u);
    return check_report("test_pairs");
}
