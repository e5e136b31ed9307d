#include "eq_gate.h"
#include "eq_kernel.h"

#define MOST_BIAS (1 << 29)

/* One gate's network, its parts found. */
typedef struct {
    const eq_gate_t *gate;
    const eq_gate_layer_t *scales;
    const int32_t *bias;
    const int8_t *rows;    /* of the inputs that it sees */
    const int8_t *columns; /* of those that say which path it is: a level each, the length */
    const int8_t *output;
    uint32_t hidden;
} network_t;

static network_t network_of(const eq_gate_t *gate, uint32_t exit)
{
    const uint8_t *layer = eq_gate_at(gate, gate->predictor + exit * eq_gate_layer_bytes(gate));
    network_t n;
    n.gate = gate;
    n.hidden = gate->size;
    n.scales = (const void *)layer;
    n.bias = (const void *)(layer + sizeof *n.scales);
    n.rows = (const int8_t *)(n.bias + n.hidden);
    n.columns = n.rows + n.hidden * eq_gate_seen_bytes(gate);
    n.output = n.columns + n.hidden * (gate->exits + 1u);
    return n;
}

/* What the exit sees, and in its place what the exit before saw: at the first zeros. */
static void see_after(const eq_gate_t *gate, uint32_t exit, const int8_t *logits, uint8_t *seen)
{
    const uint32_t classes = gate->classes;
    uint8_t *other = seen + 2 * classes;
    for (uint32_t i = 0; exit == 0 && i < eq_gate_seen_bytes(gate); i++) {
        seen[i] = 0;
    }
    for (uint32_t i = 0; i < classes; i++) {
        seen[classes + i] = seen[i];
    }
    other[1] = other[0];
    other[2] = other[3];
    other[0] = eq_gate_see(gate, logits, seen);
    other[3] = 0;
    for (uint32_t i = 0; i < classes; i++) {
        other[3] = seen[i] > other[3] ? seen[i] : other[3];
    }
}

static int32_t length_input(const eq_gate_t *gate, uint32_t length)
{
    return (int32_t)(255u * length / gate->exits);
}

/* The sums of a path that is a block longer, at its level there; the error, Q16. */
EQ_NOINLINE static uint32_t extend(const network_t *n, const eq_path_t *path, uint32_t block,
                                   const int32_t *sums, int32_t *out)
{
    const eq_gate_t *gate = n->gate;
    const eq_gate_layer_t *scales = n->scales;
    const int32_t level = (int32_t)(255u * (eq_path_level(path, block) + 1u) / gate->level_count);
    const int32_t longer = length_input(gate, block + 1u) - length_input(gate, block);
    const int8_t *levels = n->columns + block * n->hidden;
    const int8_t *lengths = n->columns + gate->exits * n->hidden;
    const int8_t *weight = n->output;
    const int8_t *const end = weight + n->hidden;
    int32_t total = scales->output_bias;
    while (weight != end) {
        const int32_t sum = *sums++ + *levels++ * level + *lengths++ * longer;
        *out++ = sum;
        total += *weight++ * eq_clamp(sum >> scales->hidden_shift, 0, 255);
    }
    const int32_t scaled = eq_rounding_shift_right(
        eq_high_multiply_small(total, scales->output_multiplier), scales->output_shift);
    const int32_t step =
        EQ_GATE_SIGMOID_ZERO +
        eq_clamp(scaled, -EQ_GATE_SIGMOID_ZERO,
                 (int32_t)(EQ_GATE_SIGMOIDS - 1u) * EQ_GATE_LINE - 1 - EQ_GATE_SIGMOID_ZERO);
    const uint16_t *at = (const uint16_t *)eq_gate_at(gate, gate->sigmoids) + step / EQ_GATE_LINE;
    return at[0] + (uint32_t)((at[1] - at[0]) * (step % EQ_GATE_LINE)) / EQ_GATE_LINE;
}

