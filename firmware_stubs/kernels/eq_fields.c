#include "eq_fields.h"

#include "eq_dsp.h"

enum { BLOCK = 8 }; /* words that share fields */

/* Word j of a block, w + 2^(bits−1) in bytes. */
static inline uint32_t field(const uint32_t *block, uint32_t bits, uint32_t j)
{
    uint32_t word = 0, shift = 0;
    if ((bits & 4u) != 0) {
        word = block[j / 2u] >> j % 2u * 4u & 0x0F0F0F0Fu;
        shift = 4;
        block += 4;
    }
    if ((bits & 2u) != 0) {
        word |= (block[j / 4u] >> j % 4u * 2u & 0x03030303u) << shift;
        shift += 2;
        block += 2;
    }
    if ((bits & 1u) != 0) {
        word |= (block[0] >> j & 0x01010101u) << shift;
    }
    return word;
}

/* The word itself: each half is 256·w1 + w0. */
static inline uint32_t pair_word(const uint32_t *block, uint32_t bits, uint32_t j)
{
    return eq_ssub16(field(block, bits, j), (1u << (bits - 1u)) * 0x01010101u);
}

/* Every word of `blocks` blocks; for constant bits three to six instructions each. */
static inline void unpack(uint32_t *restrict to, const uint32_t *restrict block, uint32_t bits,
                          uint32_t blocks)
{
    for (; blocks > 0; blocks--) {
        to[0] = pair_word(block, bits, 0);
        to[1] = pair_word(block, bits, 1);
        to[2] = pair_word(block, bits, 2);
        to[3] = pair_word(block, bits, 3);
        to[4] = pair_word(block, bits, 4);
        to[5] = pair_word(block, bits, 5);
        to[6] = pair_word(block, bits, 6);
        to[7] = pair_word(block, bits, 7);
        to += BLOCK;
        block += bits;
    }
}

#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)

void eq_fields_unpack_2(uint32_t *to, const uint32_t *from, uint32_t blocks,
                        const eq_pairs_source_t *source);
void eq_fields_unpack_4(uint32_t *to, const uint32_t *from, uint32_t blocks,
                        const eq_pairs_source_t *source);

#else

static void eq_fields_unpack_2(uint32_t *to, const uint32_t *from, uint32_t blocks,
                               const eq_pairs_source_t *source)
{
    (void)source;
    unpack(to, from, 2, blocks);
}

static void eq_fields_unpack_4(uint32_t *to, const uint32_t *from, uint32_t blocks,
                               const eq_pairs_source_t *source)
{
    (void)source;
    unpack(to, from, 4, blocks);
}

#endif

static void unpack_3(uint32_t *to, const uint32_t *from, uint32_t blocks,
                     const eq_pairs_source_t *source)
{
    (void)source;
    unpack(to, from, 3, blocks);
}

static void unpack_5(uint32_t *to, const uint32_t *from, uint32_t blocks,
                     const eq_pairs_source_t *source)
{
    (void)source;
    unpack(to, from, 5, blocks);
}

static void unpack_6(uint32_t *to, const uint32_t *from, uint32_t blocks,
                     const eq_pairs_source_t *source)
{
    (void)source;
    unpack(to, from, 6, blocks);
}

static void unpack_7(uint32_t *to, const uint32_t *from, uint32_t blocks,
                     const eq_pairs_source_t *source)
{
    (void)source;
    unpack(to, from, 7, blocks);
}

static uint64_t blocks_of(uint64_t count)
{
    return (2 * eq_pairs_groups(count) + BLOCK - 1) / BLOCK;
}

void eq_fields_run(const eq_call_t *call, uint32_t count)
{
    static const eq_pairs_unpack_t unpackers[] = {eq_fields_unpack_2, unpack_3, eq_fields_unpack_4,
                                                  unpack_5,           unpack_6, unpack_7};
    const uint32_t bits = call->op->weight_bits;
    const uint32_t blocks = (uint32_t)blocks_of(count);
    const eq_pairs_source_t source = {unpackers[bits - 2], blocks, BLOCK * blocks, bits * blocks,
                                      call};
    eq_pairs_run(call, count, &source);
}

static uint64_t weight_bytes(uint64_t channels, uint64_t count, uint32_t bits)
{
    return (channels + 1) / 2 * blocks_of(count) * bits * sizeof(uint32_t);
}

static uint64_t scratch_bytes(const eq_operator_t *op, const eq_tensor_record_t *in,
                              const eq_tensor_record_t *out, uint64_t count)
{
    return blocks_of(count) * BLOCK * sizeof(uint32_t) + eq_pairs_scratch(op, in, out, count);
}

static uint32_t stored_word(const eq_call_t *call, const uint32_t *row, uint32_t groups, uint32_t j)
{
    (void)groups;
    const uint32_t bits = call->op->weight_bits;
    return pair_word(row + j / BLOCK * bits, bits, j % BLOCK);
}

