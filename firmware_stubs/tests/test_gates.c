/*
 * test_gates.c - the gates against edgeq/gates.py, the interface of a model with gates, and each
 * reason for which eq_init refuses one.
 */
#include "gated.h"
#include "vectors/gates.h"

enum { ROW_EXITS = 4, ROW_CLASSES = 5, ROW_LOGITS = (ROW_EXITS - 1) * ROW_CLASSES };

static const eq_form_t forms[] = {EQ_FORM_STATIC, EQ_FORM_TABLE, EQ_FORM_MLP};

/// Vectors ///

/* Follows one input: tradeoff, logits of every exit, the paths that it takes. */
static void check_row(const eq_gate_t *gate, const int32_t *row, uint32_t *state)
{
    const uint32_t tradeoff = (uint32_t)row[0];
    const int32_t *expected = row + 1 + ROW_LOGITS;
    uint32_t path = eq_gate_first(gate, tradeoff);
    CHECK((int32_t)path == expected[0], "first %u, not %d", path, expected[0]);
    for (uint32_t exit = 0; exit + 1 < ROW_EXITS && expected[exit + 1] >= 0; exit++) {
        int8_t logits[ROW_CLASSES];
        for (uint32_t i = 0; i < ROW_CLASSES; i++) {
            logits[i] = (int8_t)row[1 + exit * ROW_CLASSES + i];
        }
        path = eq_gate_next(gate, path, tradeoff, logits, (uint8_t *)state);
        CHECK((int32_t)path == expected[exit + 1], "exit %u of form %u: %u, not %d", exit,
              gate->form, path, expected[exit + 1]);
    }
}

