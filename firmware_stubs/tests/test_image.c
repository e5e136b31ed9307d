/*
 * test_image.c - the interface on a good image, and each reason for which eq_init refuses one.
 */
#include "model.h"

/// A good image ///

static void test_ports(void)
{
    const image_t image = seed_image();
    const uint32_t bytes = image_header(image)->arena_bytes;
    uint8_t *arena = exact_block(bytes);
    eq_ctx_t ctx;
    const eq_status_t status = image_init(&ctx, image, arena, bytes);
    CHECK(status == EQ_OK, "%s", eq_status_name(status));
    const eq_tensor_t *input = eq_input(&ctx, 0);
    CHECK(input != NULL && input->bytes == 120 && input->rank == 4 && input->bits == 8, "input");
    CHECK(input->shape[0] == 5 && input->shape[1] == 6 && input->shape[2] == 4, "its shape");
    CHECK(input->zero_point == 4 && input->scale == 0.5f, "its scale");
    CHECK(input->data == arena, "its place");
    CHECK(eq_input(&ctx, 1) == NULL && eq_output(&ctx, 3) == NULL, "no more ports");
    CHECK(eq_output(&ctx, 1)->bytes == 9 && eq_output(&ctx, 0)->rank == 2, "outputs");
    CHECK(eq_output(&ctx, 2)->bytes == 3 && eq_output(&ctx, 2)->bits == 3, "a packed output");
    CHECK(eq_set_tradeoff(&ctx, 1) == EQ_E_GATES, "a model without gates");
    free(arena);
    free(image.bytes);
}

static void fill_input(const eq_ctx_t *ctx, uint32_t seed)
{
    const eq_tensor_t *input = eq_input(ctx, 0);
    for (uint32_t i = 0; i < input->bytes; i++) {
        ((uint8_t *)input->data)[i] = (uint8_t)random_next(&seed);
    }
}

/* Stepping and running agree; a run that eq_step began is finished; the arena starts with dirt. */
static void test_run_and_step(void)
{
    const image_t image = seed_image();
    const uint32_t bytes = image_header(image)->arena_bytes;
    uint8_t *arena = exact_block(bytes);
    int8_t outputs[4][7];
    eq_ctx_t ctx;
    eq_result_t result = {0};
    CHECK(image_init(&ctx, image, arena, bytes) == EQ_OK, "good");
    for (uint32_t round = 0; round < 4; round++) {
        uint32_t steps = 0;
        memset(arena, (int)(0x55 * round), bytes);
        fill_input(&ctx, 7);
        if (round % 2 == 1) {
            while (eq_step(&ctx) == EQ_MORE && ++steps < (round == 1 ? 100u : 3u)) {
            }
            CHECK(steps == (round == 1 ? OPERATORS - 1u : 3u), "%u steps", steps);
        }
        if (round != 1) {
            CHECK(eq_run(&ctx, &result) == EQ_OK, "runs");
        }
        memcpy(outputs[round], eq_output(&ctx, 0)->data, 7);
        CHECK(memcmp(outputs[round], outputs[0], 7) == 0, "round %u differs", round);
    }
    int32_t best = -129;
    for (uint32_t i = 0; i < 7; i++) {
        best = outputs[0][i] > best ? outputs[0][i] : best;
    }
    CHECK(outputs[0][result.label] == best, "label %u", result.label);
    CHECK(result.exit == 0 && result.path == 0 && result.cost == 65536, "no gates");
    free(arena);
    free(image.bytes);
}

/* One operator from a tensor of 1 × 1 × inputs to one of height × 1 × channels. */
static eq_operator_t *single_operator(model_t *m, uint16_t kernel, uint32_t inputs, uint32_t height,
                                      uint32_t channels)
{
    const uint16_t in = add_tensor(m, 4, 1, 1, inputs);
    const uint16_t out = add_tensor(m, 4, height, 1, channels);
    m->tensors[in].zero_point = m->tensors[out].zero_point = kernel == 10 ? -128 : 0;
    m->variants[0] = (eq_variant_t){0, 1, 0, 0};
    m->blocks[0] = (eq_block_t){0, 1};
    m->ports[0] = (eq_port_t){in, 0};
    m->ports[1] = (eq_port_t){out, 1};
    m->count[EQ_SECTION_VARIANTS] = m->count[EQ_SECTION_BLOCKS] = 1;
    m->count[EQ_SECTION_PORTS] = 2;
    return add_operator(m, kernel, in, out);
}

