/*
 * test_wide.c - images with 16-bit activations: what their ports say, and each reason for which
 * eq_init refuses one. What the kernels compute is the affair of test_kernels.c.
 */
#include "wide.h"

static void test_ports(void)
{
    const image_t image = wide_image();
    const uint32_t bytes = image_header(image)->arena_bytes;
    uint8_t *arena = exact_block(bytes);
    eq_ctx_t ctx;
    memset(arena, 0x5A, bytes);
    const eq_status_t status = image_init(&ctx, image, arena, bytes);
    CHECK(status == EQ_OK && eq_run(&ctx, NULL) == EQ_OK, "%s", eq_status_name(status));
    const eq_tensor_t *input = eq_input(&ctx, 0);
    CHECK(input->bits == 16 && input->bytes == 120 && input->zero_point == 0, "input");
    CHECK(eq_value(input, 59) == 0x5A5A, "a value of two bytes");
    CHECK(eq_output(&ctx, 1)->bytes == 216 && eq_output(&ctx, 2)->bytes == 6, "outputs");
    CHECK(eq_value(eq_output(&ctx, 1), 0) == -3000, "the value of the pad");
    free(arena);
    free(image.bytes);
}

/* An operator from 1 × 1 × inputs to 1 × 1 × outputs, all of 16 bits. */
static eq_operator_t *single_operator(model_t *m, uint16_t kernel, uint32_t inputs,
                                      uint32_t outputs)
{
    (void)add_bits(m, 4, 1, 1, inputs, 16);
    (void)add_bits(m, 4, 1, 1, outputs, 16);
    m->variants[0] = (eq_variant_t){0, 1, 0, 0};
    m->blocks[0] = (eq_block_t){0, 1};
    m->ports[0] = (eq_port_t){0, 0};
    m->ports[1] = (eq_port_t){1, 1};
    m->count[EQ_SECTION_VARIANTS] = m->count[EQ_SECTION_BLOCKS] = 1;
    m->count[EQ_SECTION_PORTS] = 2;
    return add_operator(m, kernel, 0, 1);
}

/* A pool of one tap copies its input. */
static void test_label_and_lead(void)
{
    static const int32_t values[][5] = {/* three values, label, lead */
                                        {-32768, 32767, -32768, 1, 65535},
                                        {300, 299, 300, 0, 0},
                                        {-32768, -32768, -300, 2, 32468}};
    model_t *m = exact_block(sizeof *m);
    set_window(single_operator(m, 44, 3, 3), 1, 1, 1, 0);
    const image_t image = model_image(m);
    uint8_t *arena = exact_block(m->arena_bytes);
    eq_ctx_t ctx;
    eq_result_t result = {0};
    CHECK(image_init(&ctx, image, arena, m->arena_bytes) == EQ_OK, "good");
    for (uint32_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        int16_t *input = eq_input(&ctx, 0)->data;
        for (uint32_t v = 0; v < 3; v++) {
            input[v] = (int16_t)values[i][v];
        }
        CHECK(eq_run(&ctx, &result) == EQ_OK && result.label == (uint32_t)values[i][3] &&
                  result.confidence == (uint32_t)values[i][4],
              "row %u: label %u, confidence %u", i, result.label, result.confidence);
    }
    free(arena);
    free(image.bytes);
    free(m);
}

/// Refusals ///

#define REFUSED(expected, statement) REFUSED_OF(wide_image(), expected, statement)

static void test_tensors(void)
{
    REFUSED(EQ_OK, (void)0);
    REFUSED(EQ_E_TENSOR, tensor[T_IMAGE].zero_point = 1);
    REFUSED(EQ_E_TENSOR, tensor[T_IMAGE].zero_point = -1);
    REFUSED(EQ_E_TENSOR, tensor[T_IMAGE].bits = 15);
    REFUSED(EQ_E_TENSOR, tensor[T_IMAGE].bits = 17);
    REFUSED(EQ_E_TENSOR, tensor[T_IMAGE].bits = 32);
    REFUSED(EQ_E_TENSOR, tensor[T_SCORES].shape[2] = arena_bytes / 2);
    REFUSED(EQ_E_TENSOR, tensor[T_SCORES].offset = arena_bytes & ~7u);
    REFUSED(EQ_E_TENSOR, tensor[T_SCORES].offset = 0; tensor[T_SCORES].shape[2] = 0x7FFFFFFFu);
    REFUSED(EQ_E_TENSOR, tensor[T_SCORES].offset = 0; tensor[T_SCORES].shape[2] = 1u << 31);
}

