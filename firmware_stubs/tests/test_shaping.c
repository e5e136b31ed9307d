/*
 * test_shaping.c - convolution in groups, pad, concat and table: each kernel against a plain
 * definition, and each reason for which eq_init refuses one of them.
 */
#include "shaping.h"

#include "eq_unpack.h"

static uint32_t state = 20261121u;

/// Kernels ///

/* An operator with tensors in blocks of their exact size. */
typedef struct {
    eq_operator_t op;
    eq_tensor_record_t in[2];
    eq_tensor_record_t out;
    eq_call_t call;
    int8_t *memory[4]; /* inputs, output, expected */
} case_t;

static void set_shape(eq_tensor_record_t *record, uint32_t height, uint32_t width,
                      uint32_t channels)
{
    *record = (eq_tensor_record_t){.shape = {height, width, channels}, .bits = 8, .rank = 4};
    record->zero_point = (int16_t)RANDOM_OF(&state, -128, -3, 0, 5, 127);
}

static void make_call(case_t *c)
{
    const eq_tensor_record_t *tensors[] = {&c->in[0], &c->in[1], &c->out, &c->out};
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t count = eq_elements(tensors[i]);
        c->memory[i] = exact_block(count);
        for (uint32_t e = 0; e < count; e++) {
            c->memory[i][e] = (int8_t)random_next(&state);
        }
    }
    c->call.op = &c->op;
    c->call.in[0] = &c->in[0];
    c->call.in[1] = &c->in[1];
    c->call.out = &c->out;
    c->call.input[0] = c->memory[0];
    c->call.input[1] = c->memory[1];
    c->call.output = c->memory[2];
}

static void check_case(case_t *c, const char *name)
{
    const uint32_t count = eq_elements(&c->out);
    CHECK(memcmp(c->memory[2], c->memory[3], count) == 0, "%s on %ux%ux%u", name, c->in[0].shape[0],
          c->in[0].shape[1], c->in[0].shape[2]);
    for (uint32_t i = 0; i < 4; i++) {
        free(c->memory[i]);
    }
}

static void random_clamp(eq_operator_t *op)
{
    op->clamp_min = (int16_t)RANDOM_OF(&state, -128, -128, -20);
    op->clamp_max = (int16_t)RANDOM_OF(&state, 127, 127, 50);
}

/* The same convolution with all channels, those of other groups multiplied by 0. */
static void expect_ungrouped(case_t *c, uint32_t depth)
{
    const uint32_t channels = c->in[0].shape[2], filters = c->out.shape[2];
    const uint32_t groups = channels / depth, taps = 9;
    int8_t *narrow = exact_block(filters * taps * depth);
    int8_t *wide = exact_block(filters * taps * channels);
    eq_unpack(narrow, c->call.weights, 0, filters * taps * depth, c->op.weight_bits);
    for (uint32_t i = 0; i < filters * taps * depth; i++) {
        const uint32_t filter = i / (taps * depth);
        const uint32_t first = filter / (filters / groups) * depth;
        wide[i / depth * channels + first + i % depth] = narrow[i];
    }
    eq_operator_t op = c->op;
    eq_call_t call = c->call;
    op.weight_bits = 8;
    call.op = &op;
    call.weights = (const uint8_t *)wide;
    call.output = c->memory[3];
    eq_conv_s8_ref(&call);
    free(narrow);
    free(wide);
}

static void test_grouped(void)
{
    for (uint32_t round = 0; round < 300; round++) {
        const uint32_t groups = (uint32_t)random_in(&state, 1, 4);
        const uint32_t depth = (uint32_t)random_in(&state, 1, 4);
        const uint32_t filters = groups * (uint32_t)random_in(&state, 1, 3);
        const uint32_t bits = (uint32_t)random_in(&state, 2, 8);
        const uint32_t stride = (uint32_t)random_in(&state, 1, 2);
        const uint32_t height = (uint32_t)random_in(&state, 1, 6);
        const uint32_t width = (uint32_t)random_in(&state, 1, 6);
        case_t c = {0};
        set_shape(&c.in[0], height, width, groups * depth);
        set_shape(&c.in[1], 1, 1, 1);
        set_shape(&c.out, (height - 1) / stride + 1, (width - 1) / stride + 1, filters);
        make_call(&c);
        set_window(&c.op, 3, (uint16_t)stride, 1, 1);
        random_clamp(&c.op);
        c.op.parameter = (uint16_t)groups;
        c.op.weight_bits = (uint8_t)bits;
        const uint32_t packed = (filters * 9 * depth * bits + 7) / 8;
        uint8_t *weights = exact_block(packed);
        for (uint32_t i = 0; i < packed; i++) {
            weights[i] = (uint8_t)random_next(&state);
        }
        int32_t bias[12], multiplier[12];
        int8_t shift[12];
        for (uint32_t i = 0; i < filters; i++) {
            bias[i] = random_in(&state, -2000, 2000);
            multiplier[i] = (1 << 30) + (int32_t)(random_next(&state) >> 2);
            shift[i] = (int8_t)random_in(&state, -9, -3);
        }
        c.call.bias = bias;
        c.call.multiplier = multiplier;
        c.call.shift = shift;
        c.call.weights = weights;
        c.call.scratch = exact_block(bits == 8 ? 0 : 9 * depth);
        expect_ungrouped(&c, depth);
        eq_grouped_s8_ref(&c.call);
        check_case(&c, "eq_grouped_s8_ref");
        free(c.call.scratch);
        free(weights);
    }
}

