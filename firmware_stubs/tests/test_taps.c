/*
 * test_taps.c - the kernels of the layouts "taps", "taps12" and "halves" against the portable kernel
 * on the same weights, bit for bit, and what eq_init makes of weights that they are not exact for.
 *
 *     test_taps [rounds]
 *
 * Whether a case is within the layout's limits is found with wide sums. Blocks have their exact size.
 */
#include "eq_taps.h"
#include "layer.h"

static uint32_t state = 20261124u;

typedef struct {
    eq_kernel_t kernel;
    uint32_t stride;
    uint32_t lane;       /* bits */
    uint32_t neighbours; /* taps in a lane */
    uint32_t most_bits;
    int32_t offset;          /* of sums */
    uint32_t sums;           /* of a channel */
    uint8_t places[2][4][3]; /* of 4 and 2 bits: the lowest bits of fields */
} tested_t;

static const tested_t tested[] = {
    {{70, EQ_FAMILY_CONV, EQ_SCRATCH_LAYOUT, 8, EQ_ORDER_RING, eq_conv_taps_rows_s4_dsp,
      &eq_taps_rows_rules},
     1,
     14,
     2,
     4,
     3 << 14,
     3,
     {{{28, 14, 0}, {4, 22, 8}}, {{28, 14, 0}, {30, 16, 2}, {4, 22, 8}, {6, 24, 10}}}},
    {{71, EQ_FAMILY_CONV, EQ_SCRATCH_LAYOUT, 8, EQ_ORDER_RING, eq_conv_taps_s4_dsp, &eq_taps_rules},
     1,
     14,
     2,
     4,
     1 << 14,
     1,
     {{{28, 14, 0}, {4, 22, 8}}, {{28, 14, 0}, {30, 16, 2}, {4, 22, 8}, {6, 24, 10}}}},
    {{72, EQ_FAMILY_CONV, EQ_SCRATCH_LAYOUT, 8, EQ_ORDER_RING, eq_conv_taps12_s2_dsp,
      &eq_taps12_rules},
     1,
     12,
     3,
     2,
     1 << 11,
     1,
     {{{0}}, {{24, 12, 0}, {26, 14, 2}, {28, 16, 4}, {30, 18, 6}}}},
    {{73, EQ_FAMILY_CONV, EQ_SCRATCH_LAYOUT, 8, EQ_ORDER_RING, eq_conv_halves_s4_dsp,
      &eq_halves_rules},
     2,
     14,
     3,
     4,
     1 << 13,
     1,
     {{{14, 8, 0}, {18, 22, 4}}, {{14, 8, 0}, {16, 10, 2}, {18, 22, 4}, {20, 24, 6}}}},
};
static const eq_kernel_t reference = {
    1, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, 8, EQ_ORDER_NONE, eq_conv_s8_ref, NULL};

/// Packing, plainly as eq_taps.h says ///

static int32_t weight(const layer_t *layer, uint32_t channel, uint32_t row, uint32_t tap,
                      uint32_t input)
{
    const uint32_t channels = layer->in.shape[2];
    return layer->weights[((channel * 3 + row) * 3 + tap) * channels + input];
}

static uint32_t *pack_weights(const tested_t *form, const layer_t *layer, uint32_t *bytes)
{
    const uint32_t bits = layer->op.weight_bits, per_word = bits > 2 ? 2 : 4;
    const uint32_t words = (layer->in.shape[2] + 3) / 4 * 4 / per_word;
    *bytes = layer->out.shape[2] * 3 * words * 4;
    uint32_t *packed = exact_block(*bytes);
    for (uint32_t i = 0; i < layer->out.shape[2] * 3 * words * per_word * 3; i++) {
        const uint32_t tap = i % 3, input = i / 3 % (words * per_word);
        const uint32_t row = i / 3 / (words * per_word);
        if (input < layer->in.shape[2]) {
            const int32_t w = weight(layer, row / 3, row % 3, tap, input);
            packed[row * words + input / per_word] |=
                (uint32_t)(w + (1 << (bits - 1)))
                << form->places[bits > 2 ? 0 : 1][input % per_word][tap];
        }
    }
    return packed;
}

static int32_t zero_of(const eq_tensor_record_t *in)
{
    return in->zero_point + (1 << (eq_width(in->bits) - 1));
}

static int64_t start_of(const tested_t *form, const layer_t *layer, uint32_t channel)
{
    int64_t sum = (int64_t)layer->bias[channel] - form->offset;
    for (uint32_t k = 0; k < layer->count; k++) {
        sum -= layer->weights[channel * layer->count + k] * zero_of(&layer->in);
    }
    return 2 * sum;
}