/* An average pool of one tap copies its input. */
static void test_label_is_the_first_of_equals(void)
{
    model_t *m = exact_block(sizeof *m);
    set_window(single_operator(m, 9, 5, 1, 5), 1, 1, 1, 0);
    const image_t image = model_image(m);
    uint8_t *arena = exact_block(m->arena_bytes);
    eq_ctx_t ctx;
    eq_result_t result = {0};
    static const int8_t values[][7] = {/* five values, label, lead */
                                       {1, 9, 9, 0, -1, 1, 0},
                                       {-128, -128, -128, -128, -128, 0, 0},
                                       {5, 4, 3, 2, 1, 0, 1},
                                       {-128, -128, -128, -128, -28, 4, 100}};
    CHECK(image_init(&ctx, image, arena, m->arena_bytes) == EQ_OK, "good, without weights");
    for (uint32_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        memcpy(eq_input(&ctx, 0)->data, values[i], 5);
        CHECK(eq_run(&ctx, &result) == EQ_OK && result.label == (uint32_t)values[i][5] &&
                  result.confidence == (uint32_t)values[i][6],
              "row %u: label %u, confidence %u", i, result.label, result.confidence);
    }
    memcpy(eq_input(&ctx, 0)->data, "\x7F\x80\x80\x80\x80", 5);
    CHECK(eq_run(&ctx, &result) == EQ_OK && result.confidence == 255, "the greatest lead");
    free(arena);
    free(image.bytes);
    free(m);
}

static void test_status_names(void)
{
#define NAMED(status) CHECK(strcmp(eq_status_name(status), #status) == 0, #status)
    NAMED(EQ_MORE);
    NAMED(EQ_OK);
    NAMED(EQ_E_ARGUMENT);
    NAMED(EQ_E_LENGTH);
    NAMED(EQ_E_MAGIC);
    NAMED(EQ_E_FORMAT);
    NAMED(EQ_E_ABI);
    NAMED(EQ_E_CRC);
    NAMED(EQ_E_SECTION);
    NAMED(EQ_E_LAYOUT);
    NAMED(EQ_E_KERNEL);
    NAMED(EQ_E_ARENA);
    NAMED(EQ_E_TENSOR);
    NAMED(EQ_E_OPERATOR);
    NAMED(EQ_E_ARITHMETIC);
    NAMED(EQ_E_GATES);
    CHECK(strcmp(eq_status_name((eq_status_t)-15), "not a status") == 0, "below");
    CHECK(strcmp(eq_status_name((eq_status_t)2), "not a status") == 0, "above");
}

/// Refusals ///

static void test_arguments(void)
{
    const image_t image = seed_image();
    const uint32_t bytes = image_header(image)->arena_bytes;
    uint64_t *arena = exact_block(bytes + 8);
    eq_ctx_t ctx;
    eq_config_t config = {image.bytes + 4, image.length - 8, arena, bytes};
    CHECK(eq_init(NULL, &config) == EQ_E_ARGUMENT, "no context");
    CHECK(eq_init(&ctx, NULL) == EQ_E_ARGUMENT, "no configuration");
    CHECK(eq_init(&ctx, &config) == EQ_E_ARGUMENT, "a misaligned image");
    config.image = NULL;
    CHECK(eq_init(&ctx, &config) == EQ_E_ARGUMENT, "no image");
    CHECK(eq_run(&ctx, NULL) == EQ_E_ARGUMENT && eq_step(&ctx) == EQ_E_ARGUMENT, "no context");
    CHECK(eq_step(NULL) == EQ_E_ARGUMENT && eq_run(NULL, NULL) == EQ_E_ARGUMENT, "null context");
    CHECK(eq_set_tradeoff(&ctx, 0) == EQ_E_ARGUMENT, "no context");
    CHECK(eq_input(&ctx, 0) == NULL && eq_output(&ctx, 0) == NULL, "no ports");
    CHECK(eq_input(NULL, 0) == NULL && eq_output(NULL, 0) == NULL, "no ports of no context");
    CHECK(image_init(&ctx, image, NULL, bytes) == EQ_E_ARENA, "no arena");
    CHECK(image_init(&ctx, image, (uint8_t *)arena + 4, bytes) == EQ_E_ARENA, "a misaligned arena");
    CHECK(image_init(&ctx, image, arena, bytes - 1) == EQ_E_ARENA, "an arena one byte too small");
    CHECK(image_init(&ctx, image, arena, bytes) == EQ_OK, "an arena that just fits");
    free(arena);
    free(image.bytes);
}

