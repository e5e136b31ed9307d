/*
 * harness.h - what the harness and the start-up code share, and what a runner finds by symbol.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdint.h>

#include "edgeq.h"

/* Values of harness_status that are no count of failed cases. */
#define HARNESS_RUNNING (-1)

/* What stopped the core; all 0 while nothing has. */
typedef struct {
    uint32_t taken;   /* 1 */
    uint32_t cause;   /* CFSR (0 on Armv6-M, which has none), or mcause */
    uint32_t address; /* that could not be accessed; 0 where the core does not say */
    uint32_t stack;   /* the stack pointer after the core saved what it saves */
    uint32_t pc;      /* of the instruction; 0 where that was not saved either */
} harness_fault_t;

extern harness_fault_t harness_fault;
extern volatile int32_t harness_status;

int32_t harness_init(void);                        /* the eq_status_t of eq_init */
int32_t harness_run(void);                         /* of eq_run; its result is in harness_result */
int32_t harness_step(void);                        /* of eq_step */
int32_t harness_set_tradeoff(uint32_t lambda_q16); /* models with gates only, */
int32_t harness_force(uint32_t path, uint32_t exit); /* and this */
int32_t harness_selftest(void);                      /* how many cases fail */

/* Stores a word: emulators do not let a debugger write to devices. */
void harness_poke(uint32_t address, uint32_t value);

/* What a debugger wants timed: any function of up to two words, as the core's ABI passes them. */
typedef struct {
    void (*work)(void *first, void *second);
    void *first;
    void *second;
    volatile const uint32_t *counter;
    volatile uint32_t *latch; /* makes the counter readable by a store of 1; or NULL */
} harness_task_t;

/* Ticks while it runs. A debugger cannot time it: emulated time runs on between its commands. */
uint32_t harness_measure(const harness_task_t *task);
void harness_nothing(void *first, void *second); /* for comparison */

int main(void);

/// From startup.c of the board ///

void Reset_Handler(void); /* the entry, whatever the core */
void harness_start(void);
void harness_fault_handler(void);
void harness_record_fault(uint32_t stack);

/* A breakpoint, for ever. A runner stops here, and lets functions that it calls return to here. */
void harness_stop(void);

/// From link.ld ///

extern uint32_t __flash_start[];
extern uint32_t __flash_end[];
extern uint32_t __ram_start[];
extern uint32_t __ram_end[];
extern uint32_t __stack_bottom[];
extern uint32_t __stack_top[];
extern uint32_t __data_load[];
extern uint32_t __data_start[];
extern uint32_t __data_end[];
extern uint32_t __bss_start[];
extern uint32_t __bss_end[];

#endif