static int32_t *pack_tables(const tested_t *form, const layer_t *layer)
{
    const uint32_t channels = layer->out.shape[2];
    int32_t *tables = exact_block(channels * EQ_TAPS_WORDS * sizeof *tables);
    for (uint32_t c = 0; c < channels; c++) {
        int32_t *stage = tables + c * EQ_TAPS_WORDS;
        const int32_t shift = layer->shift[c];
        const int32_t right = shift < 0 ? -shift : 0, left = shift > 0 ? shift : 0;
        stage[EQ_TAPS_SUM] = (int32_t)(uint32_t)(uint64_t)start_of(form, layer, c);
        stage[EQ_TAPS_MULTIPLIER] = layer->multiplier[c];
        const int64_t offset =
            (INT64_C(1) << right) / 2 + layer->out.zero_point * (INT64_C(1) << right);
        stage[EQ_TAPS_OFFSET] = (int32_t)(uint32_t)(uint64_t)offset;
        stage[EQ_TAPS_SHIFT] = right + left * 256 + (right == 0 || left != 0 ? EQ_TAPS_ANY : 0);
    }
    return tables;
}

/* Whether the layout is exact for the layer: eq_init must find the same. */
static int within_limits(const tested_t *form, const layer_t *layer)
{
    const int64_t most = (1 << eq_width(layer->in.bits)) - 1, room = 1 << (form->lane - 1);
    if (layer->in.bits > form->most_bits || layer->op.weight_bits > form->most_bits ||
        layer->out.shape[1] * layer->out.shape[2] * eq_width(layer->out.bits) % 8 != 0) {
        return 0;
    }
    for (uint32_t c = 0; c < layer->out.shape[2]; c++) {
        const int64_t start = start_of(form, layer, c);
        if (layer->shift[c] > 7 || layer->shift[c] < -22 ||
            ((int64_t)(4 * form->sums << form->lane) + (start < 0 ? -start : start)) *
                    (1 << (layer->shift[c] > 0 ? layer->shift[c] : 0)) >
                INT32_MAX) {
            return 0;
        }
        for (uint32_t tap = 0; tap + form->neighbours <= 3; tap++) {
            int64_t above = 0, below = 0;
            for (uint32_t k = 0; k < layer->count; k++) {
                if (k % (layer->count / form->sums) == 0) {
                    above = below = 0;
                }
                const uint32_t column = k / layer->in.shape[2] % 3;
                if (column >= tap && column < tap + form->neighbours) {
                    const int32_t w = layer->weights[c * layer->count + k];
                    above += w > 0 ? w : 0;
                    below += w < 0 ? w : 0;
                }
                if (above * most > room - 1 || below * most < -room) {
                    return 0;
                }
            }
        }
    }
    return 1;
}

/// Cases ///

static void set_tensor(eq_tensor_record_t *tensor, uint32_t height, uint32_t width,
                       uint32_t channels, uint32_t bits)
{
    tensor->shape[0] = height;
    tensor->shape[1] = width;
    tensor->shape[2] = channels;
    tensor->bits = (uint8_t)bits;
    const int32_t low = -(1 << (bits - 1));
    tensor->zero_point = (int16_t)RANDOM_OF(&state, low, low, 0, 1, -low - 1, low / 2);
}

/* 0 where the window does not fit. */
static int random_shapes(const tested_t *form, layer_t *layer)
{
    eq_operator_t *op = &layer->op;
    const uint32_t channels = (uint32_t)RANDOM_OF(&state, 1, 2, 3, 4, 5, 8, 8, 9, 16, 16, 32, 40);
    const uint32_t features = (uint32_t)random_in(&state, 1, MOST_CHANNELS);
    const uint32_t height = (uint32_t)random_in(&state, 1, 7);
    const uint32_t width = (uint32_t)random_in(&state, 1, 21);
    op->kernel_height = op->kernel_width = 3;
    op->stride_height = op->stride_width = (uint16_t)form->stride;
    op->dilation_height = op->dilation_width = 1;
    const int padded = random_next(&state) % 3 != 0;
    op->pad_top = (uint16_t)(padded ? random_in(&state, 0, 3) : 0);
    op->pad_left = (uint16_t)(padded ? random_in(&state, 0, 3) : 0);
    const uint32_t bottom = padded ? random_next(&state) % 4 : 0;
    const uint32_t right = padded ? random_next(&state) % 4 : 0;
    if (height + op->pad_top + bottom < 3 || width + op->pad_left + right < 3) {
        return 0;
    }
    const int32_t most = random_next(&state) % 50 == 0 ? 8 : (int32_t)form->most_bits;
    layer->count = 9 * channels;
    set_tensor(&layer->in, height, width, channels,
               (uint32_t)RANDOM_OF(&state, most, most, 3 < most ? 3 : most, 2));
    set_tensor(&layer->out, (height + op->pad_top + bottom - 3) / form->stride + 1,
               (width + op->pad_left + right - 3) / form->stride + 1, features,
               (uint32_t)RANDOM_OF(&state, 4, 4, 2, 2, 3, 8, 5));
    op->weight_bits = (uint8_t)RANDOM_OF(&state, 4, 4, 3, 2);
    op->weight_bits = form->most_bits == 2 ? 2 : op->weight_bits;
    return 1;
}

