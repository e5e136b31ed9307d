/*
 * write_model.c - writes the hand-made model of model.h as a build would have it, to the folder
 * given: model.h, model.c, selftest.c and harness_model.h. For `make firmware`, and as an example
 * of what selftest.c holds.
 */
#include "model.h"

enum { CASES = 3 };

static FILE *open_file(const char *folder, const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        printf("cannot write %s\n", path);
        exit(1);
    }
    return file;
}

static void write_values(FILE *file, const char *name, const int8_t *values, uint32_t count)
{
    fprintf(file, "static const int8_t %s[%lu] = {", name, (unsigned long)count);
    for (uint32_t i = 0; i < count; i++) {
        fprintf(file, "%s%d,", i % 16 == 0 ? "\n    " : " ", values[i]);
    }
    fprintf(file, "\n};\n");
}

static void write_image(const char *folder, image_t image)
{
    FILE *file = open_file(folder, "model.h");
    fprintf(file,
            "#ifndef MODEL_H\n#define MODEL_H\n\n#include <stdint.h>\n\n"
            "#define MODEL_IMAGE_BYTES %luu\n#define MODEL_ARENA_BYTES %luu\n\n"
            "extern const uint8_t model_image[MODEL_IMAGE_BYTES];\n\n#endif\n",
            (unsigned long)image.length, (unsigned long)image_header(image)->arena_bytes);
    (void)fclose(file);
    file = open_file(folder, "model.c");
    fprintf(file, "#include \"model.h\"\n\n#include \"edgeq.h\"\n\n"
                  "const uint8_t model_image[MODEL_IMAGE_BYTES] EQ_ALIGNED = {");
    for (uint32_t i = 0; i < image.length; i++) {
        fprintf(file, "%s0x%02X,", i % 16 == 0 ? "\n    " : " ", image.bytes[i]);
    }
    fprintf(file, "\n};\n");
    (void)fclose(file);
    file = open_file(folder, "harness_model.h");
    fprintf(file, "#include \"model.h\"\n\n#define HARNESS_IMAGE model_image\n"
                  "#define HARNESS_IMAGE_BYTES MODEL_IMAGE_BYTES\n"
                  "#define HARNESS_ARENA_BYTES MODEL_ARENA_BYTES\n");
    (void)fclose(file);
}

static void write_case(FILE *file, eq_ctx_t *ctx, uint32_t index, uint32_t *random)
{
    char name[32];
    const eq_tensor_t *port = eq_input(ctx, 0);
    for (uint32_t i = 0; i < port->bytes; i++) {
        ((uint8_t *)port->data)[i] = (uint8_t)random_next(random);
    }
    (void)snprintf(name, sizeof name, "input_%lu", (unsigned long)index);
    write_values(file, name, port->data, port->bytes);
    if (eq_run(ctx, NULL) != EQ_OK) {
        exit(1);
    }
    for (uint32_t i = 0; (port = eq_output(ctx, i)) != NULL; i++) {
        (void)snprintf(name, sizeof name, "output_%lu_%lu", (unsigned long)index, (unsigned long)i);
        write_values(file, name, port->data, port->bytes);
    }
}

static void write_selftest(const char *folder, image_t image)
{
    FILE *file = open_file(folder, "selftest.c");
    uint8_t *arena = exact_block(image_header(image)->arena_bytes);
    const eq_config_t config = {image.bytes, image.length, arena, image_header(image)->arena_bytes};
    eq_ctx_t ctx;
    uint32_t random = 20261121u;
    if (eq_init(&ctx, &config) != EQ_OK) {
        exit(1);
    }
    fprintf(file, "#include \"eq_selftest.h\"\n#include \"model.h\"\n\n");
    for (uint32_t i = 0; i < CASES; i++) {
        write_case(file, &ctx, i, &random);
    }
    fprintf(file, "\nstatic const eq_selftest_case_t cases[%d] = {\n", CASES);
    for (int i = 0; i < CASES; i++) {
        fprintf(file, "    {{input_%d}, {output_%d_0, output_%d_1, output_%d_2}, 0, 0, 0},\n", i, i,
                i, i);
    }
    fprintf(file,
            "};\n\nconst eq_selftest_t eq_selftest_tables = {\n    .name = \"model\",\n"
            "    .image = model_image,\n    .image_bytes = MODEL_IMAGE_BYTES,\n"
            "    .input_luts = {{0, 0}},\n    .cases = cases,\n    .case_count = %d,\n};\n\n"
            "#define EQ_SELFTEST_ARENA_BYTES MODEL_ARENA_BYTES\n#include \"eq_selftest_main.h\"\n",
            CASES);
    (void)fclose(file);
    free(arena);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        printf("usage: write_model FOLDER\n");
        return 2;
    }
    const image_t image = seed_image();
    write_image(argv[1], image);
    write_selftest(argv[1], image);
    free(image.bytes);
    return 0;
}
