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

void eq_fields_unpack_2(uint32_t *to, const uint32_t *from, uint32_t blocks);
void eq_fields_unpack_4(uint32_t *to, const uint32_t *from, uint32_t blocks);

#else

static void eq_fields_unpack_2(uint32_t *to, const uint32_t *from, uint32_t blocks)
{
    unpack(to, from, 2, blocks);
}

static void eq_fields_unpack_4(uint32_t *to, const uint32_t *from, uint32_t blocks)
{
    unpack(to, from, 4, blocks);
}

#endif

static void unpack_3(uint32_t *to, const uint32_t *from, uint32_t blocks)
{
    unpack(to, from, 3, blocks);
}

static void unpack_5(uint32_t *to, const uint32_t *from, uint32_t blocks)
{
    unpack(to, from, 5, blocks);
}

static void unpack_6(uint32_t *to, const uint32_t *from, uint32_t blocks)
{
    unpack(to, from, 6, blocks);
}

static void unpack_7(uint32_t *to, const uint32_t *from, uint32_t blocks)
{
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
    const eq_pairs_source_t source = {unpackers[bits - 2], blocks, BLOCK * blocks, bits * blocks};
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

static uint32_t stored_word(const uint32_t *row, uint32_t bits, uint32_t j)
{
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