static int fits(const eq_call_t *call, uint32_t count)
{
    const uint32_t bits = call->op->weight_bits;
    return bits < 8 && eq_pairs_fits(call, (uint32_t)eq_pairs_groups(count),
                                     (uint32_t)blocks_of(count) * bits, stored_word);
}

const eq_layout_rules_t eq_fields_rules = {
    EQ_LAYOUT_FIELDS, 0, weight_bytes, eq_pairs_table_bytes, scratch_bytes, fits, NULL};

/// Planes ///

/* The bits of the plane that follows `done` bits. */
static uint32_t plane_bits(const eq_call_t *call, uint32_t done)
{
    uint32_t bits = 1;
    while (((uint32_t)call->op->parameter >> (done + bits - 1u) & 1u) == 0) {
        bits++;
    }
    return bits;
}

/* Where the digits of two channels begin in the plane behind `done` bits; in the top one: `from`. */
static const uint32_t *digits_of(const eq_call_t *call, const uint32_t *from, uint32_t blocks,
                                 uint32_t done, uint32_t bits)
{
    const uint32_t *weights = (const void *)call->weights;
    const uint32_t pairs = (call->out->shape[2] + 1) / 2;
    const uint32_t pair = (uint32_t)(from - weights) / (blocks * plane_bits(call, 0));
    return weights + (size_t)blocks * (pairs * done + pair * bits);
}

/* Halves 256·w1 + w0 and those of digits of `bits` bits below: all of it modulo 2^16. */
static inline uint32_t append(uint32_t word, const uint32_t *block, uint32_t bits, uint32_t j)
{
    const uint32_t gap = ((1u << bits) - 1u) << 16;
    return eq_ssub16(word << bits & ~gap,
                     eq_ssub16((1u << (bits - 1u)) * 0x01010101u, field(block, bits, j)));
}

/* Word j of two channels with its digits of any number of bits appended; of the top plane to 0. */
EQ_NOINLINE static uint32_t append_any(uint32_t word, const uint32_t *row, uint32_t bits,
                                       uint32_t j)
{
    return append(word, row + j / BLOCK * bits, bits, j % BLOCK);
}

static void append_4(uint32_t *restrict to, const uint32_t *restrict block, uint32_t blocks)
{
    for (; blocks > 0; blocks--) {
        to[0] = append(to[0], block, 4, 0);
        to[1] = append(to[1], block, 4, 1);
        to[2] = append(to[2], block, 4, 2);
        to[3] = append(to[3], block, 4, 3);
        to[4] = append(to[4], block, 4, 4);
        to[5] = append(to[5], block, 4, 5);
        to[6] = append(to[6], block, 4, 6);
        to[7] = append(to[7], block, 4, 7);
        to += BLOCK;
        block += 4;
    }
}

/* Planes of 4 bits, the usual ones, have loops of their own. */
static void unpack_planes(uint32_t *to, const uint32_t *from, uint32_t blocks,
                          const eq_pairs_source_t *source)
{
    const eq_call_t *call = source->call;
    uint32_t bits;
    for (uint32_t done = 0; done < call->op->weight_bits; done += bits) {
        bits = plane_bits(call, done);
        const uint32_t *digits = digits_of(call, from, blocks, done, bits);
        if (bits == 4 && done == 0) {
            eq_fields_unpack_4(to, digits, blocks, source);
        } else if (bits == 4) {
            append_4(to, digits, blocks);
        } else {
            for (uint32_t j = 0; j < BLOCK * blocks; j++) {
                to[j] = append_any(done == 0 ? 0 : to[j], digits, bits, j);
            }
        }
    }
}

void eq_field_planes_run(const eq_call_t *call, uint32_t count)
{
    const uint32_t blocks = (uint32_t)blocks_of(count);
    const eq_pairs_source_t source = {unpack_planes, blocks, BLOCK * blocks,
                                      plane_bits(call, 0) * blocks, call};
    eq_pairs_run(call, count, &source);
}

static uint32_t joined_word(const eq_call_t *call, const uint32_t *row, uint32_t groups, uint32_t j)
{
    const uint32_t blocks = (2 * groups + BLOCK - 1) / BLOCK;
    uint32_t word = 0, bits;
    for (uint32_t done = 0; done < call->op->weight_bits; done += bits) {
        bits = plane_bits(call, done);
        word = append_any(word, digits_of(call, row, blocks, done, bits), bits, j);
    }
    return word;
}

/* A plane ends with the last bit that the operator reads, and none behind that. */
static int planes_fit(const eq_call_t *call, uint32_t count)
{
    const uint32_t blocks = (uint32_t)blocks_of(count);
    return call->op->parameter >> (call->op->weight_bits - 1u) == 1u &&
           eq_pairs_fits(call, (uint32_t)eq_pairs_groups(count), blocks * plane_bits(call, 0),
                         joined_word);
}

const eq_layout_rules_t eq_field_planes_rules = {
    EQ_LAYOUT_FIELD_PLANES, 0, weight_bytes, eq_pairs_table_bytes, scratch_bytes, planes_fit, NULL};
