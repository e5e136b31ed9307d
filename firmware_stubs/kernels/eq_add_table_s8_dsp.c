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

/* By the value as an unsigned byte; the return value is the greatest magnitude. */
static int32_t fill_table(const eq_call_t *call, uint32_t input, int32_t *table)
{
    const eq_shift_t shift = eq_shift(call->shift[input]);
    const int32_t multiplier = call->multiplier[input];
    const int32_t zero_point = call->in[input]->zero_point;
    const int32_t end = span(call, input);
    int32_t most = 0;
    for (int32_t x = -end; x < end; x++) {
        const int32_t wide = (x - zero_point) * (1 << EQ_ADD_LEFT_SHIFT);
        const int32_t value = eq_requantize(wide, multiplier, shift);
        const int32_t magnitude = value < 0 ? -value : value;
        most = magnitude > most ? magnitude : most;
        table[(uint8_t)x] = value;
    }
    return most;
}

static void double_table(const eq_call_t *call, uint32_t input, int32_t *table)
{
    const int32_t end = span(call, input);
    for (int32_t x = -end; x < end; x++) {
        table[(uint8_t)x] *= 2;
    }
}

/* Scale and tables of twice the values. */
typedef struct {
    eq_requantize_t scale;
    const int32_t *first;
    const int32_t *second;
} sums_t;

/* The sum of bytes `at` of two quads. */
static inline int8_t add_byte(sums_t sums, uint32_t a, uint32_t b, uint32_t at)
{
    const int32_t twice = sums.first[a >> 8 * at & 0xFFu] + sums.second[b >> 8 * at & 0xFFu];
    return (int8_t)eq_requantize_twice(sums.scale, twice);
}

static void add_fast(const eq_call_t *call, int32_t *table, uint32_t count)
{
    double_table(call, 0, table);
    double_table(call, 1, table + VALUES);
    const sums_t sums = {
        eq_requantize_of(call->multiplier[2], call->shift[2], call->out->zero_point), table,
        table + VALUES};
    const int8_t *a = call->input[0];
    const int8_t *b = call->input[1];
    int8_t *output = call->output;
    for (; count >= 4; count -= 4) {
        const uint32_t x = eq_load_quad(a);
        const uint32_t y = eq_load_quad(b);
        output[0] = add_byte(sums, x, y, 0);
        output[1] = add_byte(sums, x, y, 1);
        output[2] = add_byte(sums, x, y, 2);
        output[3] = add_byte(sums, x, y, 3);
        a += 4;
        b += 4;
        output += 4;
    }
    for (; count > 0; count--) {
        *output++ = add_byte(sums, (uint8_t)*a++, (uint8_t)*b++, 0);
    }
}

/* For scales that six instructions do not requantise exactly. */
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
    const int32_t most = fill_table(call, 0, table) / 2 + fill_table(call, 1, table + VALUES) / 2;
    if (eq_requantize_fits(call->shift[2]) && most < (1 << 29) - 1) {
        add_fast(call, table, count);
    } else {
        add_plain(call, table, count);
    }
    eq_clamp_bytes(call->output, count, call->op->clamp_min, call->op->clamp_max);
}
