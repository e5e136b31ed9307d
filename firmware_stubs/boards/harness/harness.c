/*
 * harness.c - the firmware of an emulated board: one model, its memory and functions to call.
 *
 * A runner calls harness_init once, writes harness_inputs, calls harness_run and reads
 * harness_outputs and harness_result. Or it boots: main runs the self-test of selftest.c, leaves
 * the number of failed cases in harness_status and calls harness_stop. The same firmware serves
 * every emulator: none of this needs a file, a serial line or semihosting.
 * harness_model.h is generated: it includes NAME.h and defines HARNESS_IMAGE,
 * HARNESS_IMAGE_BYTES and HARNESS_ARENA_BYTES, and HARNESS_GATED for a model with gates.
 */
#include <stddef.h>
#include <stdint.h>

#include "edgeq.h"
#include "eq_selftest.h"
#include "harness.h"
#include "harness_model.h"

uint8_t harness_arena[HARNESS_ARENA_BYTES] EQ_ALIGNED;
eq_ctx_t harness_context;
eq_result_t harness_result;
void *harness_inputs[EQ_MAX_PORTS];
void *harness_outputs[EQ_MAX_PORTS];
volatile int32_t harness_status;

extern const eq_config_t harness_config;
const eq_config_t harness_config = {HARNESS_IMAGE, HARNESS_IMAGE_BYTES, harness_arena,
                                    sizeof harness_arena};

int32_t harness_init(void)
{
    const eq_status_t status = eq_init(&harness_context, &harness_config);
    for (uint32_t i = 0; status == EQ_OK && i < EQ_MAX_PORTS; i++) {
        const eq_tensor_t *input = eq_input(&harness_context, i);
        const eq_tensor_t *output = eq_output(&harness_context, i);
        harness_inputs[i] = input != NULL ? input->data : NULL;
        harness_outputs[i] = output != NULL ? output->data : NULL;
    }
    return (int32_t)status;
}

int32_t harness_run(void)
{
    return (int32_t)eq_run(&harness_context, &harness_result);
}

int32_t harness_step(void)
{
    return (int32_t)eq_step(&harness_context);
}

#ifdef HARNESS_GATED
int32_t harness_set_tradeoff(uint32_t lambda_q16)
{
    return (int32_t)eq_set_tradeoff(&harness_context, lambda_q16);
}

int32_t harness_force(uint32_t path, uint32_t exit)
{
    return (int32_t)eq_force(&harness_context, path, exit);
}
#endif

void harness_poke(uint32_t address, uint32_t value)
{
    *(volatile uint32_t *)(uintptr_t)address = value;
}

void harness_nothing(void *first, void *second)
{
    (void)first;
    (void)second;
}

static uint32_t now(volatile const uint32_t *counter, volatile uint32_t *latch)
{
    if (latch != NULL) {
        *latch = 1;
    }
    return *counter;
}

uint32_t harness_measure(const harness_task_t *task)
{
    const harness_task_t todo = *task; /* the work may overwrite it */
    const uint32_t before = now(todo.counter, todo.latch);
    todo.work(todo.first, todo.second);
    return now(todo.counter, todo.latch) - before;
}

int32_t harness_selftest(void)
{
    return (int32_t)eq_selftest(&eq_selftest_tables, &harness_context, harness_arena,
                                sizeof harness_arena, NULL);
}

int main(void)
{
    harness_status = HARNESS_RUNNING;
    harness_status = harness_selftest();
    harness_stop();
    return 0;
}
