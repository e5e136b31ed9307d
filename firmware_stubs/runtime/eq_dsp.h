/*
 * eq_dsp.h - the SIMD instructions of Armv7E-M that the *_dsp kernels use.
 *
 * On a core that has them each is one instruction; elsewhere it is C with the same result, so that
 * the same kernels compile, and are tested, on any host. A word holds two int16 ("pair", low half
 * first) or four int8 ("quad", low byte first).
 */
#ifndef EQ_DSP_H
#define EQ_DSP_H

#include <stdint.h>

#include "eq_fixed.h"

typedef struct {
    uint32_t first;
    uint32_t second;
} eq_quads_t;

#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)

/* Four bytes at any address. */
static inline uint32_t eq_load_quad(const int8_t *bytes)
{
    uint32_t quad;
    __builtin_memcpy(&quad, bytes, sizeof quad);
    return quad;
}

static inline void eq_store_quad(int8_t *bytes, uint32_t quad)
{
    __builtin_memcpy(bytes, &quad, sizeof quad);
}

/* Eight bytes at a multiple of 4, behind which the address stands then. */
static inline eq_quads_t eq_next_quads(const int8_t **at)
{
    const int8_t *bytes = *at;
    eq_quads_t quads;
    __asm__("ldrd %0, %1, [%2], #8"
            : "=r"(quads.first), "=r"(quads.second), "+r"(*at)
            : "m"(*(const int8_t(*)[8])bytes));
    return quads;
}

/* The bytes 0 and 2 of a quad, added to a pair. */
static inline uint32_t eq_sxtab16(uint32_t pair, uint32_t quad)
{
    uint32_t result;
    __asm__("sxtab16 %0, %1, %2" : "=r"(result) : "r"(pair), "r"(quad));
    return result;
}

/* The bytes 1 and 3 of a quad, added to a pair. */
static inline uint32_t eq_sxtab16_odd(uint32_t pair, uint32_t quad)
{
    uint32_t result;
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(result) : "r"(pair), "r"(quad));
    return result;
}

static inline uint32_t eq_sxtb16(uint32_t quad)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1" : "=r"(result) : "r"(quad));
    return result;
}

static inline uint32_t eq_sxtb16_odd(uint32_t quad)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(quad));
    return result;
}

/* The bytes of each half swapped. */
static inline uint32_t eq_rev16(uint32_t quad)
{
    uint32_t result;
    __asm__("rev16 %0, %1" : "=r"(result) : "r"(quad));
    return result;
}