static void random_weights(layer_t *layer)
{
    const uint32_t channels = layer->out.shape[2];
    const uint32_t bits = layer->op.weight_bits;
    const int32_t high = (1 << (bits - 1)) - 1, low = -high - 1;
    const uint32_t kind = random_next(&state) % 16;
    layer->weights = exact_block(layer->count * channels);
    for (uint32_t i = 0; i < layer->count * channels; i++) {
        layer->weights[i] = (int8_t)(kind == 0   ? low
                                     : kind == 1 ? high
                                     : kind == 2 ? (i % 2 == 0 ? low : high)
                                     : kind == 3 ? (i / layer->in.shape[2] % 2 == 0 ? low : high)
                                     : kind < 10 ? random_in(&state, low, high) / 2
                                                 : random_in(&state, low, high));
    }
    for (uint32_t c = 0; c < channels; c++) {
        layer->bias[c] = RANDOM_OF(&state, 0, 1000, -1000, 1 << 20, -(1 << 20), 77, 7 << 20);
        layer->multiplier[c] = RANDOM_OF(&state, 0, 1 << 30, INT32_MAX,
                                         (1 << 30) + (int32_t)(random_next(&state) >> 2),
                                         (1 << 30) + (int32_t)(random_next(&state) >> 2));
        layer->shift[c] = (int8_t)(kind < 12 ? RANDOM_OF(&state, -1, -5, -7, -8, -9, -11, -22)
                                             : RANDOM_OF(&state, 7, 3, 1, 0, 0, -1, -7, -8));
        if (random_next(&state) % 128 == 0) {
            layer->shift[c] = (int8_t)RANDOM_OF(&state, 8, -23, -31);
        }
    }
}

static void fill(uint8_t *bytes, uint32_t count)
{
    static const uint8_t extremes[] = {0x88, 0x77, 0xAA, 0x55, 0xFF, 0x00};
    const uint32_t kind = random_next(&state) % 10;
    for (uint32_t i = 0; i < count; i++) {
        bytes[i] = kind < 6 ? extremes[kind] : (uint8_t)random_next(&state);
    }
}

static void check_layer(const tested_t *form, const layer_t *layer)
{
    const eq_layout_rules_t *rules = form->kernel.rules;
    const uint32_t bits = layer->op.weight_bits;
    uint32_t bytes;
    uint32_t *packed = pack_weights(form, layer, &bytes);
    int32_t *tables = pack_tables(form, layer);
    CHECK(rules->weight_bytes(layer->out.shape[2], layer->count, bits) == bytes,
          "%u bits, %u weights", bits, layer->count);
    const eq_call_t call = {.op = &layer->op,
                            .in = {&layer->in, &layer->in},
                            .out = &layer->out,
                            .weights = (const void *)packed,
                            .bias = tables};
    const int fits = rules->fits(&call, layer->count);
    CHECK(fits == within_limits(form, layer), "kernel %u, %u bits, %u weights: fits %d",
          form->kernel.id, bits, layer->count, fits);
    if (fits) {
        const uint32_t in_bytes = eq_tensor_bytes(&layer->in);
        uint8_t *input = exact_block(in_bytes);
        fill(input, in_bytes);
        int8_t *expected =
            run_layer(&reference, layer, layer->weights, layer->bias, (const int8_t *)input, 0);
        int8_t *got = run_layer(&form->kernel, layer, packed, tables, (const int8_t *)input, 0);
        CHECK(memcmp(expected, got, eq_tensor_bytes(&layer->out)) == 0,
              "kernel %u, %u bits in %ux%ux%u of %d out %ux%ux%u of %d pads %d,%d", form->kernel.id,
              bits, layer->in.shape[0], layer->in.shape[1], layer->in.shape[2], layer->in.bits,
              layer->out.shape[0], layer->out.shape[1], layer->out.shape[2], layer->out.bits,
              layer->op.pad_top, layer->op.pad_left);
        free(got);
        free(expected);
        free(input);
    }
    free(tables);
    free(packed);
}

/// Refusals: a layer that fits, one thing of it changed, no longer fits ///

enum { CHANGES = 20 };

