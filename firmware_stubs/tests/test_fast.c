/*
 * test_fast.c - the kernels of fast.h in an image: what they make of windows that they do not
 * serve, and each reason for which eq_init refuses them.
 */
#include "fast.h"

static void fill(uint8_t *memory, uint32_t bytes, uint32_t *state)
{
    for (uint32_t i = 0; i < bytes; i++) {
        memory[i] = (uint8_t)random_next(state);
    }
}

/* What the image makes of its arena, in a block of its own. */
static uint8_t *run(image_t image)
{
    const uint32_t bytes = image_header(image)->arena_bytes;
    uint8_t *arena = exact_block(bytes);
    eq_ctx_t ctx;
    image_seal(image);
    fill(arena, bytes, &(uint32_t){20261121u});
    const eq_status_t status = image_init(&ctx, image, arena, image_header(image)->arena_bytes);
    CHECK(status == EQ_OK, "%s", eq_status_name(status));
    CHECK(eq_run(&ctx, NULL) == EQ_OK, "does not run");
    return arena;
}

/// The same as the portable kernels ///

static void use_kernel(image_t image, uint32_t op, uint16_t kernel)
{
    eq_operator_t *operators = image_section(image, EQ_SECTION_OPERATORS);
    operators[op].kernel = kernel;
    image_header(image)->kernels[kernel / 32] |= 1u << kernel % 32;
}

/* Tables between all widths, of counts about whole words: in blocks of their exact size. */
static void test_tables(void)
{
    static const eq_kernel_t kernels[] = {
        {23, EQ_FAMILY_TABLE, EQ_SCRATCH_NONE, 8, EQ_ORDER_NONE, eq_table_s8_ref, NULL},
        {80, EQ_FAMILY_TABLE, EQ_SCRATCH_NONE, 4, EQ_ORDER_NONE, eq_table_s4_dsp, NULL}};
    uint32_t state = 20261121u;
    for (uint32_t round = 0; round < 4000; round++) {
        eq_tensor_record_t in = {.rank = 4, .shape = {1, 1, 0}}, out;
        in.shape[2] = (uint32_t)random_in(&state, 1, round % 8 == 0 ? 200 : 40);
        out = in;
        in.bits = (uint8_t)random_in(&state, 2, 8);
        out.bits = (uint8_t)RANDOM_OF(&state, 2, 2, 3, 4, 4, 5, 8);
        const int32_t low = -(1 << (out.bits - 1));
        const uint32_t bytes = eq_tensor_bytes(&out);
        int8_t *table = exact_block(256), *input = exact_block(eq_tensor_bytes(&in));
        for (uint32_t i = 0; i < 256; i++) {
            table[i] = (int8_t)RANDOM_OF(&state, low, -1 - low, random_in(&state, low, -1 - low));
        }
        fill((uint8_t *)input, eq_tensor_bytes(&in), &state);
        int8_t *output[2];
        for (uint32_t i = 0; i < 2; i++) {
            output[i] = exact_block(bytes);
            memset(output[i], 0x5A, bytes);
            const eq_operator_t op = {0};
            const eq_call_t call = {.kernel = &kernels[i],
                                    .op = &op,
                                    .in = {&in, &in},
                                    .out = &out,
                                    .input = {input, input},
                                    .output = output[i],
                                    .shift = table};
            (i == 0 ? eq_rows_s8_ref : eq_table_s4_dsp)(&call);
        }
        CHECK(memcmp(output[0], output[1], bytes) == 0, "%u values of %d bits to %d", in.shape[2],
              in.bits, out.bits);
        if (eq_width(in.bits) == eq_width(out.bits)) { /* in place */
            const eq_operator_t op = {0};
            const eq_call_t call = {&kernels[1],    &op,   {&in, &in}, &out,
                                    {input, input}, input, NULL,       NULL,
                                    NULL,           table, NULL};
            eq_table_s4_dsp(&call);
            CHECK(memcmp(output[0], input, bytes) == 0, "%u values in place", in.shape[2]);
        }
        free(output[0]);
        free(output[1]);
        free(input);
        free(table);
    }
}