/* Every shorter length is refused, and not a byte beyond it is read. */
static void test_lengths(void)
{
    const image_t image = seed_image();
    uint64_t arena[1];
    eq_ctx_t ctx;
    for (uint32_t length = 0; length < image.length; length++) {
        image_t cut = {exact_block(length), length};
        memcpy(cut.bytes, image.bytes, length);
        CHECK(image_init(&ctx, cut, arena, sizeof arena) == EQ_E_LENGTH, "%u bytes", length);
        if (length % 8 == 0 && length >= sizeof(eq_header_t)) {
            image_header(cut)->length = length;
            CHECK(image_init(&ctx, cut, arena, sizeof arena) == EQ_E_CRC, "%u bytes", length);
            image_seal(cut);
            CHECK(image_init(&ctx, cut, arena, sizeof arena) < 0, "%u bytes, sealed", length);
        }
        free(cut.bytes);
    }
    free(image.bytes);
}

/* Every single damaged byte behind the checksum is found by it. */
static void test_checksum(void)
{
    const image_t image = seed_image();
    uint64_t arena[1];
    eq_ctx_t ctx;
    for (uint32_t i = 16; i < image.length; i++) {
        image.bytes[i] ^= 0x10;
        CHECK(image_init(&ctx, image, arena, sizeof arena) == EQ_E_CRC, "byte %u", i);
        image.bytes[i] ^= 0x10;
    }
    free(image.bytes);
}

#define REFUSED(expected, statement) REFUSED_OF(seed_image(), expected, statement)

static void test_header(void)
{
    REFUSED(EQ_OK, (void)0);
    REFUSED(EQ_E_LENGTH, header->length += 8);
    REFUSED(EQ_E_MAGIC, header->magic = 0x5145494Du);
    REFUSED(EQ_E_FORMAT, header->format = 2);
    REFUSED(EQ_E_ABI, header->abi = 2);
    REFUSED(EQ_E_LAYOUT, header->layouts |= 0x80000000u);
    REFUSED(EQ_E_KERNEL, header->kernels[0] |= 1u);
    REFUSED(EQ_E_KERNEL, header->kernels[0] |= 1u << 11);
    REFUSED(EQ_E_KERNEL, header->kernels[3] |= 1u << 31);
    REFUSED(EQ_E_ARENA, header->arena_bytes++);
    REFUSED(EQ_E_ARENA, header->arena_bytes = 0xFFFFFFFFu);
    REFUSED(EQ_E_TENSOR, header->arena_bytes = 8);
    REFUSED(EQ_E_SECTION, header->reserved = 1);
}