static void test_pad(void)
{
    for (uint32_t round = 0; round < 300; round++) {
        uint32_t size[3], before[3], whole[3];
        for (uint32_t i = 0; i < 3; i++) {
            size[i] = (uint32_t)random_in(&state, 1, 5);
            before[i] = (uint32_t)random_in(&state, 0, 3);
            whole[i] = size[i] + before[i] + (uint32_t)random_in(&state, 0, 3);
        }
        const int32_t value = random_in(&state, -128, 127);
        case_t c = {0};
        set_shape(&c.in[0], size[0], size[1], size[2]);
        set_shape(&c.in[1], 1, 1, 1);
        set_shape(&c.out, whole[0], whole[1], whole[2]);
        make_call(&c);
        c.op.pad_top = (uint16_t)before[0];
        c.op.pad_left = (uint16_t)before[1];
        c.op.parameter = (uint16_t)before[2];
        c.call.bias = &value;
        memset(c.memory[3], value, eq_elements(&c.out));
        for (uint32_t i = 0; i < eq_elements(&c.in[0]); i++) {
            const uint32_t y = i / size[2] / size[1] + before[0];
            const uint32_t x = i / size[2] % size[1] + before[1];
            c.memory[3][(y * whole[1] + x) * whole[2] + i % size[2] + before[2]] = c.memory[0][i];
        }
        eq_pad_s8_ref(&c.call);
        check_case(&c, "eq_pad_s8_ref");
    }
}

static int8_t naive_joined(const case_t *c, uint32_t which, uint32_t index)
{
    const int32_t difference = c->memory[which][index] - c->in[which].zero_point;
    const int32_t value =
        eq_requantize(difference, c->call.multiplier[which], eq_shift(c->call.shift[which]));
    return (int8_t)eq_clamp(value + c->out.zero_point, c->op.clamp_min, c->op.clamp_max);
}

static void test_concat(void)
{
    for (uint32_t round = 0; round < 400; round++) {
        const uint32_t axis = round % 3;
        uint32_t size[2][3], whole[3];
        for (uint32_t i = 0; i < 3; i++) {
            size[0][i] = size[1][i] = whole[i] = (uint32_t)random_in(&state, 1, 5);
        }
        size[1][axis] = (uint32_t)random_in(&state, 1, 5);
        whole[axis] += size[1][axis];
        int32_t multiplier[2] = {1 << 30, (1 << 30) + (int32_t)(random_next(&state) >> 2)};
        int8_t shift[2] = {1, (int8_t)random_in(&state, -8, 3)};
        case_t c = {0};
        set_shape(&c.in[0], size[0][0], size[0][1], size[0][2]);
        set_shape(&c.in[1], size[1][0], size[1][1], size[1][2]);
        set_shape(&c.out, whole[0], whole[1], whole[2]);
        c.in[0].zero_point = round % 2 == 0 ? c.out.zero_point : c.in[0].zero_point;
        make_call(&c);
        random_clamp(&c.op);
        c.op.parameter = (uint16_t)axis;
        c.call.multiplier = multiplier;
        c.call.shift = shift;
        for (uint32_t i = 0; i < eq_elements(&c.out); i++) {
            uint32_t at[3] = {i / whole[2] / whole[1], i / whole[2] % whole[1], i % whole[2]};
            const uint32_t which = at[axis] >= size[0][axis];
            at[axis] -= which != 0 ? size[0][axis] : 0;
            const uint32_t index = (at[0] * size[which][1] + at[1]) * size[which][2] + at[2];
            c.memory[3][i] = naive_joined(&c, which, index);
        }
        eq_concat_s8_ref(&c.call);
        check_case(&c, "eq_concat_s8_ref");
    }
}

