#include "eq_unpack.h"

static uint32_t load_word(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

/* Four values of at most 6 bits, in the low bits of a word, to the four bytes of a word. */
static uint32_t spread(uint32_t packed, uint32_t bits)
{
    const uint32_t one = ((1u << bits) - 1u) * 0x10001u;
    const uint32_t two = (1u << 2u * bits) - 1u;
    const uint32_t halves = (packed & two) | (packed >> 2u * bits & two) << 16;
    const uint32_t bytes = (halves & one) | (halves >> bits & one) << 8;
    const uint32_t signs = bytes & (1u << (bits - 1u)) * 0x01010101u;
    return bytes | signs * ((512u >> bits) - 2u); /* each sign to the bits above it */
}

/* Unpacks in fours what can be; returns how many that were. */
static uint32_t unpack_fours(int8_t *values, const uint8_t *stream, uint32_t first, uint32_t count,
                             uint32_t bits)
{
    uint32_t at = first * bits;
    uint32_t done = 0;
    for (uint32_t left = count * bits; left >= 32; left -= 4 * bits) { /* four bytes are there */
        const uint32_t word = spread(load_word(stream + at / 8u) >> at % 8u, bits);
        values[done] = (int8_t)word;
        values[done + 1] = (int8_t)(word >> 8);
        values[done + 2] = (int8_t)(word >> 16);
        values[done + 3] = (int8_t)(word >> 24);
        done += 4;
        at += 4 * bits;
    }
    return done;
}

void eq_unpack(int8_t *values, const uint8_t *stream, uint32_t first, uint32_t count, uint32_t bits)
{
    const uint32_t done = bits <= 6 ? unpack_fours(values, stream, first, count, bits) : 0;
    const uint32_t sign = 1u << (bits - 1u);
    uint32_t at = (first + done) * bits;
    for (uint32_t i = done; i < count; i++) {
        const uint32_t byte = at / 8u;
        uint32_t value = (uint32_t)stream[byte] >> at % 8u;
        if (at % 8u + bits > 8u) {
            value |= (uint32_t)stream[byte + 1u] << (8u - at % 8u);
        }
        values[i] = (int8_t)((int32_t)((value & (2u * sign - 1u)) ^ sign) - (int32_t)sign);
        at += bits;
    }
}

const int8_t *eq_weight_row(const eq_call_t *call, uint32_t channel, uint32_t count)
{
    if (call->op->layout == EQ_LAYOUT_PLANES) {
        return eq_kernel_of(EQ_FAMILY_PLANES)->rules->row(call, channel, count);
    }
    if (eq_stored_in_bytes(call->op)) {
        return (const int8_t *)call->weights + channel * count;
    }
    eq_unpack(call->scratch, call->weights, channel * count, count, call->op->weight_bits);
    return call->scratch;
}
