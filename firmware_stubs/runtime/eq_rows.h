/*
 * eq_rows.h - activations of fewer than 8 bits: how they lie in memory, and runs of them.
 *
 * Values of 8..5 bits take a byte, of 4..3 half a byte, of 2 a quarter: flat in the order of the
 * tensor, element 0 in the lowest bits of byte 0, two's complement, unused bits at the end 0.
 * Byte kernels never see less than a byte: eq_rows_s8_ref.c unpacks what they read and packs what they
 * give. The twin of the layout is packing.pack_activations, that of the sizes kernels.py.
 */
#ifndef EQ_ROWS_H
#define EQ_ROWS_H

#include "eq_unpack.h"

#define EQ_PATCH_CHANNELS 8u /* a pool's windows are unpacked so many channels at a time */

/// Layout ///

/* Bits that a value of `bits` bits takes in memory: 8, 4 or 2. */
static inline uint32_t eq_width(uint32_t bits)
{
    return bits > 4 ? 8u : bits > 2 ? 4u : 2u;
}

static inline int eq_is_packed(const eq_tensor_record_t *tensor)
{
    return tensor->bits <= 4;
}

static inline uint32_t eq_tensor_bytes(const eq_tensor_record_t *tensor)
{
    const uint32_t per_byte = 8u / eq_width(tensor->bits);
    return eq_elements(tensor) / per_byte + (eq_elements(tensor) % per_byte != 0);
}

/* Value i. */
static inline int32_t eq_get(const void *data, uint32_t bits, uint32_t i)
{
    const uint32_t width = eq_width(bits);
    const uint32_t per_byte = 8u / width;
    const uint32_t byte = ((const uint8_t *)data)[i / per_byte];
    const uint32_t sign = 1u << (width - 1u);
    const uint32_t value = byte >> i % per_byte * width & (2u * sign - 1u);
    return (int32_t)(value ^ sign) - (int32_t)sign;
}

/* Values first .. first + count: where they are bytes already, else unpacked into the buffer. */
static inline const int8_t *eq_load_run(const eq_tensor_record_t *tensor, const int8_t *data,
                                        uint32_t first, uint32_t count, int8_t *buffer)
{
    if (!eq_is_packed(tensor)) {
        return data + first;
    }
    eq_unpack(buffer, (const uint8_t *)data, first, count, eq_width(tensor->bits));
    return buffer;
}

/*
 * Packs `count` values to first .. first + count of a tensor that is stored from its start to its
 * end: the values before `first` stay, those behind that share the last byte become 0.
 */
void eq_store_run(const eq_tensor_record_t *tensor, int8_t *data, uint32_t first,
                  const int8_t *values, uint32_t count);

/* Whether eq_rows_s8_ref knows the operators of a family. */
static inline int eq_rows_runs(uint32_t family)
{
    return family < EQ_FAMILY_ROWS;
}

/// Scratch ///

/* What unpacking takes of an operator's scratch; the kernel's own follows. Multiples of 8. */
typedef struct {
    uint64_t input;
    uint64_t output;
} eq_rows_scratch_t;

static inline uint64_t eq_rows_least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t eq_rows_padded(const eq_tensor_record_t *tensor, uint64_t values)
{
    return eq_is_packed(tensor) ? (values + 7u) / 8u * 8u : 0;
}

static inline uint64_t eq_row(const eq_tensor_record_t *tensor)
{
    return (uint64_t)tensor->shape[1] * tensor->shape[2];
}

/* Bytes that one output step needs unpacked: below 2^47. `other` is the second input, or any. */
static inline eq_rows_scratch_t eq_rows_scratch(const eq_operator_t *op, uint32_t family,
                                                const eq_tensor_record_t *in,
                                                const eq_tensor_record_t *other,
                                                const eq_tensor_record_t *out)
{
    uint64_t input = 0;
    uint64_t output = 0;
    uint64_t second = 0;
    switch (family) {
    case EQ_FAMILY_CONV:
    case EQ_FAMILY_DEPTHWISE:
    case EQ_FAMILY_GROUPED: /* the rows under a window; a row */
        input = eq_rows_least(op->kernel_height, in->shape[0]) * eq_row(in);
        output = eq_row(out);
        break;
    case EQ_FAMILY_FC:
        input = eq_elements(in);
        output = out->shape[2];
        break;
    case EQ_FAMILY_POOL: /* a window of some channels; these */
        input = eq_rows_least(op->kernel_height, in->shape[0]) *
                eq_rows_least(op->kernel_width, in->shape[1]) * EQ_PATCH_CHANNELS;
        output = EQ_PATCH_CHANNELS;
        break;
    case EQ_FAMILY_SOFTMAX:
        input = in->shape[2];
        output = out->shape[2];
        break;
    case EQ_FAMILY_CONCAT: /* a row of each */
        second = eq_rows_padded(other, eq_row(other));
        input = eq_row(in);
        output = eq_row(out);
        break;
    case EQ_FAMILY_PAD:
        input = eq_row(in);
        output = eq_row(out);
        break;
    default:
        break; /* add, table: what they unpack at a time lies on the stack */
    }
    const eq_rows_scratch_t need = {eq_rows_padded(in, input) + second,
                                    eq_rows_padded(out, output)};
    return need;
}

#endif