static void test_table(void)
{
    for (uint32_t aliased = 0; aliased < 2; aliased++) {
        int8_t table[256];
        case_t c = {0};
        set_shape(&c.in[0], 1, 1, 256);
        set_shape(&c.in[1], 1, 1, 1);
        set_shape(&c.out, 1, 1, 256);
        make_call(&c);
        for (uint32_t i = 0; i < 256; i++) {
            table[i] = (int8_t)random_next(&state);
            c.memory[aliased * 2][255 - i] = (int8_t)((int32_t)i - 128);
            c.memory[3][255 - i] = table[i];
        }
        c.call.shift = table;
        c.call.input[0] = c.memory[aliased * 2];
        eq_table_s8_ref(&c.call);
        check_case(&c, "eq_table_s8_ref");
    }
}

/// Packed ///

/* Values of n bits, as the tensor is stored. */
static void fill(uint8_t *arena, const eq_tensor_record_t *tensor, uint32_t bits, uint32_t seed)
{
    int8_t values[128];
    const uint32_t count = eq_elements(tensor);
    for (uint32_t i = 0; i < count; i++) {
        values[i] = (int8_t)((int32_t)(random_next(&seed) % (1u << bits)) - (1 << (bits - 1)));
    }
    if (eq_is_packed(tensor)) {
        eq_store_run(tensor, (int8_t *)arena + tensor->offset, 0, values, count);
    } else {
        memcpy(arena + tensor->offset, values, count);
    }
}

/* The network on packed activations and the same on bytes of as many bits give the same. */
static void test_packed(void)
{
    for (uint32_t round = 0; round < 100; round++) {
        const uint8_t bits = (uint8_t)random_in(&state, 2, 4);
        uint8_t *arenas[2];
        image_t images[2];
        eq_ctx_t ctx[2];
        for (uint32_t i = 0; i < 2; i++) { /* packed; in bytes */
            images[i] = shaping_image(i == 0 ? bits : 8);
            eq_tensor_record_t *tensor = image_section(images[i], EQ_SECTION_TENSORS);
            eq_operator_t *op = image_section(images[i], EQ_SECTION_OPERATORS);
            int8_t *table = (int8_t *)image_section(images[i], EQ_SECTION_TABLES);
            const uint32_t half = 1u << (bits - 1);
            for (uint32_t t = 0; t < 6; t++) {
                tensor[t].zero_point = (int16_t)(t % 2 ? -1 : 1);
            }
            tensor[PADDED].zero_point = tensor[GROUPED].zero_point;
            for (uint32_t o = 0; o <= OP_TABLE; o++) {
                op[o].clamp_min = (int16_t)-half;
                op[o].clamp_max = (int16_t)(half - 1);
            }
            for (uint32_t v = 0; v < 256; v++) {
                table[op[OP_TABLE].shift + v] =
                    (int8_t)((int32_t)(v * 7 % (2 * half)) - (int32_t)half);
            }
            ((int32_t *)(void *)(table + op[OP_PAD].bias))[0] = -2;
            image_seal(images[i]);
            const uint32_t bytes = image_header(images[i])->arena_bytes;
            arenas[i] = exact_block(bytes);
            memset(arenas[i], 0x5A, bytes);
            const eq_config_t config = {images[i].bytes, images[i].length, arenas[i], bytes};
            CHECK(eq_init(&ctx[i], &config) == EQ_OK, "%d bits", bits);
            fill(arenas[i], &tensor[IMAGE], bits, round + 1);
            CHECK(eq_run(&ctx[i], NULL) == EQ_OK, "runs");
        }
        for (uint32_t port = 0; port < 3; port++) {
            const eq_tensor_t *a = eq_output(&ctx[0], port), *b = eq_output(&ctx[1], port);
            for (uint32_t i = 0; i < b->bytes; i++) {
                CHECK(eq_value(a, i) == eq_value(b, i), "%d bits, output %u, value %u: %d, not %d",
                      bits, port, i, eq_value(a, i), eq_value(b, i));
            }
        }
        for (uint32_t i = 0; i < 2; i++) {
            free(arenas[i]);
            free(images[i].bytes);
        }
    }
}

/// Refusals ///

#define REFUSED(expected, statement) REFUSED_OF(shaping_image(8), expected, statement)

static void test_grouped_refusals(void)
{
    REFUSED(EQ_OK, (void)0);
    REFUSED(EQ_E_OPERATOR, op[OP_GROUPED].parameter = 0);
    REFUSED(EQ_E_OPERATOR, op[OP_GROUPED].parameter = 3); /* 4 filters */
    REFUSED(EQ_E_OPERATOR, op[OP_GROUPED].parameter = 4); /* 6 channels */
    REFUSED(EQ_E_OPERATOR, op[OP_GROUPED].parameter = 1); /* more weights than there are */
    REFUSED(EQ_E_OPERATOR, op[OP_GROUPED].kernel_width = 0);
    REFUSED(EQ_E_OPERATOR, op[OP_GROUPED].input[1] = GROUPED);
    REFUSED(EQ_E_OPERATOR, op[OP_GROUPED].scratch_bytes -= 1);
    REFUSED(EQ_E_ARITHMETIC, tables[op[OP_GROUPED].shift] = 31);
}

