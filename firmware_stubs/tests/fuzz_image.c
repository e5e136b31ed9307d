/*
 * fuzz_image.c - attacks the guarantees of README.md with damaged images.
 *
 *     fuzz_image [rounds [seed.eqb ...]]
 *
 * Each round damages a seed (the hand-made model, or the files named), repairs the checksum, and
 * runs what eq_init accepts on random inputs. Image and arena lie in blocks of exactly their size;
 * built with sanitizers, a byte read or written too far, an overflow or a misaligned access stops
 * it. The sequence is fixed. What is checked here by value names its guarantee.
 */
#include "fast.h"
#include "gated.h"
#include "lanes.h"
#include "shaping.h"
#include "wide.h"

enum { MOST_ARENA = 1 << 20 };

static uint32_t state = 20261121u;

/// Damage ///

/* A field at a random place, set to a value that tends to break things. */
static void damage_field(image_t image)
{
    static const uint32_t values[] = {0,          1,          2,        3,          7,
                                      8,          0x7F,       0x80,     0xFF,       0x100,
                                      0x7FFF,     0x8000,     0xFFFF,   0x10000,    0x3FFFFFFF,
                                      0x40000000, 0x7FFFFFFF, 1u << 31, 0xFFFFFFF8, 0xFFFFFFFF};
    const uint32_t size = 1u << random_next(&state) % 3;
    const uint32_t at = random_next(&state) % (image.length / size) * size;
    uint32_t value = values[random_next(&state) % (sizeof values / sizeof values[0])];
    for (uint32_t i = 0; i < size; i++) {
        image.bytes[at + i] = (uint8_t)value;
        value >>= 8;
    }
}

/* A field changed a little. */
static void damage_slightly(image_t image)
{
    const uint32_t at = random_next(&state) % image.length;
    const uint32_t kind = random_next(&state) % 3;
    const int32_t step = random_in(&state, 1, 16);
    image.bytes[at] = (uint8_t)(kind == 0   ? image.bytes[at] ^ 1 << step % 8
                                : kind == 1 ? image.bytes[at] + step
                                            : image.bytes[at] - step);
}

/* Most damage goes where the structure is: before the tables. */
static image_t damaged_copy(const image_t *seed)
{
    image_t image = {exact_block(seed->length), seed->length};
    memcpy(image.bytes, seed->bytes, seed->length);
    image_t structure = image;
    const uint32_t tables = image_sections(image)[EQ_SECTION_TABLES - 1].offset;
    if (random_next(&state) % 4 != 0 && tables <= image.length) {
        structure.length = tables;
    }
    if (image_header(image)->section_count == MODEL_KINDS && random_next(&state) % 2 == 0) {
        const eq_section_t *gate = &image_sections(image)[EQ_SECTION_GATE - 1];
        structure.bytes = image.bytes + gate->offset;
        structure.length = gate->bytes;
    }
    const uint32_t count = 1 + random_next(&state) % 4;
    for (uint32_t i = 0; i < count; i++) {
        if (random_next(&state) % 2 == 0) {
            damage_field(structure);
        } else {
            damage_slightly(structure);
        }
    }
    if (random_next(&state) % 16 == 0) { /* cut short, and the header knows it or not */
        image.length = random_next(&state) % (image.length + 1);
        uint8_t *bytes = exact_block(image.length);
        memcpy(bytes, image.bytes, image.length);
        free(image.bytes);
        image.bytes = bytes;
    }
    if (image.length >= sizeof(eq_header_t)) {
        if (random_next(&state) % 16 != 0) {
            image_header(image)->length = image.length;
        }
        image_seal(image);
    }
    return image;
}

/// Guarantees ///

static void fill_arena(uint8_t *arena, uint32_t bytes, uint32_t seed)
{
    for (uint32_t i = 0; i < bytes; i++) {
        arena[i] = (uint8_t)random_next(&seed);
    }
}

