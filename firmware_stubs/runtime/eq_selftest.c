#include "eq_selftest.h"

#include <stddef.h>

/* Value by value from the table, or the bytes as they are. */
static void fill_input(const eq_tensor_t *input, const void *values, const eq_selftest_lut_t *lut)
{
    const uint8_t *raw = values;
    const uint8_t *table = lut->table;
    const uint32_t size = table != NULL && input->bits > 8 ? 2 : 1;
    uint8_t *data = input->data;
    uint32_t row = 0;
    for (uint32_t i = 0; i < input->bytes; i++) {
        const uint32_t entry = row * 256u + raw[i / size];
        data[i] = table != NULL ? table[entry * size + i % size] : raw[i];
        if (i % size == size - 1) {
            row = row + 1 < lut->channels ? row + 1 : 0;
        }
    }
}

/* Whether a case passes; fault says why it does not. */
static int run_case(const eq_selftest_t *tables, const eq_selftest_case_t *golden, eq_ctx_t *ctx,
                    eq_selftest_fault_t *fault)
{
    const eq_tensor_t *port;
    for (uint32_t i = 0; (port = eq_input(ctx, i)) != NULL; i++) {
        fill_input(port, golden->inputs[i], &tables->input_luts[i]);
    }
    eq_result_t result;
    fault->status = eq_run(ctx, &result);
    if (fault->status != EQ_OK) {
        return 0;
    }
    if (golden->cost != 0 && (result.exit != golden->exit || result.path != golden->path ||
                              result.cost != golden->cost)) {
        fault->output = EQ_SELFTEST_ROUTE;
        return 0;
    }
    for (uint32_t i = 0; (port = eq_output(ctx, i)) != NULL; i++) {
        const int8_t *computed = port->data;
        for (uint32_t byte = 0; byte < port->bytes; byte++) {
            if (computed[byte] != golden->outputs[i][byte]) {
                fault->output = i;
                fault->byte = byte;
                fault->expected = golden->outputs[i][byte];
                fault->computed = computed[byte];
                return 0;
            }
        }
    }
    return 1;
}

uint32_t eq_selftest(const eq_selftest_t *tables, eq_ctx_t *ctx, void *arena, uint32_t arena_bytes,
                     eq_selftest_report_t report)
{
    const eq_config_t config = {tables->image, tables->image_bytes, arena, arena_bytes};
    const eq_status_t status = eq_init(ctx, &config);
    uint32_t failed = 0;
    for (uint32_t i = 0; i < tables->case_count; i++) {
        eq_selftest_fault_t fault = {i, status, 0, 0, 0, 0};
        if (status != EQ_OK || !run_case(tables, &tables->cases[i], ctx, &fault)) {
            failed++;
            if (report != NULL) {
                report(tables, &fault);
            }
        }
    }
    return failed;
}