static void test_sections(void)
{
    REFUSED(EQ_E_SECTION, section[3].kind = 0);
    REFUSED(EQ_E_SECTION, section[7].kind = 9);
    REFUSED(EQ_E_SECTION, section[7].kind = 0xFFFFFFFFu);
    REFUSED(EQ_E_SECTION, section[7].kind = EQ_SECTION_TABLES);
    REFUSED(EQ_E_SECTION, header->section_count = 5);
    REFUSED(EQ_E_SECTION, header->section_count = 0);
    REFUSED(EQ_E_SECTION, header->section_count = 0xFFFFFFFFu);
    REFUSED(EQ_E_SECTION, section[2].offset += 4);
    REFUSED(EQ_E_SECTION, section[2].offset -= 8);
    REFUSED(EQ_E_SECTION, section[1].offset = 0);
    REFUSED(EQ_E_SECTION, section[7].offset = 0xFFFFFFF8u);
    REFUSED(EQ_E_SECTION, section[7].bytes = 0xFFFFFFFFu);
    REFUSED(EQ_E_SECTION, section[7].bytes += 8);
    REFUSED(EQ_E_SECTION, section[1].bytes -= 1);
    REFUSED(EQ_E_SECTION, section[4].bytes = 0);
    REFUSED(EQ_E_OPERATOR, header->section_count = 6); /* no weights */
    REFUSED(EQ_E_OPERATOR, section[7].bytes -= 1);
    REFUSED(EQ_E_OPERATOR, section[6].bytes = 0);
    REFUSED(EQ_E_OPERATOR, section[1].bytes -= (uint32_t)sizeof *tensor);
    REFUSED(EQ_E_SECTION, section[2].bytes -= (uint32_t)sizeof *op);
}

static void test_chain(void)
{
    REFUSED(EQ_E_SECTION, variant[1].operator_count = 0);
    REFUSED(EQ_E_SECTION, variant[2].operator_count++);
    REFUSED(EQ_E_SECTION, variant[2].first_operator = 5);
    REFUSED(EQ_E_SECTION, variant[2].first_operator = 0xFFFF);
    REFUSED(EQ_E_SECTION, variant[0].level = 16);
    REFUSED(EQ_E_SECTION, variant[0].reserved = 1);
    REFUSED(EQ_E_SECTION, block[0].variant_count = 0);
    REFUSED(EQ_E_SECTION, block[1].variant_count = 2);
    REFUSED(EQ_E_SECTION, block[1].first_variant = 3);
    REFUSED(EQ_E_SECTION, port[0].tensor = OPERATORS);
    REFUSED(EQ_E_SECTION, port[0].tensor = EQ_NONE);
    REFUSED(EQ_E_SECTION, port[0].direction = 2);
    REFUSED(EQ_E_SECTION, port[0].direction = 1);
    REFUSED(EQ_E_SECTION, section[5].bytes = sizeof *port);
}

static void test_tensors(void)
{
    REFUSED(EQ_E_TENSOR, tensor[2].offset += 4);
    REFUSED(EQ_E_TENSOR, tensor[2].offset = arena_bytes & ~7u);
    REFUSED(EQ_E_TENSOR, tensor[2].offset = 0xFFFFFFF8u);
    REFUSED(EQ_E_TENSOR, tensor[0].shape[0] = 0);
    REFUSED(EQ_E_TENSOR, tensor[0].shape[1] = 0);
    REFUSED(EQ_E_TENSOR, tensor[0].shape[2] = 0);
    REFUSED(EQ_E_TENSOR, tensor[0].shape[2] = 0xFFFFFFFFu);
    REFUSED(EQ_E_TENSOR, tensor[0].shape[0] = tensor[0].shape[1] = 0x10000u);
    REFUSED(EQ_E_TENSOR, tensor[0].shape[0] = 0x80000000u; tensor[0].shape[1] = 2);
    REFUSED(EQ_E_TENSOR, tensor[0].offset = 0; tensor[0].shape[0] = tensor[0].shape[1] = 1;
            tensor[0].shape[2] = arena_bytes + 1);
    REFUSED(EQ_E_OPERATOR, tensor[0].offset = 0; tensor[0].shape[0] = tensor[0].shape[1] = 1;
            tensor[0].shape[2] = arena_bytes);
    REFUSED(EQ_E_TENSOR, tensor[0].bits = 1);
    REFUSED(EQ_E_TENSOR, tensor[0].bits = 9);
    REFUSED(EQ_E_TENSOR, tensor[0].bits = 0);
    REFUSED(EQ_E_TENSOR, tensor[0].bits = 255);
    REFUSED(EQ_OK, tensor[0].zero_point = 7; tensor[0].bits = 5);
    REFUSED(EQ_E_TENSOR, tensor[0].zero_point = 16; tensor[0].bits = 5);
    REFUSED(EQ_E_TENSOR, tensor[0].zero_point = -17; tensor[0].bits = 5);
    REFUSED(EQ_E_TENSOR, tensor[10].zero_point = 8);
    REFUSED(EQ_E_TENSOR, tensor[10].zero_point = -9);
    REFUSED(EQ_E_TENSOR, tensor[11].zero_point = 2);
    REFUSED(EQ_E_TENSOR, tensor[10].offset = 0; tensor[10].shape[0] = tensor[10].shape[1] = 1;
            tensor[10].shape[2] = 2 * arena_bytes + 1);
    REFUSED(EQ_E_TENSOR, tensor[10].shape[2] = 1u << 30);
    REFUSED(EQ_E_KERNEL, header->kernels[0] &= ~(1u << 24)); /* packed, without eq_rows_s8_ref */
    REFUSED(EQ_E_TENSOR, tensor[0].rank = 3);
    REFUSED(EQ_E_TENSOR, tensor[0].rank = 2);
    REFUSED(EQ_E_TENSOR, tensor[0].zero_point = 128);
    REFUSED(EQ_E_TENSOR, tensor[0].zero_point = -129);
}

