#include "eq_unpack.h"

void eq_unpack(int8_t *values, const uint8_t *stream, uint32_t first, uint32_t count, uint32_t bits)
{
    const uint32_t start = first * bits;
    const uint8_t *next = stream + start / 8u;
    const uint32_t sign = UINT32_C(1) << (bits - 1u);
    const uint32_t mask = 2u * sign - 1u;
    uint32_t buffer = (uint32_t)*next++ >> (start % 8u);
    uint32_t available = 8u - start % 8u;
    for (uint32_t i = 0; i < count; i++) {
        if (available < bits) {
            buffer |= (uint32_t)*next++ << available;
            available += 8u;
        }
        values[i] = (int8_t)((int32_t)((buffer & mask) ^ sign) - (int32_t)sign);
        buffer >>= bits;
        available -= bits;
    }
}

const int8_t *eq_weight_row(const eq_call_t *call, uint32_t channel, uint32_t count)
{
    if (call->op->weight_bits == 8) {
        return (const int8_t *)call->weights + channel * count;
    }
    eq_unpack(call->scratch, call->weights, channel * count, count, call->op->weight_bits);
    return call->scratch;
}
