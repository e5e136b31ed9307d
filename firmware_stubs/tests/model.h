/*
 * model.h - a small image with an operator of every kernel, and some on packed activations, made
 * by hand, for test_image.c and
 * fuzz_image.c.
 */
#ifndef MODEL_H
#define MODEL_H

#include <string.h>

#include "check.h"
#include "edgeq.h"
#include "eq_crc32.h"
#include "eq_image.h"
#include "eq_kernel.h"
#include "eq_rows.h"

enum { MODEL_RECORDS = 32, MODEL_POOL_BYTES = 8192, MODEL_SECTIONS = 7, MODEL_KINDS = 8 };

/* The sections as they grow. */
typedef struct {
    eq_tensor_record_t tensors[MODEL_RECORDS];
    eq_operator_t operators[MODEL_RECORDS];
    eq_variant_t variants[MODEL_RECORDS];
    eq_block_t blocks[MODEL_RECORDS];
    eq_port_t ports[MODEL_RECORDS];
    uint8_t tables[MODEL_POOL_BYTES];
    uint8_t weights[MODEL_POOL_BYTES];
    uint8_t gate[MODEL_POOL_BYTES];  /* no section where it has no bytes */
    uint32_t count[MODEL_KINDS + 1]; /* of records, or bytes; by section kind */
    uint32_t arena_bytes;
    uint32_t random;
} model_t;

/* A finished image in a block of exactly its size. */
typedef struct {
    uint8_t *bytes;
    uint32_t length;
} image_t;

static uint32_t align8(uint32_t bytes)
{
    return (bytes + 7u) & ~7u;
}

/// Building ///

static uint16_t add_tensor(model_t *m, uint8_t rank, uint32_t height, uint32_t width,
                           uint32_t channels)
{
    const uint32_t index = m->count[EQ_SECTION_TENSORS]++;
    eq_tensor_record_t *record = &m->tensors[index];
    record->offset = align8(m->arena_bytes);
    record->shape[0] = height;
    record->shape[1] = width;
    record->shape[2] = channels;
    record->scale = 0.5f;
    record->zero_point = (int16_t)(index % 2 ? -3 : 4);
    record->bits = 8;
    record->rank = rank;
    m->arena_bytes = record->offset + height * width * channels;
    return (uint16_t)index;
}

/* A tensor of fewer bits. */
static uint16_t add_packed(model_t *m, uint8_t rank, uint32_t height, uint32_t width,
                           uint32_t channels, uint8_t bits)
{
    const uint16_t index = add_tensor(m, rank, height, width, channels);
    eq_tensor_record_t *record = &m->tensors[index];
    record->zero_point = index % 2 ? -1 : 1;
    record->bits = bits;
    m->arena_bytes = record->offset + eq_tensor_bytes(record);
    return index;
}

static eq_operator_t *add_operator(model_t *m, uint16_t kernel, uint16_t input, uint16_t output)
{
    eq_operator_t *op = &m->operators[m->count[EQ_SECTION_OPERATORS]++];
    op->kernel = kernel;
    op->input[0] = input;
    op->input[1] = EQ_NONE;
    op->output = output;
    op->clamp_min = (int16_t) - (1 << (m->tensors[output].bits - 1));
    op->clamp_max = (int16_t)(-1 - op->clamp_min);
    return op;
}

static void set_window(eq_operator_t *op, uint16_t taps, uint16_t stride, uint16_t dilation,
                       uint16_t pad)
{
    op->kernel_height = op->kernel_width = taps;
    op->stride_height = op->stride_width = stride;
    op->dilation_height = op->dilation_width = dilation;
    op->pad_top = op->pad_left = pad;
}

static uint32_t add_words(model_t *m, uint32_t count, const int32_t *values)
{
    const uint32_t offset = m->count[EQ_SECTION_TABLES];
    memcpy(m->tables + offset, values, count * sizeof *values);
    m->count[EQ_SECTION_TABLES] = align8(offset + count * 4);
    return offset;
}

