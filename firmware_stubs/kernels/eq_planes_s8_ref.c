/*
 * Weights in the layout "planes": not a kernel, but what brings those that read rows of weights to
 * a nested store. Weights are sums of digits, two's complement; the digits of one place are a plane,
 * dense, the top one first, each filled up to 32 weights. A level of fewer bits reads the first
 * planes of the same store. Bit i of an operator's `parameter` says that a plane ends with bit i + 1.
 * The twin is packing.py.
 */
#include "eq_unpack.h"

enum { CHUNK = 32 };

/* Bytes that one bit of all weights takes. */
static uint64_t bit_bytes(uint64_t weights)
{
    return (weights + 31u) / 32u * 4u;
}

/* The bits of the plane that follows `done` bits. */
static uint32_t plane_bits(uint32_t ends, uint32_t done)
{
    uint32_t bits = 1;
    while ((ends >> (done + bits - 1u) & 1u) == 0) {
        bits++;
    }
    return bits;
}

/* Appends the digits of a plane to `values`. */
static void append(int8_t *values, const uint8_t *plane, uint32_t first, uint32_t count,
                   uint32_t bits)
{
    int8_t digits[CHUNK];
    for (uint32_t done = 0; done < count; done += CHUNK) {
        const uint32_t length = count - done < CHUNK ? count - done : CHUNK;
        eq_unpack(digits, plane, first + done, length, bits);
        for (uint32_t i = 0; i < length; i++) {
            values[done + i] = (int8_t)(values[done + i] * (1 << bits) + digits[i]);
        }
    }
}

static const int8_t *row(const eq_call_t *call, uint32_t channel, uint32_t count)
{
    int8_t *values = call->scratch;
    const uint32_t step = (uint32_t)bit_bytes((uint64_t)call->out->shape[2] * count);
    const uint32_t ends = call->op->parameter;
    uint32_t done = plane_bits(ends, 0);
    eq_unpack(values, call->weights, channel * count, count, done);
    while (done < call->op->weight_bits) {
        const uint32_t bits = plane_bits(ends, done);
        append(values, call->weights + step * done, channel * count, count, bits);
        done += bits;
    }
    return values;
}

void eq_planes_s8_ref(const eq_call_t *call)
{
    (void)call; /* of no operator: eq_weight_row takes rows by the rules */
}

static uint64_t weight_bytes(uint64_t channels, uint64_t count, uint32_t bits)
{
    return bit_bytes(channels * count) * bits;
}

/* The kernel reads rows; a plane ends with the last bit that it reads, and none behind that. */
static int fits(const eq_call_t *call, uint32_t count)
{
    (void)count;
    const eq_kernel_t *kernel = call->kernel;
    return (kernel->scratch == EQ_SCRATCH_ROW || kernel->scratch == EQ_SCRATCH_STRIP) &&
           kernel->family != EQ_FAMILY_GROUPED &&
           call->op->parameter >> (call->op->weight_bits - 1u) == 1u;
}

const eq_layout_rules_t eq_planes_rules = {
    EQ_LAYOUT_PLANES, 0, weight_bytes, NULL, NULL, fits, row};
