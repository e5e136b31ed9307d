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
    return sum + (int16_t)a * (int16_t)b + (int16_t)(a >> 16) * (int16_t)(b >> 16);
}

static inline int32_t eq_smlabb(uint32_t a, uint32_t b, int32_t sum)
{
    return sum + (int16_t)a * (int16_t)b;
}

static inline int32_t eq_smlatt(uint32_t a, uint32_t b, int32_t sum)
{
    return sum + (int16_t)(a >> 16) * (int16_t)(b >> 16);
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

#endif