static void test_operands(void)
{
    REFUSED(EQ_E_KERNEL, op[0].kernel = 99);
    REFUSED(EQ_E_KERNEL, op[0].kernel = 0xFFFF);
    REFUSED(EQ_E_OPERATOR, header->kernels[0] &= ~(1u << 2));
    REFUSED(EQ_E_OPERATOR, op[0].parameter = 1);
    REFUSED(EQ_E_OPERATOR, op[0].input[0] = OPERATORS);
    REFUSED(EQ_E_OPERATOR, op[0].input[0] = EQ_NONE);
    REFUSED(EQ_E_OPERATOR, op[0].input[1] = OPERATORS);
    REFUSED(EQ_E_OPERATOR, op[0].input[1] = 3);
    REFUSED(EQ_E_OPERATOR, op[0].output = OPERATORS);
    REFUSED(EQ_E_OPERATOR, op[0].output = op[0].input[0]);
    REFUSED(EQ_E_OPERATOR, tensor[1].offset = tensor[0].offset + 8);
    REFUSED(EQ_E_OPERATOR, tensor[2].rank = 2; tensor[2].shape[0] = tensor[2].shape[1] = 1);
    REFUSED(EQ_E_OPERATOR, tensor[2].shape[2] = 7); /* depthwise */
    REFUSED(EQ_E_OPERATOR, tensor[8].shape[1] = 7; tensor[8].shape[2] = 1; tensor[8].rank = 4);
    REFUSED(EQ_E_OPERATOR, op[OP_ADD].input[1] = EQ_NONE);
    REFUSED(EQ_E_OPERATOR, op[OP_ADD].input[1] = 0);
    REFUSED(EQ_E_OPERATOR, op[OP_ADD].output = 0);
    REFUSED(EQ_E_OPERATOR, op[OP_ADD].weights = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_ADD].bias = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_ADD].scratch_bytes = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_ADD].multiplier += 2);
    REFUSED(EQ_E_OPERATOR, op[OP_ADD].shift = section[6].bytes - 2);
    REFUSED(EQ_E_OPERATOR, op[OP_ADD].kernel = 50); /* wants scratch */
    REFUSED(EQ_E_OPERATOR, op[OP_SOFTMAX].input[1] = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_SOFTMAX].output = 7);
    REFUSED(EQ_E_OPERATOR, tensor[9].zero_point = -127);
    REFUSED(EQ_OK, op[1].input[0] = 0; op[OP_ADD].input[1] = 1);
    REFUSED(EQ_E_OPERATOR, op[1].input[0] = 0; op[OP_ADD].input[1] = 1;
            tensor[2].offset = tensor[1].offset + 8);
    REFUSED(EQ_E_OPERATOR, op[OP_SOFTMAX].shift = 0xFFFFFFFFu);
    REFUSED(EQ_E_OPERATOR, op[OP_SOFTMAX].scratch = 8);
    REFUSED(EQ_E_KERNEL, op[0].kernel = 24);
    REFUSED(EQ_E_OPERATOR, tensor[14].bits = 2; op[OP_PACKED_ADD].clamp_min = 0;
            op[OP_PACKED_ADD].clamp_max = 1);    /* in place of another storage */
    REFUSED(EQ_E_OPERATOR, tensor[12].bits = 3); /* a pool of other bits than its input */
    REFUSED(EQ_E_TENSOR, tensor[15].bits = 4);   /* a softmax has 8 bits */
}