/* a − b by halves. */
static inline uint32_t eq_ssub16(uint32_t a, uint32_t b)
{
    uint32_t result;
    __asm__("ssub16 %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

/* sum + a.low · b.low + a.high · b.high */
static inline int32_t eq_smlad(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

/* sum + a.low · b.low */
static inline int32_t eq_smlabb(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlabb %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

/* sum + a.high · b.high */
static inline int32_t eq_smlatt(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlatt %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

/* Two int16 as a pair. */
static inline uint32_t eq_pkhbt(int32_t low, int32_t high)
{
    uint32_t result;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(result) : "r"(low), "r"(high));
    return result;
}

/* sum + a.low · b.high */
static inline int32_t eq_smlabt(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlabt %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

/* sum + a.high · b.low */
static inline int32_t eq_smlatb(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlatb %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

/* sum + ⌊a · b.low / 2^16⌋ */
static inline int32_t eq_smlawb(int32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlawb %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

/* sum + ⌊a · b.high / 2^16⌋ */
static inline int32_t eq_smlawt(int32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlawt %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

/* The rounded high word of a · b. */
static inline int32_t eq_smmulr(int32_t a, int32_t b)
{
    int32_t result;
    __asm__("smmulr %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

/* sum + the rounded high word of a · b */
static inline int32_t eq_smmlar(int32_t a, int32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

/* The nearest int8. */
static inline int32_t eq_ssat8(int32_t value)
{
    int32_t result;
    __asm__("ssat %0, #8, %1" : "=r"(result) : "r"(value));
    return result;
}

/* The nearest int8 to ⌊value / 2^EQ_AFFINE_FRACTION⌋. */
static inline int32_t eq_ssat8_affine(int32_t value)
{
    int32_t result;
    __asm__("ssat %0, #8, %1, asr %2" : "=r"(result) : "r"(value), "I"(EQ_AFFINE_FRACTION));
    return result;
}

/* The greater and the lesser of the signed bytes of two quads. */
static inline uint32_t eq_max_quad(uint32_t a, uint32_t b)
{
    uint32_t result;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(result) : "r"(a), "r"(b) : "cc");
    return result;
}

static inline uint32_t eq_min_quad(uint32_t a, uint32_t b)
{
    uint32_t result;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %2, %1" : "=&r"(result) : "r"(a), "r"(b) : "cc");
    return result;
}

#else

static inline uint32_t eq_load_quad(const int8_t *bytes)
{
    return (uint32_t)(uint8_t)bytes[0] | (uint32_t)(uint8_t)bytes[1] << 8 |
           (uint32_t)(uint8_t)bytes[2] << 16 | (uint32_t)(uint8_t)bytes[3] << 24;
}

static inline void eq_store_quad(int8_t *bytes, uint32_t quad)
{
    for (uint32_t i = 0; i < 4; i++) {
        bytes[i] = (int8_t)(quad >> 8 * i);
    }
}

static inline eq_quads_t eq_next_quads(const int8_t **at)
{
    const eq_quads_t quads = {eq_load_quad(*at), eq_load_quad(*at + 4)};
    *at += 8;
    return quads;
}

static inline uint32_t eq_extend(uint32_t byte)
{
    const int32_t value = (int8_t)byte;
    return (uint32_t)value;
}

static inline uint32_t eq_sxtab16(uint32_t pair, uint32_t quad)
{
    const uint32_t low = pair + eq_extend(quad);
    const uint32_t high = (pair >> 16) + eq_extend(quad >> 16);
    return (low & 0xFFFFu) | high << 16;
}

static inline uint32_t eq_sxtab16_odd(uint32_t pair, uint32_t quad)
{
    return eq_sxtab16(pair, quad >> 8);
}

static inline uint32_t eq_sxtb16(uint32_t quad)
{
    return eq_sxtab16(0, quad);
}

static inline uint32_t eq_sxtb16_odd(uint32_t quad)
{
    return eq_sxtab16(0, quad >> 8);
}

static inline uint32_t eq_rev16(uint32_t quad)
{
    return (quad >> 8 & 0x00FF00FFu) | (quad & 0x00FF00FFu) << 8;
}

static inline uint32_t eq_ssub16(uint32_t a, uint32_t b)
{
    return ((a - b) & 0xFFFFu) | ((a >> 16) - (b >> 16)) << 16;
}

static inline int32_t eq_smlad(uint32_t a, uint32_t b, int32_t sum)
{
    const uint32_t low = (uint32_t)((int16_t)a * (int16_t)b);
    const uint32_t high = (uint32_t)((int16_t)(a >> 16) * (int16_t)(b >> 16));
    return (int32_t)((uint32_t)sum + low + high); /* sums wrap around */
}

static inline int32_t eq_smlabb(uint32_t a, uint32_t b, int32_t sum)
{
    return sum + (int16_t)a * (int16_t)b;
}

static inline int32_t eq_smlatt(uint32_t a, uint32_t b, int32_t sum)
{
    return sum + (int16_t)(a >> 16) * (int16_t)(b >> 16);
}

static inline uint32_t eq_pkhbt(int32_t low, int32_t high)
{
    return ((uint32_t)low & 0xFFFFu) | (uint32_t)high << 16;
}

static inline int32_t eq_smlabt(uint32_t a, uint32_t b, int32_t sum)
{
    return (int32_t)((uint32_t)sum + (uint32_t)((int16_t)a * (int16_t)(b >> 16)));
}

static inline int32_t eq_smlatb(uint32_t a, uint32_t b, int32_t sum)
{
    return eq_smlabt(b, a, sum);
}

static inline int32_t eq_smlawb(int32_t a, uint32_t b, int32_t sum)
{
    return sum + (int32_t)((int64_t)a * (int16_t)b >> 16);
}

static inline int32_t eq_smlawt(int32_t a, uint32_t b, int32_t sum)
{
    return eq_smlawb(a, b >> 16, sum);
}

static inline int32_t eq_smmulr(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + INT64_C(0x80000000)) >> 32);
}

static inline int32_t eq_smmlar(int32_t a, int32_t b, int32_t sum)
{
    return sum + eq_smmulr(a, b);
}

static inline int32_t eq_ssat8(int32_t value)
{
    return eq_clamp(value, INT8_MIN, INT8_MAX);
}

static inline int32_t eq_ssat8_affine(int32_t value)
{
    return eq_ssat8(value >> EQ_AFFINE_FRACTION);
}

/* Per byte a where the test of a − b holds, else b. */
static inline uint32_t eq_select_quad(uint32_t a, uint32_t b, int32_t greater)
{
    uint32_t result = 0;
    for (uint32_t at = 0; at < 32; at += 8) {
        const int32_t x = (int8_t)(a >> at);
        const int32_t y = (int8_t)(b >> at);
        result |= (((x >= y) == greater ? a : b) >> at & 0xFFu) << at;
    }
    return result;
}

static inline uint32_t eq_max_quad(uint32_t a, uint32_t b)
{
    return eq_select_quad(a, b, 1);
}

static inline uint32_t eq_min_quad(uint32_t a, uint32_t b)
{
    return eq_select_quad(a, b, 0);
}

#endif

/// Built on them ///

/* Two int16 as a pair. */
static inline uint32_t eq_pack(int32_t low, int32_t high)
{
    return ((uint32_t)low & 0xFFFFu) | (uint32_t)high << 16;
}

/* sum + Σ weights[i] · (values[i] − zero_point) */
static inline int32_t eq_dot_dsp(const int8_t *weights, const int8_t *values, int32_t count,
                                 int32_t zero_point, int32_t sum)
{
    const uint32_t offset = eq_pack(-zero_point, -zero_point);
    for (; count >= 4; count -= 4) {
        const uint32_t w = eq_load_quad(weights);
        const uint32_t x = eq_load_quad(values);
        sum = eq_smlad(eq_sxtb16(w), eq_sxtab16(offset, x), sum);
        sum = eq_smlad(eq_sxtb16_odd(w), eq_sxtab16_odd(offset, x), sum);
        weights += 4;
        values += 4;
    }
    for (; count > 0; count--) {
        sum += *weights++ * (*values++ - zero_point);
    }
    return sum;
}

/* Clamps bytes: for kernels whose sums were saturated to the type, where the clamp is tighter. */
static inline void eq_clamp_bytes(int8_t *bytes, uint32_t count, int32_t low, int32_t high)
{
    const uint32_t lows = 0x01010101u * (uint8_t)low;
    const uint32_t highs = 0x01010101u * (uint8_t)high;
    if (low == INT8_MIN && high == INT8_MAX) {
        return;
    }
    for (; count >= 4; count -= 4) {
        eq_store_quad(bytes, eq_min_quad(eq_max_quad(eq_load_quad(bytes), lows), highs));
        bytes += 4;
    }
    for (; count > 0; count--) {
        *bytes = (int8_t)eq_clamp(*bytes, low, high);
        bytes++;
    }
}

/// Requantisation in five instructions ///

/*
 * What takes a sum to an int8: eq_requantize, the zero point and a clamp to the type. Exact where
 * the shift is to the right by 1..22, which eq_requantize_fits says, and |sum| < 2^30. Rounding away
 * from zero takes one off what is negative after the multiplication; the sum's own sign serves as
 * well: they differ where the product is 0, and half of the last place less one is shifted to 0, too.
 */
typedef struct {
    int32_t multiplier;
    int32_t addend; /* half of the last place, and the zero point above it */
    int32_t right;
} eq_requantize_t;

static inline int eq_requantize_fits(int32_t shift)
{
    return shift < 0 && shift >= -22;
}

static inline eq_requantize_t eq_requantize_of(int32_t multiplier, int32_t shift,
                                               int32_t zero_point)
{
    const eq_requantize_t scale = {multiplier, (1 << (-shift - 1)) + zero_point * (1 << -shift),
                                   -shift};
    return scale;
}

/* Of a sum that is doubled already. */
static inline int32_t eq_requantize_twice(eq_requantize_t scale, int32_t twice)
{
    const int32_t addend = scale.addend - (twice < 0);
    return eq_ssat8(eq_smmlar(twice, scale.multiplier, addend) >> scale.right);
}

static inline int32_t eq_requantize_s8(eq_requantize_t scale, int32_t sum)
{
    return eq_requantize_twice(scale, sum * 2);
}

#endif
