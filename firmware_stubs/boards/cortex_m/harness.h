/*
 * harness.h - what the harness and the start-up code share, and what a runner finds by symbol.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdint.h>

/* Values of harness_status that are no count of failed cases. */
#define HARNESS_RUNNING (-1)

/* 0, or the number of the exception that stopped the core (3 hard fault, …), and its reasons. */
typedef struct {
    uint32_t exception;
    uint32_t cfsr; /* 0 on Armv6-M, which has none */
    uint32_t hfsr;
    uint32_t bfar;
} harness_fault_t;

extern harness_fault_t harness_fault;
extern volatile int32_t harness_status;

int32_t harness_init(void);     /* the eq_status_t of eq_init */
int32_t harness_run(void);      /* of eq_run; its result is in harness_result */
int32_t harness_step(void);     /* of eq_step */
int32_t harness_selftest(void); /* how many cases fail */

void harness_stop(void); /* BKPT 0, for ever */
int main(void);

void Reset_Handler(void);
void harness_fault_handler(void);
void harness_record_fault(void);

#endif