/* Outputs over inputs: a convolution from either side, a pool in place, packed rows. */
static void test_lags(void)
{
    REFUSED(EQ_OK, tensor[1].offset = 0; tensor[0].offset = 168); /* 4 · 48 + 47 − 3 · 24 = 167 */
    REFUSED(EQ_E_OPERATOR, tensor[1].offset = 0; tensor[0].offset = 160);
    REFUSED(EQ_OK, tensor[1].offset = tensor[0].offset + 48); /* two rows of the input */
    REFUSED(EQ_E_OPERATOR, tensor[1].offset = tensor[0].offset + 40);
    REFUSED(EQ_E_OPERATOR, tensor[1].offset = tensor[0].offset);
    REFUSED(EQ_OK, op[0].kernel = 1; tensor[1].offset = tensor[0].offset + 48);
    REFUSED(EQ_E_OPERATOR, op[0].kernel = 1; tensor[1].offset = tensor[0].offset + 40);
    REFUSED(EQ_OK, tensor[3].offset = tensor[2].offset);
    REFUSED(EQ_E_OPERATOR, tensor[3].offset = tensor[2].offset + 8);
    REFUSED(EQ_OK, tensor[11].offset = tensor[10].offset - 16);
    REFUSED(EQ_E_OPERATOR, tensor[11].offset = tensor[10].offset - 8);
    REFUSED(EQ_E_OPERATOR, tensor[12].offset = tensor[11].offset); /* a packed pool */
    REFUSED(EQ_E_OPERATOR, tensor[7].offset = tensor[6].offset);   /* fully connected */
}

static void test_tables(void)
{
    REFUSED(EQ_E_LAYOUT, op[0].layout = 1);
    REFUSED(EQ_E_OPERATOR, op[0].weight_bits = 1);
    REFUSED(EQ_E_OPERATOR, op[0].weight_bits = 9);
    REFUSED(EQ_E_OPERATOR, op[OP_PACKED_FC].weights += 1);
    REFUSED(EQ_E_OPERATOR, op[0].weights = 0xFFFFFFFFu);
    REFUSED(EQ_E_OPERATOR, op[0].bias += 1);
    REFUSED(EQ_E_OPERATOR, op[0].bias = section[6].bytes - 28);
    REFUSED(EQ_E_OPERATOR, op[0].bias = 0xFFFFFFFCu);
    REFUSED(EQ_E_OPERATOR, op[0].multiplier += 2);
    REFUSED(EQ_E_OPERATOR, op[0].multiplier = 0xFFFFFFFCu);
    REFUSED(EQ_E_OPERATOR, op[0].shift = section[6].bytes - 7);
    REFUSED(EQ_E_OPERATOR, op[0].shift = 0xFFFFFFFFu);
    REFUSED(EQ_E_OPERATOR, op[0].scratch_bytes -= 1);
    REFUSED(EQ_E_OPERATOR, op[1].scratch_bytes -= 1);
    for (uint32_t i = OP_PACKED_CONV; i < OPERATORS; i++) {
        if (i != OP_PACKED_ADD) {
            REFUSED(EQ_E_OPERATOR, op[i].scratch_bytes -= 1);
        }
    }
    REFUSED(EQ_E_OPERATOR, op[OP_PACKED_ADD].scratch_bytes = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_PACKED_POOL].scratch = tensor[12].offset);
    REFUSED(EQ_E_OPERATOR, op[0].scratch += 4);
    REFUSED(EQ_E_OPERATOR, op[0].scratch = arena_bytes & ~7u);
    REFUSED(EQ_E_OPERATOR, op[0].scratch = 0xFFFFFFF8u);
    REFUSED(EQ_E_OPERATOR, op[0].scratch_bytes = 0xFFFFFFFFu);
    REFUSED(EQ_E_OPERATOR, op[0].scratch = tensor[0].offset);
    REFUSED(EQ_E_OPERATOR, op[0].scratch = tensor[1].offset + 232);
}