/* The sums of the path so far, of four hidden values at a time. */
static void sum_inputs(const network_t *n, const uint8_t *seen, uint32_t count, int32_t *sums)
{
    const int8_t *a = n->rows;
    for (uint32_t i = 0; i < n->hidden; i += 4) {
        const int8_t *b = a + count, *c = b + count, *d = c + count;
        int32_t s = n->bias[i], t = n->bias[i + 1], u = n->bias[i + 2], v = n->bias[i + 3];
        for (uint32_t j = 0; j < count; j++) {
            const int32_t x = seen[j];
            s += *a++ * x;
            t += *b++ * x;
            u += *c++ * x;
            v += *d++ * x;
        }
        sums[i] = s;
        sums[i + 1] = t;
        sums[i + 2] = u;
        sums[i + 3] = v;
        a = d;
    }
}

static void compute(const eq_gate_t *gate, eq_choice_t *choice)
{
    const eq_path_t *taken = choice->taken;
    const uint32_t length = taken->length;
    const network_t n = network_of(gate, length - 1u);
    int32_t *sums = (void *)(choice->state + eq_gate_sums_offset(gate));
    see_after(gate, length - 1u, choice->logits, choice->state);
    sum_inputs(&n, choice->state, eq_gate_seen_bytes(gate), sums);
    for (uint32_t block = 0; block + 1 < length; block++) {
        (void)extend(&n, taken, block, sums, sums);
    }
    const eq_path_t *const end = taken + taken->options;
    for (const eq_path_t *option = taken; option < end;) {
        const uint64_t price = eq_gate_price(choice, option);
        if (price > choice->score) { /* costs never fall along a path */
            option += option->options;
            continue;
        }
        int32_t *own = sums + (option->length - length) * n.hidden;
        const int32_t *before = option == taken ? own : own - n.hidden;
        const uint32_t error = extend(&n, option, option->length - 1u, before, own);
        eq_gate_offer(choice, option, price + error);
        option++;
    }
}

/* Whether no sum reaches 2^30: of at most 8,203 products of a byte and a weight they add up to 2^28. */
EQ_ONCE static int bias_fits(int32_t bias)
{
    return bias > -MOST_BIAS && bias < MOST_BIAS;
}

EQ_ONCE static int network_fits(const eq_gate_t *gate, const eq_gate_layer_t *layer)
{
    const int32_t *bias = (const void *)(layer + 1);
    int fits = bias_fits(layer->output_bias) && (uint32_t)layer->hidden_shift <= 30u &&
               (uint32_t)layer->output_shift <= 31u && layer->output_multiplier >= 0;
    for (uint32_t i = 0; i < gate->size; i++) {
        fits = fits && bias_fits(bias[i]);
    }
    return fits;
}

EQ_ONCE static eq_status_t check(const eq_ctx_t *ctx, const eq_gate_t *gate)
{
    const uint32_t bytes = eq_gate_layer_bytes(gate);
    if (gate->size % 4 != 0 ||
        !eq_gate_inside(ctx, gate->sigmoids, EQ_GATE_SIGMOIDS, sizeof(uint16_t)) ||
        !eq_gate_inside(ctx, gate->predictor, (gate->exits - 1u) * bytes / 4u, 4)) {
        return EQ_E_GATES;
    }
    for (uint32_t exit = 0; exit + 1 < gate->exits; exit++) {
        if (!network_fits(gate, eq_gate_at(gate, gate->predictor + exit * bytes))) {
            return EQ_E_ARITHMETIC;
        }
    }
    return EQ_OK;
}

/* What eq_choice_t says, by a network for each exit. */
void eq_gate_mlp_s8_ref(const eq_call_t *call)
{
    eq_choice_t *choice = call->scratch;
    if (choice->logits != NULL) {
        compute(choice->gate, choice);
    } else {
        choice->status = check(choice->ctx, choice->gate);
    }
}