static uint32_t add_bytes(model_t *m, uint32_t count, int8_t value)
{
    const uint32_t offset = m->count[EQ_SECTION_TABLES];
    memset(m->tables + offset, value, count);
    m->count[EQ_SECTION_TABLES] = align8(offset + count);
    return offset;
}

/* Scratch of exactly what the kernel and unpacked activations take. */
static void add_scratch(model_t *m, eq_operator_t *op, uint32_t own)
{
    const eq_tensor_record_t *in = &m->tensors[op->input[0]];
    const eq_tensor_record_t *other = op->input[1] == EQ_NONE ? in : &m->tensors[op->input[1]];
    const eq_rows_scratch_t rows =
        eq_rows_scratch(op, eq_kernel_find(op->kernel)->family, in, other, &m->tensors[op->output]);
    op->scratch_bytes = (uint32_t)(rows.input + rows.output) + own;
    if (op->scratch_bytes != 0) {
        op->scratch = align8(m->arena_bytes);
        m->arena_bytes = op->scratch + op->scratch_bytes;
    }
}

/* Weights, biases, scales and scratch of an operator with `count` weights a channel. */
static void add_weights(model_t *m, eq_operator_t *op, uint32_t count, uint8_t bits)
{
    const uint32_t channels = m->tensors[op->output].shape[2];
    const uint32_t bytes = (count * channels * bits + 7) / 8;
    int32_t bias[16], multiplier[16];
    for (uint32_t i = 0; i < channels; i++) {
        bias[i] = random_in(&m->random, -500, 500);
        multiplier[i] = (1 << 30) + (int32_t)(random_next(&m->random) >> 2);
    }
    op->weight_bits = bits;
    op->bias = add_words(m, channels, bias);
    op->multiplier = add_words(m, channels, multiplier);
    op->shift = add_bytes(m, channels, (int8_t)(-bits));
    op->weights = m->count[EQ_SECTION_WEIGHTS];
    for (uint32_t i = 0; i < bytes; i++) {
        m->weights[op->weights + i] = (uint8_t)random_next(&m->random);
    }
    m->count[EQ_SECTION_WEIGHTS] = op->weights + bytes;
    const eq_kernel_t *kernel = eq_kernel_find(op->kernel);
    const uint32_t row = bits == 8 ? 0 : count;
    const uint32_t strip =
        (uint32_t)(eq_row(&m->tensors[op->input[0]]) + 2 * eq_row(&m->tensors[op->output]));
    add_scratch(m, op,
                kernel->scratch == EQ_SCRATCH_PAIRS   ? 16 * ((count + 1) / 2)
                : kernel->scratch == EQ_SCRATCH_STRIP ? row + strip
                                                      : row);
}

static void add_scales(model_t *m, eq_operator_t *op, uint32_t count, int8_t shift)
{
    static const int32_t multiplier[] = {1 << 30, 1500000000, 1200000000};
    op->multiplier = add_words(m, count, multiplier);
    op->shift = add_bytes(m, count, shift);
}

/* Indices of the operators below. */
enum {
    OP_CONV_DSP,
    OP_DEPTHWISE_DSP,
    OP_ADD,
    OP_MAX_POOL,
    OP_CONV_REF,
    OP_DEPTHWISE_REF,
    OP_AVERAGE_POOL,
    OP_FC_REF,
    OP_FC_DSP,
    OP_SOFTMAX,
    OP_PACKED_CONV,
    OP_PACKED_DEPTHWISE,
    OP_PACKED_POOL,
    OP_PACKED_FC,
    OP_PACKED_ADD,
    OP_PACKED_SOFTMAX,
    OPERATORS
};