static void test_storage(void)
{
    /* a kernel for bytes meets words */
    REFUSED(EQ_E_KERNEL, header->kernels[0] |= 1u << 1; op[WIDE_CONV].kernel = 1);
    REFUSED(EQ_E_KERNEL, header->kernels[0] |= 1u << 2; op[WIDE_TO_PACKED].kernel = 2);
    REFUSED(EQ_E_KERNEL, header->kernels[0] |= 1u << 5; op[WIDE_FC].kernel = 5);
    REFUSED(EQ_E_KERNEL, header->kernels[0] |= 1u << 7; op[WIDE_ADD].kernel = 7);
    REFUSED(EQ_E_KERNEL, header->kernels[0] |= 1u << 10; op[WIDE_MAX_POOL].kernel = 10);
    REFUSED(EQ_E_KERNEL, header->kernels[0] |= 1u << 23; op[WIDE_PAD].kernel = 23;
            op[WIDE_PAD].parameter = 0);
    /* a kernel for words meets none */
    REFUSED(EQ_E_KERNEL, tensor[T_SCORES].bits = 8; op[WIDE_FC].clamp_min = -128;
            op[WIDE_FC].clamp_max = 127);
    REFUSED(EQ_E_OPERATOR, tensor[T_LARGEST].bits = 8; op[WIDE_MAX_POOL].clamp_min = -128;
            op[WIDE_MAX_POOL].clamp_max = 127); /* a pool of other bits than its input */
    REFUSED(EQ_E_KERNEL, header->kernels[0] &= ~(1u << 24)); /* packed, without eq_rows_s8_ref */
    REFUSED(EQ_E_OPERATOR, op[WIDE_FC].scratch_bytes -= 1);  /* for what unpacks */
    REFUSED(EQ_E_OPERATOR, tensor[T_SUM].offset += 8);       /* in place, but not quite */
}

static void test_arithmetic(void)
{
    /* 27 weights of 4 bits, words: 27 · 8 · 32768 = 7 077 888, and a bias */
    uint8_t shift = 8;
    REFUSED(EQ_OK, tables[op[WIDE_CONV].shift] = shift);
    shift = 9;
    REFUSED(EQ_E_ARITHMETIC, tables[op[WIDE_CONV].shift] = shift);
    REFUSED(EQ_OK, tables[op[WIDE_CONV].shift] = (uint8_t)-31);
    REFUSED(EQ_E_ARITHMETIC, tables[op[WIDE_CONV].shift] = (uint8_t)-32);
    REFUSED(EQ_E_ARITHMETIC, tables[op[WIDE_CONV].shift] = (uint8_t)-128);
    REFUSED(EQ_OK, put_word(tables + op[WIDE_CONV].bias, INT32_MAX - 7077888));
    REFUSED(EQ_OK, put_word(tables + op[WIDE_CONV].bias, INT32_MIN)); /* shifted right by 4 */
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[WIDE_CONV].bias, INT32_MAX - 7077887);
            tables[op[WIDE_CONV].shift] = 0);
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[WIDE_CONV].multiplier, (1 << 29) - 1));
    REFUSED(EQ_E_ARITHMETIC, tables[op[WIDE_ADD].shift] = 1); /* 2^15 · 2^15 · 2 */
    REFUSED(EQ_E_ARITHMETIC, tables[op[WIDE_ADD].shift + 2] = 1);
    REFUSED(EQ_OK, op[WIDE_AVERAGE_POOL].kernel_height = op[WIDE_AVERAGE_POOL].kernel_width = 181);
    REFUSED(EQ_E_ARITHMETIC,
            op[WIDE_AVERAGE_POOL].kernel_height = op[WIDE_AVERAGE_POOL].kernel_width = 182);
    REFUSED(EQ_OK, put_word(tables + op[WIDE_PAD].bias, -32768));
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[WIDE_PAD].bias, 32768));
    REFUSED(EQ_E_ARITHMETIC, tables[op[WIDE_CONCAT].shift] = 16); /* 2^15 · 2^16 */
    REFUSED(EQ_OK, tables[op[WIDE_CONCAT].shift] = 15);
}

/* 600 weights of 127, words of 32767: the sum fits no int32, shifted it does, to (sum + 2^16) >> 17. */
static void test_long_sums(void)
{
    static const int8_t shifts[] = {-16, -1, 0};
    for (uint32_t i = 0; i < sizeof shifts; i++) {
        static const int32_t multiplier[] = {1 << 30}, bias[] = {12345};
        model_t *m = exact_block(sizeof *m);
        eq_operator_t *op = single_operator(m, 42, 600, 1);
        add_weights(m, op, 600, 8);
        memset(m->weights + op->weights, 127, 600);
        op->multiplier = add_words(m, 1, multiplier);
        op->bias = add_words(m, 1, bias);
        m->tables[op->shift] = (uint8_t)shifts[i];
        const image_t image = model_image(m);
        uint8_t *arena = exact_block(m->arena_bytes);
        eq_ctx_t ctx;
        const eq_status_t status = image_init(&ctx, image, arena, m->arena_bytes);
        CHECK(status == (shifts[i] < 0 ? EQ_OK : EQ_E_ARITHMETIC), "%d: %s", shifts[i],
              eq_status_name(status));
        if (shifts[i] == -16) {
            const int64_t sum = INT64_C(600) * 127 * 32767 + 12345;
            int16_t *input = eq_input(&ctx, 0)->data;
            for (uint32_t v = 0; v < 600; v++) {
                input[v] = 32767;
            }
            CHECK(eq_run(&ctx, NULL) == EQ_OK, "runs");
            const int32_t value = eq_value(eq_output(&ctx, 0), 0);
            CHECK(value == (sum + 65536) / 131072, "%d", value);
        }
        free(arena);
        free(image.bytes);
        free(m);
    }
}

int main(void)
{
    test_ports();
    test_label_and_lead();
    test_tensors();
    test_storage();
    test_arithmetic();
    test_long_sums();
    return check_report("test_wide");
}
