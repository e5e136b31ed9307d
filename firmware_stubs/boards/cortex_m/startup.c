/*
 * startup.c - from reset to main on a Cortex-M, and what happens on a fault.
 */
#include <stdint.h>

#include "harness.h"

/* From link.ld. */
extern uint32_t __stack_top[];
extern uint32_t __data_load[];
extern uint32_t __data_start[];
extern uint32_t __data_end[];
extern uint32_t __bss_start[];
extern uint32_t __bss_end[];

harness_fault_t harness_fault;

typedef union {
    void (*handler)(void);
    const void *stack;
} vector_t;

/* The system exceptions; the harness enables no interrupt. */
extern const vector_t harness_vectors[16];
const vector_t harness_vectors[16] __attribute__((section(".vectors"), used)) = {
    {.stack = __stack_top},
    {.handler = Reset_Handler},
    {.handler = harness_fault_handler}, /* NMI */
    {.handler = harness_fault_handler}, /* hard fault */
    {.handler = harness_fault_handler}, /* memory management */
    {.handler = harness_fault_handler}, /* bus fault */
    {.handler = harness_fault_handler}, /* usage fault */
    {.handler = harness_fault_handler}, /* secure fault */
    {.handler = harness_fault_handler},
    {.handler = harness_fault_handler},
    {.handler = harness_fault_handler},
    {.handler = harness_fault_handler}, /* SVCall */
    {.handler = harness_fault_handler},
    {.handler = harness_fault_handler},
    {.handler = harness_fault_handler}, /* PendSV */
    {.handler = harness_fault_handler}, /* SysTick */
};

void harness_stop(void)
{
    for (;;) {
        __asm volatile("bkpt 0");
    }
}

#if defined(__ARM_ARCH) && __ARM_ARCH >= 7

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

void harness_record_fault(void)
{
    __asm volatile("mrs %0, ipsr" : "=r"(harness_fault.exception));
    harness_fault.cfsr = REGISTER(0xE000ED28u);
    harness_fault.hfsr = REGISTER(0xE000ED2Cu);
    harness_fault.bfar = REGISTER(0xE000ED38u);
    harness_stop();
}

#else

void harness_record_fault(void)
{
    __asm volatile("mrs %0, ipsr" : "=r"(harness_fault.exception));
    harness_stop();
}

#endif

/* The fault may be a stack that left RAM: start a fresh one before anything is pushed. */
__attribute__((naked)) void harness_fault_handler(void)
{
    __asm volatile("ldr r0, =__stack_top\n"
                   "mov sp, r0\n"
                   "ldr r0, =harness_record_fault\n"
                   "bx r0\n"
                   ".ltorg\n");
}

#if defined(__ARM_FP)

/* Full access to the floating-point unit (CPACR): a hard-float compiler may use its registers. */
static void enable_fpu(void)
{
    volatile uint32_t *const cpacr = (volatile uint32_t *)(uintptr_t)0xE000ED88u;
    *cpacr |= 0xFu << 20;
    __asm volatile("dsb\n isb" ::: "memory");
}

#else

static void enable_fpu(void)
{
}

#endif

void Reset_Handler(void)
{
    enable_fpu();
    volatile uint32_t *to = __data_start; /* volatile: no call of memcpy or memset */
    for (const uint32_t *from = __data_load; to < __data_end; from++) {
        *to++ = *from;
    }
    for (to = __bss_start; to < __bss_end; to++) {
        *to = 0;
    }
    (void)main();
    harness_stop();
}
