#include "eq_gate.h"
#include "eq_kernel.h"

static void find_top(const eq_gate_t *gate, const uint8_t *probabilities, uint8_t *top)
{
    for (uint32_t i = 0; i < EQ_GATE_TOP; i++) {
        top[i] = 0;
    }
    for (uint32_t i = 0; i < gate->classes; i++) {
        const uint8_t value = probabilities[i];
        if (value > top[EQ_GATE_TOP - 1]) {
            uint32_t place = EQ_GATE_TOP - 1;
            for (; place > 0 && value > top[place - 1]; place--) {
                top[place] = top[place - 1];
            }
            top[place] = value;
        }
    }
}

static uint32_t nearest(const uint8_t *centroid, uint32_t count, const uint8_t *features)
{
    const int32_t a = features[0], b = features[1], c = features[2];
    const int32_t d = features[3], e = features[4], f = features[5];
    uint32_t best = 0;
    int32_t least = INT32_MAX;
    for (uint32_t k = 0; k < count; k++) {
        const int32_t u = a - centroid[0], v = b - centroid[1], w = c - centroid[2];
        const int32_t x = d - centroid[3], y = e - centroid[4], z = f - centroid[5];
        const int32_t distance = u * u + v * v + w * w + x * x + y * y + z * z;
        if (distance < least) {
            least = distance;
            best = k;
        }
        centroid += EQ_GATE_FEATURES;
    }
    return best;
}

/* The options of all decisions before a path's own. */
static uint32_t options_before(const eq_gate_t *gate, const eq_path_t *end)
{
    uint32_t count = 0;
    for (const eq_path_t *path = eq_gate_paths(gate); path != end; path++) {
        count += path->length < gate->exits ? path->options : 0u;
    }
    return count;
}

EQ_ONCE static int fits(const eq_ctx_t *ctx, const eq_gate_t *gate)
{
    const uint32_t options = options_before(gate, eq_gate_paths(gate) + gate->path_count);
    return eq_gate_inside(ctx, gate->predictor,
                          gate->size * ((gate->exits - 1u) * EQ_GATE_FEATURES + options), 1);
}

/* What eq_choice_t says, by the centroid nearest to what the exit sees. */
void eq_gate_table_s8_ref(const eq_call_t *call)
{
    eq_choice_t *choice = call->scratch;
    const eq_gate_t *gate = choice->gate;
    const eq_path_t *taken = choice->taken;
    const uint32_t set = gate->size * EQ_GATE_FEATURES;
    const uint8_t *centroids = eq_gate_at(gate, gate->predictor);
    uint8_t features[EQ_GATE_FEATURES];
    if (choice->logits == NULL) {
        choice->status = fits(choice->ctx, gate) ? EQ_OK : EQ_E_GATES;
        return;
    }
    features[EQ_GATE_TOP] = eq_gate_see(gate, choice->logits, choice->state);
    find_top(gate, choice->state, features);
    const uint32_t cluster = nearest(centroids + (taken->length - 1u) * set, gate->size, features);
    const uint8_t *errors = centroids + (gate->exits - 1u) * set +
                            options_before(gate, taken) * gate->size + cluster * taken->options;
    for (uint32_t i = 0; i < taken->options; i++) {
        eq_gate_offer(choice, &taken[i],
                      eq_gate_price(choice, &taken[i]) + ((uint32_t)errors[i] << 8));
    }
}