/* 1 where the image was accepted. */
static int attack(image_t image)
{
    const eq_header_t *header = image_header(image);
    const uint32_t wanted = image.length >= sizeof *header ? header->arena_bytes : 0;
    const uint32_t arena_bytes = wanted <= MOST_ARENA ? wanted : MOST_ARENA;
    const uint32_t crc = eq_crc32(image.bytes, image.length);
    uint8_t *arena = exact_block(arena_bytes);
    eq_ctx_t *ctx = exact_block(sizeof *ctx);
    const eq_config_t config = {image.bytes, image.length, arena, arena_bytes};
    const eq_status_t status = eq_init(ctx, &config);
    if (status != EQ_OK) {
        CHECK(status < 0, "guarantee 2: refused by %d", status);
        CHECK(eq_run(ctx, NULL) == EQ_E_ARGUMENT && eq_input(ctx, 0) == NULL, "guarantee 2");
    }
    for (uint32_t run = 0; status == EQ_OK && run < 2; run++) {
        eq_result_t first = {0}, second = {0};
        const uint32_t seed = random_next(&state);
        fill_arena(arena, arena_bytes, seed);
        CHECK(eq_run(ctx, &first) == EQ_OK, "guarantee 5: an accepted image runs to its end");
        const eq_tensor_t *output = eq_output(ctx, 0);
        const uint32_t values = output->shape[0] * output->shape[1] * output->shape[2];
        const uint32_t most = output->bits == 16 ? 65535 : 255;
        CHECK(first.label < values && first.confidence <= most, "guarantee 6");
        CHECK(first.exit < 8 && first.cost >= 1 && first.cost <= 65536, "guarantee 6");
        fill_arena(arena, arena_bytes, seed);
        CHECK(eq_run(ctx, &second) == EQ_OK && first.label == second.label &&
                  first.confidence == second.confidence && first.path == second.path &&
                  first.exit == second.exit && first.cost == second.cost,
              "guarantee 8: the same arena gives the same result");
    }
    CHECK(eq_crc32(image.bytes, image.length) == crc, "guarantee 7: the image was written");
    free(ctx);
    free(arena);
    return status == EQ_OK;
}

/// Seeds ///

static image_t read_image(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        printf("cannot read %s\n", path);
        exit(2);
    }
    const long length = ftell(file);
    rewind(file);
    image_t image = {exact_block((size_t)length), (uint32_t)length};
    if (fread(image.bytes, 1, image.length, file) != image.length ||
        image.length < sizeof(eq_header_t) + MODEL_SECTIONS * sizeof(eq_section_t)) {
        printf("%s is no image\n", path);
        exit(2);
    }
    (void)fclose(file);
    return image;
}

static void fuzz(const char *name, image_t seed, uint32_t rounds)
{
    uint32_t accepted = 0;
    CHECK(attack(seed), "%s itself is refused", name);
    for (uint32_t i = 0; i < rounds; i++) {
        const image_t image = damaged_copy(&seed);
        accepted += (uint32_t)attack(image);
        free(image.bytes);
    }
    printf("fuzz_image: %s: %u images, %u accepted\n", name, rounds, accepted);
    free(seed.bytes);
}

int main(int argc, char **argv)
{
    const uint32_t rounds = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 20000u;
    fuzz("hand-made model", seed_image(), rounds);
    fuzz("shaping model", shaping_image(8), rounds);
    fuzz("packed shaping model", shaping_image(4), rounds);
    fuzz("wide model", wide_image(), rounds);
    fuzz("fast model", fast_image(8), rounds);
    fuzz("packed fast model", fast_image(4), rounds);
    fuzz("model in pairs", pairs_image(), rounds);
    fuzz("model in lanes", lanes_image(), rounds);
    fuzz("routed model without prediction", gated_image(EQ_FORM_STATIC), rounds);
    fuzz("routed model with a table", gated_image(EQ_FORM_TABLE), rounds);
    fuzz("routed model with networks", gated_image(EQ_FORM_MLP), rounds);
    for (int i = 2; i < argc; i++) {
        fuzz(argv[i], read_image(argv[i]), rounds);
    }
    return check_report("fuzz_image");
}
