/*
 * A function of one value by its 256 results where input or output is packed: what brings the bytes
 * of a boundary to the fewer bits of a level, above all. The output may be an input of the same
 * width.
 *
 * Results without a mask: Σ t_i · 2^(width·i) of signed t_i borrows between fields as the sum of the
 * fields t_i + 2^(width−1) does not, so that adding these offsets and inverting the signs undoes it.
 */
#include "eq_dsp.h"
#include "eq_rows.h"

static inline uint32_t result(const int8_t *table, uint32_t quad, uint32_t byte)
{
    const int32_t value = table[(int8_t)(quad >> 8u * byte)];
    return (uint32_t)value;
}

/* The results of four bytes, appended below `sum`, the last byte first. */
static inline uint32_t append(uint32_t sum, const int8_t *table, uint32_t quad, uint32_t width)
{
    sum = (sum << width) + result(table, quad, 3);
    sum = (sum << width) + result(table, quad, 2);
    sum = (sum << width) + result(table, quad, 1);
    return (sum << width) + result(table, quad, 0);
}

/* Of eight bytes. */
static inline uint32_t append_eight(uint32_t sum, const int8_t *table, const int8_t *bytes,
                                    uint32_t width)
{
    sum = append(sum, table, eq_load_quad(bytes + 4), width);
    return append(sum, table, eq_load_quad(bytes), width);
}

/* Bytes to words of eight values, while there are as many; returns how many that were. */
static uint32_t to_nibbles(const eq_call_t *call, const int8_t *table, uint32_t count)
{
    const int8_t *input = call->input[0];
    const int8_t *end = input + (count & ~7u);
    for (int8_t *output = call->output; input != end; input += 8, output += 4) {
        const uint32_t sum = append_eight(0, table, input, 4);
        eq_store_quad(output, (sum + 0x88888888u) ^ 0x88888888u);
    }
    return count & ~7u;
}

/* The same of sixteen values of 2 bits. */
static uint32_t to_quarters(const eq_call_t *call, const int8_t *table, uint32_t count)
{
    const int8_t *input = call->input[0];
    const int8_t *end = input + (count & ~15u);
    for (int8_t *output = call->output; input != end; input += 16, output += 4) {
        const uint32_t sum = append_eight(append_eight(0, table, input + 8, 2), table, input, 2);
        eq_store_quad(output, (sum + 0xAAAAAAAAu) ^ 0xAAAAAAAAu);
    }
    return count & ~15u;
}

/* Values first .. count, between any widths; a byte of either begins at the first. */
EQ_NOINLINE static void convert(const eq_call_t *call, const int8_t *table, uint32_t from,
                                uint32_t to, uint32_t first, uint32_t count)
{
    const uint8_t *input = (const uint8_t *)call->input[0] + first * from / 8u;
    uint8_t *output = (uint8_t *)call->output + first * to / 8u;
    uint32_t left = 0, used = 0, word = 0, byte = 0;
    for (uint32_t i = first; i < count; i++) {
        if (left == 0) {
            word = *input++;
            left = 8;
        }
        const int32_t value = (int32_t)(word << (32u - from)) >> (32u - from);
        byte |= ((uint32_t)table[value] & ((1u << to) - 1u)) << used;
        word >>= from;
        left -= from;
        used += to;
        if (used == 8) {
            *output++ = (uint8_t)byte;
            byte = used = 0;
        }
    }
    if (used != 0) {
        *output = (uint8_t)byte;
    }
}

/* A function of its own, which keeps the kernel small. */
EQ_NOINLINE static uint32_t width_of(const eq_tensor_record_t *tensor)
{
    return eq_width(tensor->bits);
}

void eq_table_s4_dsp(const eq_call_t *call)
{
    const int8_t *table = call->shift - INT8_MIN; /* table[q] for q from -128 */
    const uint32_t from = width_of(call->in[0]), to = width_of(call->out);
    const uint32_t count = eq_elements(call->out);
    const uint32_t done = from != 8 || to == 8 ? 0
                          : to == 4            ? to_nibbles(call, table, count)
                                               : to_quarters(call, table, count);
    convert(call, table, from, to, done, count);
}