static void test_pad_refusals(void)
{
    REFUSED(EQ_OK, op[OP_PAD].pad_top = 2; op[OP_PAD].pad_left = 1; op[OP_PAD].parameter = 3);
    REFUSED(EQ_E_OPERATOR, op[OP_PAD].pad_top = 3);
    REFUSED(EQ_E_OPERATOR, op[OP_PAD].pad_left = 2);
    REFUSED(EQ_E_OPERATOR, op[OP_PAD].parameter = 4);
    REFUSED(EQ_E_OPERATOR, op[OP_PAD].parameter = 0xFFFF);
    REFUSED(EQ_E_OPERATOR, op[OP_PAD].input[1] = IMAGE);
    REFUSED(EQ_E_OPERATOR, op[OP_PAD].weights = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_PAD].multiplier = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_PAD].shift = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_PAD].scratch = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_PAD].scratch_bytes = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_PAD].bias += 2);
    REFUSED(EQ_E_OPERATOR, op[OP_PAD].bias = section[6].bytes);
    REFUSED(EQ_E_OPERATOR, op[OP_PAD].bias = 0xFFFFFFFCu);
    REFUSED(EQ_E_OPERATOR, tensor[PADDED].zero_point++);
    REFUSED(EQ_E_OPERATOR, tensor[PADDED].offset = tensor[GROUPED].offset + 8);
    REFUSED(EQ_OK, put_word(tables + op[OP_PAD].bias, -128));
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[OP_PAD].bias, -129));
    REFUSED(EQ_OK, put_word(tables + op[OP_PAD].bias, 127));
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[OP_PAD].bias, 128));
}

static void test_concat_refusals(void)
{
    REFUSED(EQ_E_OPERATOR, op[OP_CONCAT].parameter = 1);
    REFUSED(EQ_E_OPERATOR, op[OP_CONCAT].parameter = 3);
    REFUSED(EQ_E_OPERATOR, op[OP_CONCAT_WIDTH].parameter = 0);
    REFUSED(EQ_E_OPERATOR, op[OP_CONCAT].input[1] = EQ_NONE);
    REFUSED(EQ_E_OPERATOR, op[OP_CONCAT].input[1] = GROUPED);
    REFUSED(EQ_E_OPERATOR, op[OP_CONCAT].output = WIDE);
    REFUSED(EQ_E_OPERATOR, op[OP_CONCAT].weights = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_CONCAT].bias = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_CONCAT].scratch_bytes = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_CONCAT].multiplier += 2);
    REFUSED(EQ_E_OPERATOR, op[OP_CONCAT].multiplier = section[6].bytes - 4);
    REFUSED(EQ_E_OPERATOR, op[OP_CONCAT].shift = section[6].bytes - 1);
    REFUSED(EQ_E_OPERATOR, tensor[JOINED].offset = tensor[GROUPED].offset);
    REFUSED(EQ_E_OPERATOR, tensor[JOINED].offset = tensor[IMAGE].offset);
    REFUSED(EQ_E_OPERATOR, tensor[JOINED].shape[2] = 9; tensor[MAPPED].shape[2] = 9);
    REFUSED(EQ_E_ARITHMETIC, tables[op[OP_CONCAT].shift] = 24);
    REFUSED(EQ_E_ARITHMETIC, tables[op[OP_CONCAT].shift + 1] = 24);
    REFUSED(EQ_OK, tables[op[OP_CONCAT].shift + 1] = 23);
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[OP_CONCAT].multiplier + 4, 5));
}

static void test_table_refusals(void)
{
    REFUSED(EQ_OK, tensor[MAPPED].offset = tensor[PADDED].offset);
    REFUSED(EQ_E_OPERATOR, tensor[MAPPED].offset = tensor[JOINED].offset - 8);
    REFUSED(EQ_E_OPERATOR, op[OP_TABLE].parameter = 1);
    REFUSED(EQ_E_OPERATOR, op[OP_TABLE].input[1] = IMAGE);
    REFUSED(EQ_E_OPERATOR, op[OP_TABLE].output = WIDE);
    REFUSED(EQ_E_OPERATOR, op[OP_TABLE].weights = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_TABLE].multiplier = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_TABLE].shift += 1);
    REFUSED(EQ_E_OPERATOR, op[OP_TABLE].shift = 0xFFFFFFFFu);
}

int main(void)
{
    test_grouped();
    test_pad();
    test_concat();
    test_table();
    test_packed();
    test_grouped_refusals();
    test_pad_refusals();
    test_concat_refusals();
    test_table_refusals();
    return check_report("test_shaping");
}