static void test_windows(void)
{
    REFUSED(EQ_E_OPERATOR, op[0].kernel_height = 0);
    REFUSED(EQ_E_OPERATOR, op[0].kernel_width = 0);
    REFUSED(EQ_E_OPERATOR, op[0].kernel_height = 100);
    REFUSED(EQ_E_OPERATOR, op[0].kernel_height = op[0].kernel_width = 0xFFFF);
    REFUSED(EQ_E_OPERATOR, op[0].stride_height = 0);
    REFUSED(EQ_E_OPERATOR, op[0].stride_width = 0);
    REFUSED(EQ_E_OPERATOR, op[0].dilation_height = 0);
    REFUSED(EQ_E_OPERATOR, op[0].dilation_width = 0);
    REFUSED(EQ_OK, op[0].stride_height = op[0].dilation_height = op[0].pad_top = 0xFFFF);
    REFUSED(EQ_OK, op[0].stride_width = op[0].dilation_width = op[0].pad_left = 0xFFFF);
    REFUSED(EQ_E_OPERATOR, op[OP_MAX_POOL].pad_top = 2);
    REFUSED(EQ_E_OPERATOR, op[OP_MAX_POOL].pad_left = 2);
    REFUSED(EQ_E_OPERATOR, op[OP_MAX_POOL].stride_height = 5);
    REFUSED(EQ_OK, op[OP_MAX_POOL].stride_height = 4);
    REFUSED(EQ_E_OPERATOR, op[OP_MAX_POOL].stride_width = 3);
    REFUSED(EQ_E_OPERATOR, op[OP_MAX_POOL].dilation_height = 2);
    REFUSED(EQ_E_OPERATOR, op[OP_MAX_POOL].dilation_width = 2);
    REFUSED(EQ_E_OPERATOR, op[OP_MAX_POOL].multiplier = 8);
    REFUSED(EQ_E_OPERATOR, op[OP_MAX_POOL].input[1] = 0);
    REFUSED(EQ_E_OPERATOR, op[OP_MAX_POOL].output = 5);
    REFUSED(EQ_E_OPERATOR, tensor[3].zero_point++);
    REFUSED(EQ_E_OPERATOR, op[OP_AVERAGE_POOL].kernel_width = 0);
}