static void add_operators(model_t *m)
{
    const uint16_t image = add_tensor(m, 4, 5, 6, 4);
    const uint16_t conv = add_tensor(m, 4, 5, 6, 8);
    const uint16_t depthwise = add_tensor(m, 4, 5, 6, 8);
    const uint16_t pooled = add_tensor(m, 4, 2, 3, 8);
    const uint16_t pointwise = add_tensor(m, 4, 2, 3, 6);
    const uint16_t expanded = add_tensor(m, 4, 2, 3, 12);
    const uint16_t mean = add_tensor(m, 4, 1, 1, 12);
    const uint16_t hidden = add_tensor(m, 2, 1, 1, 9);
    const uint16_t logits = add_tensor(m, 2, 1, 1, 7);
    const uint16_t shares = add_tensor(m, 2, 1, 1, 7);
    eq_operator_t *op = add_operator(m, 2, image, conv);
    set_window(op, 3, 1, 1, 1);
    add_weights(m, op, 36, 4);
    op = add_operator(m, 4, conv, depthwise);
    set_window(op, 3, 1, 1, 1);
    add_weights(m, op, 9, 8);
    op = add_operator(m, 7, conv, depthwise); /* in place */
    op->input[1] = depthwise;
    add_scales(m, op, 3, 0);
    m->tables[op->shift + 2] = (uint8_t)-19;
    op = add_operator(m, 8, depthwise, pooled);
    set_window(op, 2, 2, 1, 0);
    m->tensors[pooled].zero_point = m->tensors[depthwise].zero_point;
    op = add_operator(m, 1, pooled, pointwise);
    set_window(op, 1, 1, 1, 0);
    add_weights(m, op, 8, 3);
    op = add_operator(m, 3, pointwise, expanded);
    set_window(op, 2, 1, 2, 1);
    add_weights(m, op, 4, 5);
    op = add_operator(m, 9, expanded, mean);
    set_window(op, 3, 1, 1, 0);
    m->tensors[mean].zero_point = m->tensors[expanded].zero_point;
    op = add_operator(m, 5, mean, hidden);
    add_weights(m, op, 12, 2);
    op = add_operator(m, 6, hidden, logits);
    add_weights(m, op, 9, 8);
    op = add_operator(m, 10, logits, shares); /* in place */
    add_scales(m, op, 1, 22);
    m->tensors[shares].zero_point = -128;
    m->tensors[shares].offset = m->tensors[logits].offset;
}

/* The same on activations of 4, 2, 2, 3, 3 and 8 bits. */
static void add_packed_operators(model_t *m)
{
    const uint16_t conv = add_packed(m, 4, 5, 6, 3, 4);
    const uint16_t depthwise = add_packed(m, 4, 5, 6, 3, 2);
    const uint16_t pooled = add_packed(m, 4, 2, 3, 3, 2);
    const uint16_t hidden = add_packed(m, 2, 1, 1, 5, 3);
    const uint16_t sum = add_packed(m, 2, 1, 1, 5, 3);
    const uint16_t shares = add_tensor(m, 2, 1, 1, 5);
    eq_operator_t *op = add_operator(m, 2, 0, conv);
    set_window(op, 3, 1, 1, 1);
    add_weights(m, op, 36, 4);
    op = add_operator(m, 4, conv, depthwise);
    set_window(op, 3, 1, 2, 2);
    add_weights(m, op, 9, 5);
    op = add_operator(m, 8, depthwise, pooled);
    set_window(op, 2, 2, 1, 0);
    add_scratch(m, op, 0);
    m->tensors[pooled].zero_point = m->tensors[depthwise].zero_point;
    op = add_operator(m, 5, pooled, hidden);
    add_weights(m, op, 18, 8);
    op = add_operator(m, 7, hidden, sum); /* in place */
    op->input[1] = hidden;
    add_scales(m, op, 3, 0);
    m->tables[op->shift + 2] = (uint8_t)-19;
    m->tensors[sum].offset = m->tensors[hidden].offset;
    op = add_operator(m, 10, sum, shares);
    add_scales(m, op, 1, 25);
    add_scratch(m, op, 0);
    m->tensors[shares].zero_point = -128;
}

