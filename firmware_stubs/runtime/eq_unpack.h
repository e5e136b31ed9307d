/*
 * eq_unpack.h - weights of n bits to int8.
 */
#ifndef EQ_UNPACK_H
#define EQ_UNPACK_H

#include <stdint.h>

#include "eq_kernel.h"

/*
 * Values first .. first + count of a stream of n-bit two's complement values, least significant bit
 * first: value i starts at bit i·bits. Reads no byte that holds none of them. bits in [1, 8],
 * count at least 1, (first + count)·bits below 2^32.
 */
void eq_unpack(int8_t *values, const uint8_t *stream, uint32_t first, uint32_t count,
               uint32_t bits);

/* Whether weights are stored as the bytes that kernels read: nothing is unpacked to scratch. */
static inline int eq_stored_in_bytes(const eq_operator_t *op)
{
    return op->weight_bits == 8 && op->layout != EQ_LAYOUT_PLANES;
}

/* The `count` weights of a channel: in flash where they are bytes, else unpacked to scratch. */
const int8_t *eq_weight_row(const eq_call_t *call, uint32_t channel, uint32_t count);

#endif