static void change(uint32_t kind, eq_operator_t *op, eq_tensor_record_t *in,
                   eq_tensor_record_t *out, int32_t *stage, uint32_t *word)
{
    switch (kind) {
    case 0:
        op->kernel_height = 2;
        break;
    case 1:
        op->kernel_width = 5;
        break;
    case 2:
        op->stride_height = 3;
        break;
    case 3:
        op->stride_width ^= 3;
        break;
    case 4:
        op->dilation_height = 2;
        break;
    case 5:
        op->dilation_width = 2;
        break;
    case 6:
        in->bits = 8;
        break;
    case 7:
        out->shape[1] = 7, out->shape[2] = 3, out->bits = 4;
        break; /* no whole bytes */
    case 8:
        out->zero_point += 1;
        break;
    case 9:
        stage[EQ_TAPS_SUM] = INT32_MAX;
        break;
    case 10:
        stage[EQ_TAPS_SUM] = INT32_MIN;
        break;
    case 11:
        stage[EQ_TAPS_MULTIPLIER] = (1 << 30) - 1;
        break;
    case 12:
        stage[EQ_TAPS_MULTIPLIER] = -1;
        break;
    case 13:
        stage[EQ_TAPS_OFFSET] += 1;
        break;
    case 14:
        stage[EQ_TAPS_SHIFT] = 23;
        break;
    case 15:
        stage[EQ_TAPS_SHIFT] ^= EQ_TAPS_ANY;
        break;
    case 16:
        stage[EQ_TAPS_SHIFT] = 8 << 8 | EQ_TAPS_ANY;
        break;
    case 17:
        stage[EQ_TAPS_SHIFT] = 1 | 1 << 8 | EQ_TAPS_ANY;
        break;
    case 18:
        stage[EQ_TAPS_SHIFT] |= 1 << 24;
        break;
    case 19:
        *word ^= 1;
        break; /* of a channel that is filled up */
    default:
        break;
    }
}

static void test_refusals(void)
{
    for (uint32_t i = 0; i < 4 * (CHANGES + 1); i++) {
        const tested_t *form = &tested[i / (CHANGES + 1)];
        const uint16_t stride = (uint16_t)form->stride;
        layer_t layer = {.op = {.weight_bits = 2,
                                .kernel_height = 3,
                                .kernel_width = 3,
                                .stride_height = stride,
                                .stride_width = stride,
                                .dilation_height = 1,
                                .dilation_width = 1},
                         .count = 9 * 5};
        set_tensor(&layer.in, 3, 10, 5, 2);
        set_tensor(&layer.out, 1, 8 / stride, 4, 2);
        layer.in.zero_point = layer.out.zero_point = -1;
        layer.weights = exact_block(layer.count * 4);
        for (uint32_t c = 0; c < 4; c++) {
            layer.multiplier[c] = 1 << 30;
            layer.shift[c] = -5;
        }
        uint32_t bytes;
        uint32_t *packed = pack_weights(form, &layer, &bytes);
        int32_t *tables = pack_tables(form, &layer);
        /* The second word of a row has the channels 4..7, of which 5 is the second. */
        change(i % (CHANGES + 1), &layer.op, &layer.in, &layer.out, tables + EQ_TAPS_WORDS,
               packed + 1);
        if (i % (CHANGES + 1) == 19) {
            packed[1] ^= 1u ^ 1u << form->places[1][1][2];
        }
        const eq_call_t call = {.op = &layer.op,
                                .in = {&layer.in, &layer.in},
                                .out = &layer.out,
                                .weights = (const void *)packed,
                                .bias = tables};
        CHECK(form->kernel.rules->fits(&call, layer.count) == (i % (CHANGES + 1) == CHANGES),
              "kernel %u, change %u", form->kernel.id, i % (CHANGES + 1));
        free(tables);
        free(packed);
        free(layer.weights);
    }
}

static void test_layers(uint32_t rounds)
{
    for (uint32_t i = 0; i < rounds; i++) {
        const tested_t *form = &tested[random_next(&state) % 4];
        layer_t layer = {.op = {.weight_bits = 4}};
        if (!random_shapes(form, &layer)) {
            continue;
        }
        const int32_t low = -(1 << (layer.out.bits - 1));
        layer.op.clamp_min = (int16_t)RANDOM_OF(&state, low, low, low / 6, 0);
        layer.op.clamp_max = (int16_t)RANDOM_OF(&state, -low - 1, -low - 1, 0, -low / 3);
        random_weights(&layer);
        check_layer(form, &layer);
        free(layer.weights);
    }
}

int main(int argc, char **argv)
{
    test_refusals();
    test_layers(argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 5000u);
    return check_report("test_taps");
}
