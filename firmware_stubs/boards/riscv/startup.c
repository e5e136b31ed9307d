/*
 * startup.c - from reset to harness_start on a 32-bit RISC-V in machine mode, and what happens on a
 * trap.
 *
 * What lies beside RAM must trap, also where a board has memory or nothing at all there and would
 * stay silent: locked entries of the physical memory protection see to that.
 */
#include <stdint.h>

#include "harness.h"

__attribute__((noinline)) void harness_stop(void)
{
    for (;;) {
        __asm volatile("ebreak");
    }
}

/* In .vectors, which comes first in flash: cores start there. */
__attribute__((naked, section(".vectors"), used)) void Reset_Handler(void)
{
    __asm volatile("la sp, __stack_top\n"
                   "la t0, harness_fault_handler\n"
                   "csrw mtvec, t0\n"
                   "call harness_protect\n"
                   "call harness_start\n");
}

/// Protection ///

void harness_protect(void);

#define GUARD_BYTES 0x10000u
#define LOCKED_RANGE 0x88u /* no access up to this entry's address, from the one's before it */

/* No access just below and just above RAM, not even for machine mode. */
void harness_protect(void)
{
    const uint32_t start = (uint32_t)(uintptr_t)__ram_start;
    const uint32_t end = (uint32_t)(uintptr_t)__ram_end;
    __asm volatile("csrw pmpaddr0, %0" ::"r"((start - GUARD_BYTES) >> 2));
    __asm volatile("csrw pmpaddr1, %0" ::"r"(start >> 2));
    __asm volatile("csrw pmpaddr2, %0" ::"r"(end >> 2));
    __asm volatile("csrw pmpaddr3, %0" ::"r"((end + GUARD_BYTES) >> 2));
    __asm volatile("csrw pmpcfg0, %0" ::"r"(LOCKED_RANGE << 8 | LOCKED_RANGE << 24) : "memory");
}

/// Faults ///

/* The trap may be a stack that left RAM: start a fresh one before anything is pushed. */
__attribute__((naked, aligned(4))) void harness_fault_handler(void)
{
    __asm volatile("mv a0, sp\n"
                   "la sp, __stack_top\n"
                   "tail harness_record_fault\n");
}

void harness_record_fault(uint32_t stack)
{
    harness_fault.taken = 1;
    harness_fault.stack = stack;
    __asm volatile("csrr %0, mcause" : "=r"(harness_fault.cause));
    __asm volatile("csrr %0, mtval" : "=r"(harness_fault.address));
    __asm volatile("csrr %0, mepc" : "=r"(harness_fault.pc));
    harness_stop();
}