static void add_chain(model_t *m)
{
    const eq_variant_t variants[] = {{0, 4, 0, 0}, {0, 4, 1, 0}, {4, OPERATORS - 4, 0, 0}};
    const eq_block_t blocks[] = {{0, 2}, {2, 1}};
    const eq_port_t ports[] = {{0, 0}, {9, 1}, {7, 1}, {13, 1}};
    memcpy(m->variants, variants, sizeof variants);
    memcpy(m->blocks, blocks, sizeof blocks);
    memcpy(m->ports, ports, sizeof ports);
    m->count[EQ_SECTION_VARIANTS] = 3;
    m->count[EQ_SECTION_BLOCKS] = 2;
    m->count[EQ_SECTION_PORTS] = 4;
}

/// Images ///

static eq_header_t *image_header(image_t image)
{
    return (void *)image.bytes;
}

static eq_section_t *image_sections(image_t image)
{
    return (void *)(image.bytes + sizeof(eq_header_t));
}

/* The bytes of a section of the undamaged image. */
static void *image_section(image_t image, uint32_t kind)
{
    return image.bytes + image_sections(image)[kind - 1].offset;
}

static void image_seal(image_t image)
{
    image_header(image)->crc32 = eq_crc32(image.bytes + 16, image.length - 16);
}

static eq_status_t image_init(eq_ctx_t *ctx, image_t image, void *arena, uint32_t arena_bytes)
{
    const eq_config_t config = {image.bytes, image.length, arena, arena_bytes};
    return eq_init(ctx, &config);
}

/* Takes a damaged image and the arena that it had: what eq_init says, and that it runs or does not. */
static void check_damaged(image_t image, uint32_t arena_bytes, eq_status_t expected,
                          const char *damage)
{
    image_seal(image);
    uint8_t *arena = exact_block(arena_bytes);
    eq_ctx_t ctx;
    const eq_status_t status = image_init(&ctx, image, arena, arena_bytes);
    CHECK(status == expected, "%s: %s", damage, eq_status_name(status));
    CHECK(eq_run(&ctx, NULL) == (status == EQ_OK ? EQ_OK : EQ_E_ARGUMENT), "%s runs", damage);
    free(arena);
    free(image.bytes);
}

/* Names for what statements damage; some of them do without. */
#define IMAGE_PARTS(image)                                                                         \
    eq_header_t *header = image_header(image);                                                     \
    eq_section_t *section = image_sections(image) - 1; /* by kind */                               \
    eq_tensor_record_t *tensor = image_section(image, EQ_SECTION_TENSORS);                         \
    eq_operator_t *op = image_section(image, EQ_SECTION_OPERATORS);                                \
    eq_variant_t *variant = image_section(image, EQ_SECTION_VARIANTS);                             \
    eq_block_t *block = image_section(image, EQ_SECTION_BLOCKS);                                   \
    (void)header, (void)section, (void)tensor, (void)op, (void)variant, (void)block

