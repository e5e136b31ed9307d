/*
 * eq_gate.c - what a gate sees, predicts and decides: the C twin of edgeq/gates.py, whose words and
 * order these are.
 */
#include "eq_gate.h"

#include <stddef.h>

#include "eq_fixed.h"
#include "eq_kernel.h"

/* An MLP's state: what it reads (probabilities here and at the exit before, entropies here and there,
   maxima there and here), then hidden sums of paths, one row for each length. */
static uint32_t sums_offset(const eq_gate_t *gate)
{
    return (eq_gate_seen_bytes(gate) + 3u) & ~3u;
}

uint32_t eq_gate_state_bytes(const eq_gate_t *gate)
{
    switch (gate->form) {
    case EQ_FORM_TABLE:
        return eq_gate_seen_bytes(gate);
    case EQ_FORM_MLP:
        return sums_offset(gate) + 4u * gate->exits * gate->size;
    default:
        return 0;
    }
}

/// What it sees ///

static uint8_t byte_of(uint32_t q15)
{
    const uint32_t byte = q15 >> 7;
    return (uint8_t)(byte < 255 ? byte : 255);
}

/* Probabilities as bytes; their entropy. */
static uint8_t see(const eq_gate_t *gate, const int8_t *logits, uint8_t *probabilities)
{
    const uint16_t *exponentials = eq_gate_at(gate, gate->exponentials);
    const uint16_t *entropies = eq_gate_at(gate, gate->entropies);
    const uint32_t classes = gate->classes;
    int32_t greatest = logits[0];
    for (uint32_t i = 1; i < classes; i++) {
        greatest = logits[i] > greatest ? logits[i] : greatest;
    }
    exponentials += greatest;
    uint32_t total = 0;
    for (uint32_t i = 0; i < classes; i++) {
        total += exponentials[-logits[i]];
    }
    uint32_t entropy = 0;
    for (uint32_t i = 0; i < classes; i++) {
        const uint32_t weight = exponentials[-logits[i]];
        const uint32_t probability = ((weight << 15) + total / 2) / total;
        probabilities[i] = byte_of(probability);
        entropy += entropies[probability >> 7];
    }
    return byte_of(entropy);
}

/// What it decides ///

/* The best path so far. */
typedef struct {
    const eq_path_t *paths;
    uint32_t tradeoff;
    uint32_t best;
    uint64_t score; /* error + price */
} choice_t;

static uint64_t price(const choice_t *choice, uint32_t path)
{
    return (uint64_t)choice->tradeoff * choice->paths[path].cost >> 16;
}

/* Of equal scores the cheapest wins, then the shortest, then the first. */
static void offer(choice_t *choice, uint32_t path, uint32_t error)
{
    const eq_path_t *ours = &choice->paths[path];
    const eq_path_t *best = &choice->paths[choice->best];
    const uint64_t score = error + price(choice, path);
    if (score < choice->score ||
        (score == choice->score &&
         (ours->cost < best->cost || (ours->cost == best->cost && ours->length < best->length)))) {
        choice->score = score;
        choice->best = path;
    }
}

/* Whether no path that begins so can be better: costs never fall along a path. */
static int too_dear(const choice_t *choice, uint32_t path)
{
    return price(choice, path) > choice->score;
}

/// What it predicts, by a table ///

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

static void look_up(const eq_gate_t *gate, choice_t *choice, uint32_t taken, const int8_t *logits,
                    uint8_t *state)
{
    const eq_path_t *path = &choice->paths[taken];
    const uint32_t set = gate->size * EQ_GATE_FEATURES;
    const uint8_t *centroids = eq_gate_at(gate, gate->predictor);
    uint8_t features[EQ_GATE_FEATURES];
    features[EQ_GATE_TOP] = see(gate, logits, state);
    find_top(gate, state, features);
    const uint32_t cluster = nearest(centroids + (path->length - 1u) * set, gate->size, features);
    const uint8_t *errors = centroids + (gate->exits - 1u) * set +
                            (uint32_t)path->errors * gate->size + cluster * path->options;
    for (uint32_t i = 0; i < path->options; i++) {
        offer(choice, taken + i, (uint32_t)errors[i] << 8);
    }
}

/// What it predicts, by a network ///

/* One gate's network, its parts found. */
typedef struct {
    const eq_gate_layer_t *scales;
    const int32_t *bias;
    const int8_t *rows;    /* of the inputs that it sees */
    const int8_t *columns; /* of those that say which path it is */
    const int8_t *output;
    const uint16_t *sigmoids;
    uint32_t hidden;
} network_t;

static network_t network_of(const eq_gate_t *gate, uint32_t exit)
{
    const uint8_t *layer = eq_gate_at(gate, gate->predictor + exit * eq_gate_layer_bytes(gate));
    network_t n;
    n.hidden = gate->size;
    n.scales = (const void *)layer;
    n.bias = (const void *)(layer + sizeof *n.scales);
    n.rows = (const int8_t *)(n.bias + n.hidden);
    n.columns = n.rows + n.hidden * eq_gate_seen_bytes(gate);
    n.output = n.columns + n.hidden * (gate->exits + 1u);
    n.sigmoids = eq_gate_at(gate, gate->sigmoids);
    return n;
}

