/*
 * Addition, int8, where no affine form is exact: what the portable kernel makes of each of an
 * input's 256 values stands in tables in scratch. The output may be either input.
 */
#include "eq_dsp.h"
#include "eq_rows.h"

#define VALUES 256u

/* The values of an input are −span .. span − 1: those that its memory can hold. */
static int32_t span(const eq_call_t *call, uint32_t input)
{
    return 1 << (eq_width(call->in[input]->bits) - 1u);
}

/* What an input's values add to the sum. */
typedef struct {
    int32_t multiplier;
    eq_shift_t shift;
    int32_t zero_point;
    int32_t end;
} terms_t;

static inline terms_t terms_of(const eq_call_t *call, uint32_t input)
{
    const terms_t terms = {call->multiplier[input], eq_shift(call->shift[input]),
                           call->in[input]->zero_point, span(call, input)};
    return terms;
}

static inline int32_t term(terms_t terms, int32_t x)
{
    const int32_t wide = (x - terms.zero_point) * (1 << EQ_ADD_LEFT_SHIFT);
    return eq_requantize(wide, terms.multiplier, terms.shift);
}

/* The greatest magnitude of a term: one of the ends, since terms never fall. */
EQ_NOINLINE static int32_t most(const eq_call_t *call, uint32_t input)
{
    const terms_t terms = terms_of(call, input);
    const int32_t low = -term(terms, -terms.end);
    const int32_t high = term(terms, terms.end - 1);
    return low > high ? low : high;
}

/* By the value as an unsigned byte; twice, where `doubled` is 1. */
static void fill_table(const eq_call_t *call, uint32_t input, int32_t doubled, int32_t *table)
{
    const terms_t terms = terms_of(call, input);
    for (int32_t x = -terms.end; x < terms.end; x++) {
        table[(uint8_t)x] = term(terms, x) * (1 << doubled);
    }
}

/* The sum of two bytes, of which the tables have twice the values. */
static inline int8_t add_byte(eq_requantize_t scale, const int32_t *first, const int32_t *second,
                              int8_t a, int8_t b)
{
    return (int8_t)eq_requantize_twice(scale, first[(uint8_t)a] + second[(uint8_t)b]);
}

static void add_fast(const eq_call_t *call, const int32_t *table, uint32_t count)
{
    const eq_requantize_t scale =
        eq_requantize_of(call->multiplier[2], call->shift[2], call->out->zero_point);
    const int32_t *second = table + VALUES;
    const int8_t *a = call->input[0];
    const int8_t *b = call->input[1];
    int8_t *output = call->output;
    const int8_t *const end = output + count;
    for (const int8_t *const fours = end - count % 4; output != fours; output += 4) {
        output[0] = add_byte(scale, table, second, a[0], b[0]);
        output[1] = add_byte(scale, table, second, a[1], b[1]);
        output[2] = add_byte(scale, table, second, a[2], b[2]);
        output[3] = add_byte(scale, table, second, a[3], b[3]);
        a += 4;
        b += 4;
    }
    while (output != end) {
        *output++ = add_byte(scale, table, second, *a++, *b++);
    }
}

/* For scales that five instructions do not requantise exactly. */
static void add_plain(const eq_call_t *call, const int32_t *table, uint32_t count)
{
    const eq_shift_t shift = eq_shift(call->shift[2]);
    const int32_t zero_point = call->out->zero_point;
    for (uint32_t i = 0; i < count; i++) {
        const int32_t sum =
            table[(uint8_t)call->input[0][i]] + table[VALUES + (uint8_t)call->input[1][i]];
        const int32_t value = eq_requantize(sum, call->multiplier[2], shift);
        call->output[i] =
            (int8_t)(eq_clamp(value, INT8_MIN - zero_point, INT8_MAX - zero_point) + zero_point);
    }
}

void eq_add_table_s8_dsp(const eq_call_t *call)
{
    int32_t *table = call->scratch;
    const uint32_t count = eq_elements(call->out);
    const int fast =
        eq_requantize_fits(call->shift[2]) && most(call, 0) / 2 + most(call, 1) / 2 < (1 << 29) - 1;
    fill_table(call, 0, fast, table);
    fill_table(call, 1, fast, table + VALUES);
    if (fast) {
        add_fast(call, table, count);
    } else {
        add_plain(call, table, count);
    }
    eq_clamp_bytes(call->output, count, call->op->clamp_min, call->op->clamp_max);
}