/* Changes an operator of depthwise windows in both of two images, and expects the same output. */
#define SAME_AS_PORTABLE(bits, statement)                                                          \
    do {                                                                                           \
        uint8_t *arena[2];                                                                         \
        eq_tensor_record_t out = {0};                                                              \
        for (uint32_t i = 0; i < 2; i++) {                                                         \
            const image_t image = fast_image(bits);                                                \
            eq_operator_t *op = image_section(image, EQ_SECTION_OPERATORS);                        \
            int8_t *shift =                                                                        \
                (int8_t *)image_section(image, EQ_SECTION_TABLES) + op[OP_WINDOWS].shift;          \
            op += OP_WINDOWS;                                                                      \
            (void)shift;                                                                           \
            statement;                                                                             \
            if (i == 1) {                                                                          \
                use_kernel(image, OP_WINDOWS, 3);                                                  \
            }                                                                                      \
            arena[i] = run(image);                                                                 \
            const eq_tensor_record_t *tensors = image_section(image, EQ_SECTION_TENSORS);          \
            out = tensors[FAST_SUM];                                                               \
            free(image.bytes);                                                                     \
        }                                                                                          \
        CHECK(memcmp(arena[0] + out.offset, arena[1] + out.offset, eq_tensor_bytes(&out)) == 0,    \
              "%d bits, %s", bits, #statement);                                                    \
        free(arena[0]);                                                                            \
        free(arena[1]);                                                                            \
    } while (0)

static void test_windows(uint8_t bits)
{
    SAME_AS_PORTABLE(bits, (void)op);
    SAME_AS_PORTABLE(bits, op->pad_top = 0);
    SAME_AS_PORTABLE(bits, op->pad_left = 0);
    SAME_AS_PORTABLE(bits, op->pad_top = 2);
    SAME_AS_PORTABLE(bits, op->pad_left = 2);
    SAME_AS_PORTABLE(bits, op->pad_top = 60000);
    SAME_AS_PORTABLE(bits, op->pad_left = 60000);
    SAME_AS_PORTABLE(bits, op->stride_height = op->stride_width = 2);
    SAME_AS_PORTABLE(bits, op->stride_height = op->stride_width = 3);
    SAME_AS_PORTABLE(bits, op->stride_height = 2);
    SAME_AS_PORTABLE(bits, op->dilation_height = 2);
    SAME_AS_PORTABLE(bits, op->dilation_width = 2);
    SAME_AS_PORTABLE(bits, op->kernel_height = 1);
    SAME_AS_PORTABLE(bits, op->kernel_width = 2);
    SAME_AS_PORTABLE(bits, shift[2] = 0);
    SAME_AS_PORTABLE(bits, shift[0] = shift[5] = 3);
    SAME_AS_PORTABLE(bits, shift[1] = -22; shift[3] = -23; shift[4] = -31);
    SAME_AS_PORTABLE(bits, op->clamp_min = -2; op->clamp_max = 5);
}

/// Refusals ///

#define REFUSED(expected, statement) REFUSED_OF(fast_image(8), expected, statement)

static void put_constants(uint8_t *table, int32_t first, int32_t second, int32_t offset)
{
    const int32_t constants[] = {first, second, offset};
    memcpy(table, constants, sizeof constants);
}

static void test_affine(void)
{
    const int32_t half = 1 << 30;
    REFUSED(EQ_E_OPERATOR, op[OP_AFFINE].input[1] = EQ_NONE);
    REFUSED(EQ_E_OPERATOR, op[OP_AFFINE].input[1] = FAST_STRIDED);
    REFUSED(EQ_E_OPERATOR, op[OP_AFFINE].output = FAST_STRIDED);
    REFUSED(EQ_E_OPERATOR, op[OP_AFFINE].weights = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_AFFINE].bias = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_AFFINE].shift = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_AFFINE].scratch_bytes = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_AFFINE].multiplier += 2);
    REFUSED(EQ_E_OPERATOR, op[OP_AFFINE].multiplier = section[EQ_SECTION_TABLES].bytes - 8);
    REFUSED(EQ_OK, put_constants(tables + op[OP_AFFINE].multiplier, INT32_MAX, 0, half - 1));
    REFUSED(EQ_E_ARITHMETIC, put_constants(tables + op[OP_AFFINE].multiplier, INT32_MAX, 0, half));
    REFUSED(EQ_OK, put_constants(tables + op[OP_AFFINE].multiplier, INT32_MIN, 0, half - 1));
    REFUSED(EQ_E_ARITHMETIC, put_constants(tables + op[OP_AFFINE].multiplier, INT32_MIN, 0, half));
    REFUSED(EQ_OK, put_constants(tables + op[OP_AFFINE].multiplier, half, -half, 1 - half));
    REFUSED(EQ_E_ARITHMETIC, put_constants(tables + op[OP_AFFINE].multiplier, half, -half, -half));
    REFUSED(EQ_E_ARITHMETIC, put_constants(tables + op[OP_AFFINE].multiplier, 0, 0, INT32_MIN));
    REFUSED(EQ_OK, put_constants(tables + op[OP_AFFINE].multiplier, 0, 0, INT32_MAX));
}