/* What the exit sees, and in its place what the exit before saw. */
static void see_after(const eq_gate_t *gate, uint32_t exit, const int8_t *logits, uint8_t *seen)
{
    const uint32_t classes = gate->classes;
    uint8_t *before = seen + classes;
    uint8_t *other = seen + 2 * classes;
    uint8_t greatest = 0;
    for (uint32_t i = 0; i < classes; i++) {
        before[i] = exit == 0 ? 0 : seen[i];
    }
    other[1] = exit == 0 ? 0 : other[0];
    other[2] = exit == 0 ? 0 : other[3];
    other[0] = see(gate, logits, seen);
    for (uint32_t i = 0; i < classes; i++) {
        greatest = seen[i] > greatest ? seen[i] : greatest;
    }
    other[3] = greatest;
}

static int32_t level_input(const eq_gate_t *gate, const eq_path_t *path, uint32_t block)
{
    return (int32_t)(255u * (eq_path_level(path, block) + 1u) / gate->level_count);
}

static int32_t length_input(const eq_gate_t *gate, uint32_t length)
{
    return (int32_t)(255u * length / gate->exits);
}

/*
 * Sums + what two of the inputs weigh more; the error, Q16. A hidden value is eq_requantize of its
 * sum, clamped to 0..255: of positive sums, which alone matter, no sign is left to think of.
 */
static uint32_t predict(const network_t *n, const int32_t *sums, const int8_t *a, int32_t x,
                        const int8_t *b, int32_t y, int32_t *out)
{
    const eq_gate_layer_t *scales = n->scales;
    const eq_shift_t shift = eq_shift(scales->hidden_shift);
    const uint32_t multiplier = (uint32_t)scales->hidden_multiplier;
    const uint32_t half = (UINT32_C(1) << shift.right) >> 1;
    const uint32_t left = (uint32_t)shift.left + 1u;
    const uint32_t right = (uint32_t)shift.right;
    const int8_t *weight = n->output;
    const int8_t *const end = weight + n->hidden;
    int32_t total = scales->output_bias;
    while (weight != end) {
        const int32_t sum = *sums++ + *a++ * x + *b++ * y;
        *out++ = sum;
        if (sum > 0) {
            const uint64_t product = (uint64_t)((uint32_t)sum << left) * multiplier;
            const uint32_t high = (uint32_t)(product >> 32) + ((uint32_t)product >> 31);
            total += *weight * eq_clamp((int32_t)((high + half) >> right), 0, 255);
        }
        weight++;
    }
    const int32_t index =
        eq_requantize(total, scales->output_multiplier, eq_shift(scales->output_shift));
    return n->sigmoids[eq_clamp(index, -128, 127) + 128];
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

static void compute(const eq_gate_t *gate, choice_t *choice, uint32_t taken, const int8_t *logits,
                    uint8_t *state)
{
    const eq_path_t *path = &choice->paths[taken];
    const uint32_t length = path->length;
    const network_t n = network_of(gate, length - 1u);
    const int8_t *lengths = n.columns + n.hidden * gate->exits;
    int32_t *sums = (void *)(state + sums_offset(gate));
    see_after(gate, length - 1u, logits, state);
    sum_inputs(&n, state, eq_gate_seen_bytes(gate), sums);
    for (uint32_t block = 0; block + 1 < length; block++) {
        const int32_t input = level_input(gate, path, block);
        for (uint32_t i = 0; i < n.hidden; i++) {
            sums[i] += n.columns[block * n.hidden + i] * input;
        }
    }
    const uint32_t end = taken + path->options;
    for (uint32_t i = taken; i < end;) {
        const eq_path_t *option = &choice->paths[i];
        if (i != taken && too_dear(choice, i)) {
            i += option->options;
            continue;
        }
        const uint32_t block = option->length - 1u;
        const uint32_t depth = option->length - length;
        const int32_t longer =
            length_input(gate, option->length) - (i == taken ? 0 : length_input(gate, block));
        int32_t *own = sums + depth * n.hidden;
        const uint32_t error =
            predict(&n, i == taken ? own : own - n.hidden, n.columns + block * n.hidden,
                    level_input(gate, option, block), lengths, longer, own);
        offer(choice, i, error);
        i++;
    }
}

/// Where inputs go ///

uint32_t eq_gate_first(const eq_gate_t *gate, uint32_t tradeoff)
{
    const eq_first_t *first = eq_gate_at(gate, gate->first);
    uint32_t i = gate->first_count - 1u;
    while (first[i].tradeoff > tradeoff) {
        i--;
    }
    return first[i].path;
}

uint32_t eq_gate_toward(const eq_gate_t *gate, uint32_t taken, uint32_t goal)
{
    const eq_path_t *paths = eq_gate_paths(gate);
    if (goal == taken) {
        return taken;
    }
    uint32_t path = taken + 1u; /* EQ_ROUTE: 0 */
    while (goal - path >= paths[path].options) {
        path += paths[path].options;
    }
    return path;
}

/* The first path that continues this one to the last exit; itself where there is none. */
static uint32_t whole(const eq_gate_t *gate, uint32_t taken)
{
    const eq_path_t *paths = eq_gate_paths(gate);
    for (uint32_t i = taken; i < taken + paths[taken].options; i++) {
        if (paths[i].length == gate->exits) {
            return i;
        }
    }
    return taken;
}

uint32_t eq_gate_next(const eq_gate_t *gate, uint32_t taken, uint32_t tradeoff,
                      const int8_t *logits, uint8_t *state)
{
    choice_t choice = {eq_gate_paths(gate), tradeoff, taken, UINT64_MAX};
    if (gate->form == EQ_FORM_STATIC) {
        choice.best = whole(gate, taken);
    } else if (gate->form == EQ_FORM_TABLE) {
        look_up(gate, &choice, taken, logits, state);
    } else {
        compute(gate, &choice, taken, logits, state);
    }
    return eq_gate_toward(gate, taken, choice.best);
}