static void test_arithmetic(void)
{
    REFUSED(EQ_E_ARITHMETIC, op[0].clamp_min = -129);
    REFUSED(EQ_E_ARITHMETIC, op[0].clamp_max = 128);
    REFUSED(EQ_E_ARITHMETIC, op[OP_PACKED_CONV].clamp_min = -9);
    REFUSED(EQ_E_ARITHMETIC, op[OP_PACKED_CONV].clamp_max = 8);
    REFUSED(EQ_E_ARITHMETIC, op[OP_PACKED_DEPTHWISE].clamp_max = 2);
    REFUSED(EQ_E_ARITHMETIC, op[0].clamp_min = 1; op[0].clamp_max = 0);
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[0].multiplier, (1 << 29) - 1));
    REFUSED(EQ_OK, put_word(tables + op[0].multiplier, 1 << 29));
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[0].multiplier + 28, -(1 << 30)));
    REFUSED(EQ_OK, put_word(tables + op[0].multiplier, 0));
    REFUSED(EQ_E_ARITHMETIC, tables[op[0].shift] = (uint8_t)-32);
    REFUSED(EQ_E_ARITHMETIC, tables[op[0].shift + 7] = 31);
    REFUSED(EQ_OK, tables[op[0].shift] = (uint8_t)-31);
    /* 36 weights of 4 bits, values up to 132 from the zero point: 38 016 */
    REFUSED(EQ_OK, put_word(tables + op[0].bias, (1 << 30) - 38016 - 1));
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[0].bias, (1 << 30) - 38016));
    REFUSED(EQ_OK, put_word(tables + op[0].bias, -(1 << 30) + 38016 + 1));
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[0].bias, -(1 << 30) + 38016));
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[0].bias, INT32_MIN));
    REFUSED(EQ_OK, put_word(tables + op[0].bias, 65536 - 38016 - 1); tables[op[0].shift] = 15);
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[0].bias, 65536 - 38016);
            tables[op[0].shift] = 15);
    /* 9 weights of 5 bits, nibbles up to 9 from the zero point 1: 1 296 */
    REFUSED(EQ_OK, put_word(tables + op[OP_PACKED_DEPTHWISE].bias, (1 << 30) - 1296 - 1));
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[OP_PACKED_DEPTHWISE].bias, (1 << 30) - 1296));
    REFUSED(EQ_E_ARITHMETIC, tables[op[OP_ADD].shift] = 4);
    REFUSED(EQ_E_ARITHMETIC, tables[op[OP_ADD].shift + 1] = 5);
    REFUSED(EQ_E_ARITHMETIC, tables[op[OP_ADD].shift + 2] = 4);
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[OP_ADD].multiplier + 8, 1));
    REFUSED(EQ_E_ARITHMETIC, tables[op[OP_SOFTMAX].shift] = (uint8_t)-1);
    REFUSED(EQ_E_ARITHMETIC, tables[op[OP_SOFTMAX].shift] = 31);
    REFUSED(EQ_OK, tables[op[OP_SOFTMAX].shift] = 30);
    REFUSED(EQ_E_ARITHMETIC, put_word(tables + op[OP_SOFTMAX].multiplier, 5));
    REFUSED(EQ_E_ARITHMETIC,
            op[OP_AVERAGE_POOL].kernel_height = op[OP_AVERAGE_POOL].kernel_width = 3000);
}

/* The status of a model of one operator that is too large to be a part of the seed. */
static eq_status_t status_of(model_t *m)
{
    const image_t image = model_image(m);
    uint8_t *arena = exact_block(m->arena_bytes);
    eq_ctx_t ctx;
    eq_status_t status = image_init(&ctx, image, arena, m->arena_bytes);
    if (status == EQ_OK) {
        status = eq_run(&ctx, NULL);
    }
    free(arena);
    free(image.bytes);
    free(m);
    return status;
}

static void test_large(void)
{
    for (uint32_t channels = 4095; channels <= 4096; channels++) {
        model_t *m = exact_block(sizeof *m);
        add_scales(m, single_operator(m, 10, channels, 1, channels), 1, 22);
        const eq_status_t status = status_of(m);
        CHECK(status == (channels == 4095 ? EQ_OK : EQ_E_ARITHMETIC), "softmax of %u", channels);
    }
    for (uint32_t height = 16384; height <= 16386; height += 2) {
        model_t *m = exact_block(sizeof *m);
        eq_operator_t *op = single_operator(m, 1, 1, height, 1);
        set_window(op, 1, 0xFFFF, 1, 0); /* positions up to 65535 · (height - 1) + 1 */
        add_weights(m, op, 1, 8);
        const eq_status_t status = status_of(m);
        CHECK(status == (height == 16384 ? EQ_OK : EQ_E_OPERATOR), "%u rows", height);
    }
    const image_t image = seed_image();
    uint64_t arena[1]; /* never touched */
    eq_ctx_t ctx;
    image_header(image)->arena_bytes = 0x80000000u;
    image_seal(image);
    CHECK(image_init(&ctx, image, arena, 0xFFFFFFFFu) == EQ_E_ARENA, "an arena of 2 GB");
    free(image.bytes);
}

int main(void)
{
    test_ports();
    test_run_and_step();
    test_label_is_the_first_of_equals();
    test_status_names();
    test_arguments();
    test_lengths();
    test_checksum();
    test_header();
    test_sections();
    test_chain();
    test_tensors();
    test_operands();
    test_lags();
    test_tables();
    test_windows();
    test_arithmetic();
    test_large();
    return check_report("test_image");
}