static void test_narrow(void)
{
    REFUSED(EQ_E_OPERATOR, op[OP_NARROW].input[1] = FAST_STRIDED);
    REFUSED(EQ_E_OPERATOR, op[OP_NARROW].output = FAST_SUM);
    REFUSED(EQ_E_OPERATOR, tensor[FAST_NARROW].offset = tensor[FAST_STRIDED].offset);
    REFUSED(EQ_OK, tensor[FAST_NARROW].bits = tensor[FAST_STRIDED].bits);
    REFUSED(EQ_E_OPERATOR, op[OP_NARROW].multiplier = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_NARROW].scratch_bytes = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_NARROW].shift = section[EQ_SECTION_TABLES].bytes - 248);
}

static void test_planes(void)
{
    const uint32_t id = 81, last = 4 * 2 * 8; /* 36 weights take as much room as 64 */
    REFUSED(EQ_E_OPERATOR, op[OP_LEVEL].weights = section[EQ_SECTION_WEIGHTS].bytes - last + 1);
    REFUSED(EQ_OK, op[OP_LEVEL].weights = section[EQ_SECTION_WEIGHTS].bytes - last);
    REFUSED(EQ_OK, op[OP_LEVEL].parameter = 0x80);
    REFUSED(EQ_OK, op[OP_LEVEL].parameter = 0xFF);
    REFUSED(EQ_OK, op[OP_LEVEL].weight_bits = 6; op[OP_LEVEL].parameter = 0x28);
    REFUSED(EQ_E_ARITHMETIC, op[OP_LEVEL].weight_bits = 6);
    REFUSED(EQ_E_ARITHMETIC, op[OP_LEVEL].parameter = 0);
    REFUSED(EQ_E_ARITHMETIC, op[OP_LEVEL].parameter = 0x08);
    REFUSED(EQ_E_ARITHMETIC, op[OP_LEVEL].parameter = 0x180);
    REFUSED(EQ_E_OPERATOR, op[OP_LEVEL].weight_bits = 9);
    REFUSED(EQ_E_OPERATOR, op[OP_LEVEL].scratch_bytes -= 1);
    REFUSED(EQ_E_OPERATOR, op[OP_LEVEL].layout = EQ_LAYOUT_DENSE); /* has no parameter */
    REFUSED(EQ_E_LAYOUT, image_header(image)->kernels[id / 32] &= ~(1u << id % 32));
    REFUSED(EQ_E_LAYOUT, op[OP_LEVEL].layout = EQ_LAYOUT_PAIRS; op[OP_LEVEL].parameter = 0);
    REFUSED(EQ_E_ARITHMETIC, op[OP_LEVEL].kernel = 20; op[OP_LEVEL].parameter = 2;
            image_header(image)->kernels[0] |= 1u << 20);
}

static void test_scratch(void)
{
    REFUSED(EQ_E_OPERATOR, op[OP_TABLES].scratch_bytes -= 1);
    REFUSED(EQ_E_OPERATOR, op[OP_TABLES].scratch = tensor[FAST_SUM].offset);
    REFUSED(EQ_E_OPERATOR, op[OP_TABLES].scratch += 4);
    REFUSED(EQ_E_OPERATOR, op[OP_WINDOWS].scratch_bytes -= 1); /* 9 weights and 36 values */
    REFUSED(EQ_E_OPERATOR, op[OP_STRIDED].scratch_bytes -= 1); /* 36 values */
    REFUSED(EQ_E_OPERATOR, op[OP_MAXIMUM].scratch_bytes = 8);
}

int main(void)
{
    test_windows(8);
    test_windows(4);
    test_affine();
    test_scratch();
    test_tables();
    test_narrow();
    test_planes();
    return check_report("test_fast");
}