#define CHECK_ROWS(words, rows)                                                                    \
    do {                                                                                           \
        const eq_gate_t *gate = (const void *)words;                                               \
        uint32_t *state = exact_block(eq_gate_state_bytes(gate));                                  \
        for (uint32_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {                              \
            check_row(gate, rows[i], state);                                                       \
        }                                                                                          \
        free(state);                                                                               \
    } while (0)

static void test_vectors(void)
{
    CHECK_ROWS(gate_static, static_rows);
    CHECK_ROWS(gate_table, table_rows);
    CHECK_ROWS(gate_mlp, mlp_rows);
}

/// The interface ///

typedef struct {
    image_t image;
    uint8_t *arena;
    eq_ctx_t ctx;
    eq_status_t status;
} gated_t;

static void open_gated(gated_t *g, image_t image)
{
    const uint32_t bytes = image_header(image)->arena_bytes;
    g->image = image;
    g->arena = exact_block(bytes);
    const eq_config_t config = {image.bytes, image.length, g->arena, bytes};
    g->status = eq_init(&g->ctx, &config);
}

static void close_gated(gated_t *g)
{
    free(g->arena);
    free(g->image.bytes);
}

static eq_result_t run_gated(gated_t *g, uint32_t seed)
{
    eq_result_t result = {0};
    const eq_tensor_t *input = eq_input(&g->ctx, 0);
    for (uint32_t i = 0; i < input->bytes; i++) {
        ((uint8_t *)input->data)[i] = (uint8_t)random_next(&seed);
    }
    CHECK(eq_run(&g->ctx, &result) == EQ_OK, "runs");
    return result;
}

static void test_without_prediction_all_goes_to_the_end(void)
{
    gated_t g;
    open_gated(&g, gated_image(EQ_FORM_STATIC));
    CHECK(g.status == EQ_OK, "%s", eq_status_name(g.status));
    eq_result_t result = run_gated(&g, 1);
    CHECK(result.exit == 2 && result.path == 0 && result.cost == 60000, "path %x", result.path);
    CHECK(eq_set_tradeoff(&g.ctx, 50000) == EQ_OK, "a tradeoff");
    result = run_gated(&g, 1);
    CHECK(result.exit == 2 && result.path == 0x111, "the first level follows it: %x", result.path);
    close_gated(&g);
}

static void test_forced_paths(void)
{
    static const uint32_t paths[][2] = {{0, 0}, {0, 2}, {0x10, 1}, {0x110, 2}, {1, 0}, {0x111, 2}};
    for (uint32_t form = 0; form < 3; form++) {
        gated_t g;
        open_gated(&g, gated_image(forms[form]));
        const eq_result_t routed = run_gated(&g, 3);
        for (uint32_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
            CHECK(eq_force(&g.ctx, paths[i][0], paths[i][1]) == EQ_OK, "path %u", i);
            const eq_result_t result = run_gated(&g, 3);
            CHECK(result.path == paths[i][0] && result.exit == paths[i][1], "path %u", i);
            CHECK(result.cost == 20000 * (result.exit + 1), "its cost");
        }
        CHECK(eq_force(&g.ctx, 1, 1) == EQ_E_ARGUMENT, "precision never rises");
        CHECK(eq_force(&g.ctx, 0, 3) == EQ_E_ARGUMENT, "no such exit");
        CHECK(eq_force(&g.ctx, 2, 0) == EQ_E_ARGUMENT, "no such level");
        CHECK(run_gated(&g, 3).path == 0x111, "what is refused changes nothing");
        CHECK(eq_force(&g.ctx, 0, EQ_ROUTE) == EQ_OK, "routing is back");
        const eq_result_t again = run_gated(&g, 3);
        CHECK(again.path == routed.path && again.exit == routed.exit, "as before");
        close_gated(&g);
    }
}

/* What is set during a run holds from the next gate, or run, on. */
static void test_setting_during_a_run(void)
{
    gated_t g;
    eq_result_t result = {0};
    open_gated(&g, gated_image(EQ_FORM_STATIC));
    CHECK(eq_step(&g.ctx) == EQ_MORE, "begun");
    CHECK(eq_force(&g.ctx, 1, 0) == EQ_OK && eq_set_tradeoff(&g.ctx, 60000) == EQ_OK, "set");
    CHECK(eq_run(&g.ctx, &result) == EQ_OK && result.path == 0 && result.exit == 2, "this run");
    CHECK(run_gated(&g, 1).path == 1, "the next");
    close_gated(&g);
}

static void test_a_model_without_gates(void)
{
    gated_t g;
    eq_ctx_t none = {0};
    open_gated(&g, seed_image());
    CHECK(eq_set_tradeoff(&g.ctx, 1) == EQ_E_GATES && eq_force(&g.ctx, 0, 0) == EQ_E_GATES, "none");
    CHECK(eq_set_tradeoff(NULL, 1) == EQ_E_ARGUMENT && eq_force(NULL, 0, 0) == EQ_E_ARGUMENT,
          "no context");
    CHECK(eq_set_tradeoff(&none, 1) == EQ_E_ARGUMENT && eq_force(&none, 0, 0) == EQ_E_ARGUMENT,
          "no context");
    const eq_result_t result = run_gated(&g, 1);
    CHECK(result.exit == 0 && result.path == 0 && result.cost == 65536, "no exits");
    close_gated(&g);
}

/// Refusals ///

/* Damages a fresh image of a form by a statement over the names below, and expects a status. */
#define REFUSED(expected, form, statement)                                                         \
    do {                                                                                           \
        const image_t image = gated_image(form);                                                   \
        IMAGE_PARTS(image);                                                                        \
        eq_gate_t *gate = image_section(image, EQ_SECTION_GATE);                                   \
        eq_path_t *path = (void *)((uint8_t *)gate + gate->paths);                                 \
        eq_first_t *first = (void *)((uint8_t *)gate + gate->first);                               \
        eq_gate_layer_t *layer = (void *)((uint8_t *)gate + gate->predictor);                      \
        (void)path, (void)first, (void)layer;                                                      \
        statement;                                                                                 \
        image_seal(image);                                                                         \
        gated_t g;                                                                                 \
        open_gated(&g, image);                                                                     \
        CHECK(g.status == (expected), "%s: %s", #statement, eq_status_name(g.status));             \
        CHECK((expected) == EQ_OK || eq_run(&g.ctx, NULL) == EQ_E_ARGUMENT, "%s runs",             \
              #statement);                                                                         \
        close_gated(&g);                                                                           \
    } while (0)

static void test_record(void)
{
    for (uint32_t i = 0; i < 3; i++) {
        const eq_form_t form = forms[i];
        REFUSED(EQ_OK, form, (void)0);
        REFUSED(EQ_E_KERNEL, form, header->kernels[0] &= ~(1u << 25));
        REFUSED((form == EQ_FORM_TABLE ? EQ_E_KERNEL : EQ_OK), form,
                header->kernels[2] &= ~(1u << (84 - 64)));
        REFUSED((form == EQ_FORM_MLP ? EQ_E_KERNEL : EQ_OK), form,
                header->kernels[2] &= ~(1u << (85 - 64)));
        REFUSED(EQ_E_GATES, form, section[EQ_SECTION_GATE].bytes = 0);
        REFUSED(EQ_E_GATES, form, section[EQ_SECTION_GATE].bytes = sizeof *gate - 1);
        REFUSED(EQ_E_GATES, form, section[EQ_SECTION_GATE].bytes = sizeof *gate);
        REFUSED(EQ_E_GATES, form, gate->form = 3);
        REFUSED(EQ_E_FORMAT, form, gate->version = EQ_GATE_VERSION + 1);
        REFUSED(EQ_E_FORMAT, form, gate->version = 0); /* of images from before there was one */
        REFUSED(EQ_E_GATES, form, gate->exits = 2);
        REFUSED(EQ_E_GATES, form, gate->exits = 4);
        REFUSED(EQ_E_GATES, form, gate->path_count = 0);
        REFUSED(EQ_E_GATES, form, gate->path_count = 255);
        REFUSED(EQ_E_GATES, form, gate->path_count--);
        REFUSED(EQ_E_GATES, form, gate->first_count = 0);
        REFUSED(EQ_E_GATES, form, gate->classes--);
        REFUSED(EQ_E_GATES, form, gate->classes = 0);
        REFUSED(EQ_E_GATES, form, gate->level_count = 1);
        REFUSED(EQ_E_GATES, form, gate->level_count = 17);
        REFUSED(EQ_E_GATES, form, gate->size = (uint16_t)(form == EQ_FORM_STATIC ? 4 : 0));
        REFUSED(EQ_E_GATES, form, gate->size = 256);
        REFUSED(EQ_E_GATES, form, gate->paths += 2);
        REFUSED(EQ_E_GATES, form, gate->paths = 0xFFFFFFFCu);
        REFUSED(EQ_E_GATES, form, gate->first = section[EQ_SECTION_GATE].bytes - 8);
    }
    REFUSED(EQ_E_GATES, EQ_FORM_MLP, gate->size = 5);
    REFUSED(EQ_E_GATES, EQ_FORM_MLP,
            gate->sigmoids = section[EQ_SECTION_GATE].bytes - 2 * EQ_GATE_SIGMOIDS + 2);
    REFUSED(EQ_E_GATES, EQ_FORM_MLP, gate->predictor += 2);
    REFUSED(EQ_E_GATES, EQ_FORM_MLP, gate->predictor += 8);
    REFUSED(EQ_E_GATES, EQ_FORM_TABLE, gate->predictor += 16);
    REFUSED(EQ_E_GATES, EQ_FORM_TABLE, gate->exponentials++);
    REFUSED(EQ_E_GATES, EQ_FORM_TABLE,
            gate->entropies = section[EQ_SECTION_GATE].bytes - 2 * EQ_GATE_ENTROPIES + 2);
    REFUSED(EQ_E_GATES, EQ_FORM_TABLE, memset((uint8_t *)gate + gate->exponentials, 0, 2));
}

static void test_state(void)
{
    REFUSED(EQ_E_GATES, EQ_FORM_MLP, gate->state += 4);
    REFUSED(EQ_E_GATES, EQ_FORM_MLP, gate->state += 8);
    REFUSED(EQ_E_GATES, EQ_FORM_MLP, gate->state -= 8);
    REFUSED(EQ_E_GATES, EQ_FORM_MLP, gate->state = 0);
    REFUSED(EQ_E_GATES, EQ_FORM_MLP, gate->state_bytes--);
    REFUSED(EQ_E_GATES, EQ_FORM_TABLE, gate->state_bytes--);
    REFUSED(EQ_E_GATES, EQ_FORM_TABLE, gate->state_bytes = 0xFFFFFFFFu);
    REFUSED(EQ_E_GATES, EQ_FORM_MLP, tensor[2].offset = gate->state);
    REFUSED(EQ_E_GATES, EQ_FORM_MLP, (op[1].scratch = gate->state + 8, op[1].scratch_bytes = 8));
}

static void test_chain(void)
{
    REFUSED(EQ_E_GATES, EQ_FORM_STATIC, block[1].variant_count = 2);
    REFUSED(EQ_E_GATES, EQ_FORM_STATIC, block[3].variant_count = 2);
    REFUSED(EQ_E_GATES, EQ_FORM_STATIC, block[0].variant_count = 1);
    REFUSED(EQ_E_GATES, EQ_FORM_STATIC, variant[1].level = 0);
    REFUSED(EQ_E_GATES, EQ_FORM_STATIC, variant[1].level = 2);
    REFUSED(EQ_E_GATES, EQ_FORM_STATIC, variant[2].first_operator = 0);
    REFUSED(EQ_E_GATES, EQ_FORM_STATIC, variant[7].first_operator = 3);
    REFUSED(EQ_E_GATES, EQ_FORM_STATIC, section[EQ_SECTION_BLOCKS].bytes -= 4);
}

static void test_paths(void)
{
    for (uint32_t i = 0; i < 3; i++) {
        const eq_form_t form = forms[i];
        REFUSED(EQ_E_GATES, form, path[0].length = 0);
        REFUSED(EQ_E_GATES, form, path[2].length = 4);
        REFUSED(EQ_E_GATES, form, path[1].length = 3);
        REFUSED(EQ_E_GATES, form, path[1].levels = 0x100);
        REFUSED(EQ_E_GATES, form, path[2].levels = 0x200);
        REFUSED(EQ_E_GATES, form, path[3].levels = 0x000);
        REFUSED(EQ_E_GATES, form, path[5].levels = 0x010);
        REFUSED(EQ_E_GATES, form, path[5].levels = 0x111);
        REFUSED(EQ_OK, form, path[0].cost = 39999);
        REFUSED(EQ_E_GATES, form, path[0].cost = 40000);
        REFUSED(EQ_E_GATES, form, path[0].options++);
        REFUSED(EQ_E_GATES, form, path[8].options = 2);
        REFUSED(EQ_E_GATES, form, first[0].tradeoff = 1);
        REFUSED(EQ_E_GATES, form, first[1].tradeoff = 0);
        REFUSED(EQ_E_GATES, form, first[1].path = 9);
        REFUSED(EQ_E_GATES, form, first[1].path = 1);
    }
}

/* Sums stay below 2^30: biases below 2^29, products of whatever a gate may have below 2^28. */
static void test_sums(void)
{
    REFUSED(EQ_OK, EQ_FORM_MLP, ((int32_t *)(layer + 1))[3] = (1 << 29) - 1);
    REFUSED(EQ_OK, EQ_FORM_MLP, layer->output_bias = 1 - (1 << 29));
    REFUSED(EQ_E_ARITHMETIC, EQ_FORM_MLP, ((int32_t *)(layer + 1))[3] = 1 << 29);
    REFUSED(EQ_E_ARITHMETIC, EQ_FORM_MLP, ((int32_t *)(layer + 1))[0] = INT32_MIN);
    REFUSED(EQ_E_ARITHMETIC, EQ_FORM_MLP, layer->output_bias = -(1 << 29));
    REFUSED(EQ_OK, EQ_FORM_MLP, layer->hidden_shift = 30);
    REFUSED(EQ_E_ARITHMETIC, EQ_FORM_MLP, layer->hidden_shift = 31);
    REFUSED(EQ_E_ARITHMETIC, EQ_FORM_MLP, layer->hidden_shift = -1);
    REFUSED(EQ_E_ARITHMETIC, EQ_FORM_MLP, layer->output_multiplier = -1);
    REFUSED(EQ_OK, EQ_FORM_MLP, layer->output_shift = 31);
    REFUSED(EQ_E_ARITHMETIC, EQ_FORM_MLP, layer->output_shift = 32);
    REFUSED(EQ_E_ARITHMETIC, EQ_FORM_MLP, layer->output_shift = -1);
}

int main(void)
{
    test_vectors();
    test_without_prediction_all_goes_to_the_end();
    test_forced_paths();
    test_setting_during_a_run();
    test_a_model_without_gates();
    test_record();
    test_state();
    test_chain();
    test_paths();
    test_sums();
    return check_report("test_gates");
}
