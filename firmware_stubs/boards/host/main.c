/*
 * Runs a model image on this machine:
 * `main IMAGE INPUTS OUTPUTS [trace | results [TRADEOFF [PATH EXIT]]]`.
 *
 * INPUTS holds samples back to back, each the bytes of every input in order; OUTPUTS gets the bytes
 * of every output of each sample. With `trace` it gets the whole arena after every operator; with `results` an
 * eq_result_t behind the outputs of each sample, for a model with gates at that tradeoff, or forced.
 * Image and arena lie in blocks of exactly their size, so that a sanitizer sees every step outside.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgeq.h"
#include "eq_image.h"

static eq_ctx_t context;

static int fail(const char *what, const char *why)
{
    (void)fprintf(stderr, "%s: %s\n", what, why);
    return 1;
}

/* The whole file in a block of its size, or NULL. */
static void *read_file(const char *path, uint32_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        return NULL;
    }
    const long size = ftell(file);
    void *data = size > 0 ? malloc((size_t)size) : NULL;
    if (data != NULL) {
        rewind(file);
        *bytes = (uint32_t)fread(data, 1, (size_t)size, file);
    }
    (void)fclose(file);
    return data;
}

/* 1: a whole sample was read; 0: the end. */
static int read_sample(FILE *file)
{
    const eq_tensor_t *tensor;
    for (uint32_t i = 0; (tensor = eq_input(&context, i)) != NULL; i++) {
        if (fread(tensor->data, 1, tensor->bytes, file) != tensor->bytes) {
            return 0;
        }
    }
    return 1;
}

static void write_outputs(FILE *file)
{
    const eq_tensor_t *tensor;
    for (uint32_t i = 0; (tensor = eq_output(&context, i)) != NULL; i++) {
        (void)fwrite(tensor->data, 1, tensor->bytes, file);
    }
}

static eq_status_t trace(FILE *file, const eq_config_t *config)
{
    eq_status_t status;
    do {
        status = eq_step(&context);
        (void)fwrite(config->arena, 1, config->arena_bytes, file);
    } while (status == EQ_MORE);
    return status;
}

static int run_samples(const eq_config_t *config, FILE *inputs, FILE *outputs, const char *what)
{
    const int traced = strcmp(what, "trace") == 0;
    while (read_sample(inputs)) {
        eq_result_t result;
        const eq_status_t status = traced ? trace(outputs, config) : eq_run(&context, &result);
        if (status != EQ_OK) {
            return fail("eq_run", eq_status_name(status));
        }
        if (!traced) {
            write_outputs(outputs);
        }
        if (strcmp(what, "results") == 0) {
            (void)fwrite(&result, sizeof result, 1, outputs);
        }
    }
    return 0;
}

/* What stands behind `results`. */
static eq_status_t direct(int count, char **words)
{
    eq_status_t status = EQ_OK;
    if (count > 0) {
        status = eq_set_tradeoff(&context, (uint32_t)strtoul(words[0], NULL, 10));
    }
    if (status == EQ_OK && count > 2) {
        status = eq_force(&context, (uint32_t)strtoul(words[1], NULL, 10),
                          (uint32_t)strtoul(words[2], NULL, 10));
    }
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        return fail("usage", "main IMAGE INPUTS OUTPUTS [trace | results ...]");
    }
    eq_config_t config = {NULL, 0, NULL, 0};
    void *image = read_file(argv[1], &config.image_bytes);
    if (image == NULL || config.image_bytes < sizeof(eq_header_t)) {
        return fail(argv[1], "cannot be read");
    }
    config.image = image;
    config.arena_bytes = ((const eq_header_t *)image)->arena_bytes;
    config.arena = malloc(config.arena_bytes);
    eq_status_t status = eq_init(&context, &config);
    if (status != EQ_OK) {
        return fail("eq_init", eq_status_name(status));
    }
    status = direct(argc - 5, argv + 5);
    if (status != EQ_OK) {
        return fail("gates", eq_status_name(status));
    }
    FILE *inputs = fopen(argv[2], "rb");
    FILE *outputs = fopen(argv[3], "wb");
    if (inputs == NULL || outputs == NULL) {
        return fail("inputs or outputs", "cannot be opened");
    }
    int failed = run_samples(&config, inputs, outputs, argc > 4 ? argv[4] : "");
    (void)fclose(inputs);
    if (fclose(outputs) != 0) {
        failed = fail(argv[3], "cannot be written");
    }
    free(config.arena);
    free(image);
    return failed;
}
