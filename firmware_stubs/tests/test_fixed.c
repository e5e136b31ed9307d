/*
 * test_fixed.c - eq_fixed.h, the softmax kernel and the checksum against golden vectors of
 * edgeq/fixedpoint.py, and the requantisation of eq_dsp.h against that of eq_fixed.h.
 */
#include "check.h"
#include "eq_crc32.h"
#include "eq_dsp.h"
#include "eq_fixed.h"
#include "eq_kernel.h"
#include "vectors/fixed.h"

#define ROWS(table) (sizeof table / sizeof table[0])

static void test_high_multiply(void)
{
    for (size_t i = 0; i < ROWS(high_multiply_rows); i++) {
        const int32_t *row = high_multiply_rows[i];
        const int32_t result = eq_high_multiply(row[0], row[1]);
        CHECK(result == row[2], "%d · %d gives %d, expected %d", row[0], row[1], result, row[2]);
    }
}

static void test_rounding_shift_right(void)
{
    for (size_t i = 0; i < ROWS(shift_rows); i++) {
        const int32_t *row = shift_rows[i];
        const int32_t result = eq_rounding_shift_right(row[0], row[1]);
        CHECK(result == row[2], "%d >> %d gives %d, expected %d", row[0], row[1], result, row[2]);
    }
}

static void test_requantize(void)
{
    for (size_t i = 0; i < ROWS(requantize_rows); i++) {
        const int32_t *row = requantize_rows[i];
        const int32_t result = eq_requantize(row[0], row[1], eq_shift(row[2]));
        CHECK(result == row[3], "%d · %d · 2^%d gives %d, expected %d", row[0], row[1], row[2],
              result, row[3]);
    }
}

static void test_round_away_divide(void)
{
    for (size_t i = 0; i < ROWS(divide_rows); i++) {
        const int32_t *row = divide_rows[i];
        const int32_t result = eq_round_away_divide(row[0], row[1]);
        CHECK(result == row[2], "%d / %d gives %d, expected %d", row[0], row[1], result, row[2]);
    }
}

static void test_shift_left_saturates(void)
{
    CHECK(eq_shift_left_saturate(1 << 29, 1) == 1 << 30, "exact");
    CHECK(eq_shift_left_saturate(1 << 30, 1) == INT32_MAX, "above");
    CHECK(eq_shift_left_saturate(-(1 << 30), 1) == INT32_MIN, "exact minimum");
    CHECK(eq_shift_left_saturate(-(1 << 30) - 1, 1) == INT32_MIN, "below");
}

/* multiplier, shift, count, inputs, expected outputs; in place and apart. */
static void check_softmax(const int32_t *row, int in_place)
{
    const int32_t count = row[2];
    const int8_t shift = (int8_t)row[1];
    const eq_tensor_record_t record = {.shape = {1, 1, (uint32_t)count}};
    int8_t *input = exact_block((size_t)count);
    int8_t *output = in_place ? input : exact_block((size_t)count);
    for (int32_t i = 0; i < count; i++) {
        input[i] = (int8_t)row[3 + i];
    }
    const eq_call_t call = {.in = {&record, &record},
                            .out = &record,
                            .input = {input, input},
                            .output = output,
                            .multiplier = row,
                            .shift = &shift};
    eq_softmax_s8_ref(&call);
    for (int32_t i = 0; i < count; i++) {
        CHECK(output[i] == row[3 + count + i],
              "softmax of %d values, multiplier %d, shift %d: "
              "value %d is %d, expected %d",
              count, row[0], shift, i, output[i], row[3 + count + i]);
    }
    if (!in_place) {
        free(output);
    }
    free(input);
}

static void test_softmax(void)
{
    const int32_t *end = softmax_rows + ROWS(softmax_rows);
    for (const int32_t *row = softmax_rows; row < end; row += 3 + 2 * row[2]) {
        check_softmax(row, 0);
        check_softmax(row, 1);
    }
}

static void test_requantize_wide(void)
{
    for (uint32_t i = 0; i < ROWS(requantize_wide_rows); i++) {
        const int32_t *row = requantize_wide_rows[i];
        const int64_t x = (int64_t)row[0] * (1 << 24) + row[1];
        const int32_t value = eq_requantize_wide(x, row[2], eq_shift(row[3]));
        CHECK(value == row[4], "row %u is %d, expected %d", i, value, row[4]);
    }
}

/* eq_dsp.h's short way against the portable one: around every tie near 0, and at both ends. */
static void test_requantize_s8(void)
{
    static const int32_t multipliers[] = {0,          1 << 29,    1 << 30,  (1 << 30) + 1,
                                          1500000000, 2147483646, INT32_MAX};
    static const int32_t zero_points[] = {-128, -1, 0, 127};
    uint32_t random = 1;
    for (uint32_t i = 0; i < 7 * 22 * 4; i++) {
        const int32_t multiplier = multipliers[i % 7];
        const int32_t right = 1 + (int32_t)(i / 7 % 22);
        const int32_t zero_point = zero_points[i / (7 * 22)];
        const eq_requantize_t scale = eq_requantize_of(multiplier, -right, zero_point);
        for (int32_t k = -40; k < 40; k++) {
            const int32_t unit = (k >= 0 ? k : -k) << (right - 1);
            const int32_t tie = (k >= 0 ? unit : -unit) + random_in(&random, -2, 2);
            const int32_t sums[] = {k, tie, random_in(&random, -(1 << 30) + 1, (1 << 30) - 1)};
            for (uint32_t j = 0; j < 3; j++) {
                const int32_t exact = eq_requantize(sums[j], multiplier, eq_shift((int8_t)-right));
                const int32_t value = eq_clamp(exact + zero_point, INT8_MIN, INT8_MAX);
                const int32_t quick = eq_requantize_s8(scale, sums[j]);
                CHECK(quick == value, "%d · %d >> %d gives %d, expected %d", sums[j], multiplier,
                      right, quick, value);
            }
        }
    }
}

static void test_crc32(void)
{
    static const char text[] = "123456789";
    CHECK(eq_crc32((const uint8_t *)text, 9) == 0xCBF43926u, "the check value of the standard");
    CHECK(eq_crc32((const uint8_t *)text, 0) == 0u, "of nothing");
}

int main(void)
{
    test_high_multiply();
    test_rounding_shift_right();
    test_requantize();
    test_round_away_divide();
    test_shift_left_saturates();
    test_softmax();
    test_requantize_wide();
    test_requantize_s8();
    test_crc32();
    return check_report("test_fixed");
}