/* Damages a fresh image by a statement over these names and the ones below; expects a status. */
#define REFUSED_OF(fresh, expected, statement)                                                     \
    do {                                                                                           \
        const image_t image = fresh;                                                               \
        const uint32_t arena_bytes = image_header(image)->arena_bytes;                             \
        IMAGE_PARTS(image);                                                                        \
        eq_port_t *port = image_section(image, EQ_SECTION_PORTS);                                  \
        uint8_t *tables = image_section(image, EQ_SECTION_TABLES);                                 \
        (void)port, (void)tables;                                                                  \
        statement;                                                                                 \
        check_damaged(image, arena_bytes, expected, #statement);                                   \
    } while (0)

static void put_word(uint8_t *at, int32_t value)
{
    memcpy(at, &value, sizeof value);
}

static image_t model_image(const model_t *m)
{
    const void *data[] = {NULL,     m->tensors, m->operators, m->variants, m->blocks,
                          m->ports, m->tables,  m->weights,   m->gate};
    const uint32_t size[] = {0,
                             sizeof m->tensors[0],
                             sizeof m->operators[0],
                             sizeof m->variants[0],
                             sizeof m->blocks[0],
                             sizeof m->ports[0],
                             1,
                             1,
                             1};
    const uint32_t kinds = m->count[EQ_SECTION_GATE] != 0 ? MODEL_KINDS : MODEL_SECTIONS;
    eq_section_t sections[MODEL_KINDS];
    uint32_t length = align8((uint32_t)(sizeof(eq_header_t) + kinds * sizeof *sections));
    for (uint32_t kind = 1; kind <= kinds; kind++) {
        sections[kind - 1] = (eq_section_t){kind, length, m->count[kind] * size[kind]};
        length = align8(length + m->count[kind] * size[kind]);
    }
    image_t image = {exact_block(length), length};
    eq_header_t *header = image_header(image);
    *header = (eq_header_t){.magic = EQ_IMAGE_MAGIC,
                            .format = EQ_IMAGE_FORMAT,
                            .abi = EQ_ABI,
                            .length = length,
                            .layouts = 1u << EQ_LAYOUT_DENSE,
                            .arena_bytes = m->arena_bytes,
                            .section_count = kinds};
    for (uint32_t i = 0; i < m->count[EQ_SECTION_OPERATORS]; i++) {
        header->kernels[m->operators[i].kernel / 32] |= 1u << m->operators[i].kernel % 32;
        header->layouts |= 1u << m->operators[i].layout;
        if (m->operators[i].layout == EQ_LAYOUT_PLANES) {
            const uint32_t id = eq_kernel_of(EQ_FAMILY_PLANES)->id;
            header->kernels[id / 32] |= 1u << id % 32;
        }
    }
    if (kinds == MODEL_KINDS) {
        for (uint32_t family = EQ_FAMILY_GATE; family <= EQ_FAMILY_GATE_MLP; family++) {
            const uint32_t id = eq_kernel_of(family)->id;
            header->kernels[id / 32] |= 1u << id % 32;
        }
    }
    for (uint32_t i = 0; i < m->count[EQ_SECTION_TENSORS]; i++) {
        if (eq_is_packed(&m->tensors[i])) {
            header->kernels[eq_kernel_of(EQ_FAMILY_ROWS)->id / 32] |=
                1u << eq_kernel_of(EQ_FAMILY_ROWS)->id % 32;
        }
    }
    memcpy(image_sections(image), sections, kinds * sizeof *sections);
    for (uint32_t kind = 1; kind <= kinds; kind++) {
        memcpy(image_section(image, kind), data[kind], sections[kind - 1].bytes);
    }
    image_seal(image);
    return image;
}

/* The image of `m`, whose operators are one block; `m` is freed. */
static image_t block_image(model_t *m, const eq_port_t *ports, uint32_t port_count)
{
    m->variants[0] = (eq_variant_t){0, (uint16_t)m->count[EQ_SECTION_OPERATORS], 0, 0};
    m->blocks[0] = (eq_block_t){0, 1};
    memcpy(m->ports, ports, port_count * sizeof *ports);
    m->count[EQ_SECTION_VARIANTS] = m->count[EQ_SECTION_BLOCKS] = 1;
    m->count[EQ_SECTION_PORTS] = port_count;
    const image_t image = model_image(m);
    free(m);
    return image;
}

/* The model that every test starts from. */
static image_t seed_image(void)
{
    model_t *m = exact_block(sizeof *m);
    m->random = 20261121u;
    add_operators(m);
    add_packed_operators(m);
    add_chain(m);
    const image_t image = model_image(m);
    free(m);
    return image;
}

#endif
