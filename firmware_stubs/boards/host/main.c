/*
 * Runs a model on this machine: `main INPUTS OUTPUTS [trace]`.
 *
 * INPUTS holds samples back to back, each the bytes of every input in order; OUTPUTS gets the bytes
 * of every output of each sample. With `trace` it gets the whole arena after every operator.
 */
#include <stdio.h>

#include "harness_model.h"

static uint8_t harness_arena[HARNESS_ARENA_BYTES] EQ_ALIGNED;
static eq_ctx_t harness_context;

static int harness_fail(const char *what, eq_status_t status)
{
    (void)fprintf(stderr, "%s: %s\n", what, eq_status_name(status));
    return 1;
}

/* 1: a whole sample was read; 0: the end. */
static int harness_read(FILE *file)
{
    const eq_tensor_t *tensor;
    for (uint32_t i = 0; (tensor = eq_input(&harness_context, i)) != NULL; i++) {
        if (fread(tensor->data, 1, tensor->bytes, file) != tensor->bytes) {
            return 0;
        }
    }
    return 1;
}

static void harness_write(FILE *file)
{
    const eq_tensor_t *tensor;
    for (uint32_t i = 0; (tensor = eq_output(&harness_context, i)) != NULL; i++) {
        (void)fwrite(tensor->data, 1, tensor->bytes, file);
    }
}

static eq_status_t harness_trace(FILE *file)
{
    eq_status_t status;
    do {
        status = eq_step(&harness_context);
        (void)fwrite(harness_arena, 1, sizeof harness_arena, file);
    } while (status == EQ_MORE);
    return status;
}

int main(int argc, char **argv)
{
    const eq_config_t config = {HARNESS_IMAGE, HARNESS_IMAGE_BYTES, harness_arena,
                                HARNESS_ARENA_BYTES};
    eq_status_t status = eq_init(&harness_context, &config);
    if (status != EQ_OK) {
        return harness_fail("eq_init", status);
    }
    FILE *inputs = argc > 2 ? fopen(argv[1], "rb") : NULL;
    FILE *outputs = argc > 2 ? fopen(argv[2], "wb") : NULL;
    if (inputs == NULL || outputs == NULL) {
        (void)fprintf(stderr, "usage: main INPUTS OUTPUTS [trace]\n");
        return 2;
    }
    while (harness_read(inputs)) {
        status = argc > 3 ? harness_trace(outputs) : eq_run(&harness_context, NULL);
        if (status != EQ_OK) {
            return harness_fail("eq_run", status);
        }
        if (argc <= 3) {
            harness_write(outputs);
        }
    }
    (void)fclose(inputs);
    return fclose(outputs) == 0 ? 0 : harness_fail("outputs", EQ_E_ARGUMENT);
}
