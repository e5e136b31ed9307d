/*
 * startup.c - from reset to harness_start on a Cortex-M, and what happens on a fault.
 *
 * What lies beside RAM must fault, also where a board has memory or nothing at all there and would
 * stay silent: a memory protection unit, where there is one, and the stack limit of Armv8-M see to
 * that before anything runs.
 */
#include <stdint.h>

#include "harness.h"

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

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

__attribute__((noinline)) void harness_stop(void)
{
    for (;;) {
        __asm volatile("bkpt 0");
    }
}

/// Reset ///

/*
 * Full access to the floating-point and vector registers (CPACR). In assembly and before any C:
 * clang copies memory with vector instructions where the core has them.
 */
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
#define ENABLE_COPROCESSORS                                                                        \
    "ldr r0, =0xE000ED88\n"                                                                        \
    "ldr r1, [r0]\n"                                                                               \
    "orr r1, r1, #0xF00000\n"                                                                      \
    "str r1, [r0]\n"                                                                               \
    "dsb\n"                                                                                        \
    "isb\n"
#else
#define ENABLE_COPROCESSORS ""
#endif

#if defined(__ARM_ARCH) && __ARM_ARCH >= 8
#define LIMIT_STACK                                                                                \
    "ldr r0, =__stack_bottom\n"                                                                    \
    "msr msplim, r0\n"
#else
#define LIMIT_STACK ""
#endif

__attribute__((naked)) void Reset_Handler(void)
{
    __asm volatile(LIMIT_STACK ENABLE_COPROCESSORS "bl harness_protect\n"
                                                   "bl harness_start\n"
                                                   ".ltorg\n");
}

/// Protection ///

void harness_protect(void);

#if defined(__ARM_ARCH) && __ARM_ARCH >= 7

#define MPU_TYPE 0xE000ED90u
#define MPU_CTRL 0xE000ED94u
#define MPU_RNR 0xE000ED98u
#define MPU_RBAR 0xE000ED9Cu

#define MPU_REGIONS ((REGISTER(MPU_TYPE) >> 8) & 0xFFu) /* 0: the core has no such unit */

static inline void enable_mpu(uint32_t control)
{
    REGISTER(MPU_CTRL) = control;
    __asm volatile("dsb\n isb" ::: "memory");
}

#endif

#if defined(__ARM_ARCH) && __ARM_ARCH >= 8

#define MPU_RLAR 0xE000EDA0u
#define MPU_MAIR0 0xE000EDC0u

#define ENABLED 1u
#define NEVER_EXECUTED 1u
#define READ_WRITE (0u << 1)
#define READ_ONLY (2u << 1)
#define DEVICE (1u << 1)

static void allow(uint32_t region, uintptr_t start, uintptr_t end, uint32_t access, uint32_t kind)
{
    REGISTER(MPU_RNR) = region;
    REGISTER(MPU_RBAR) = (uint32_t)start | access;
    REGISTER(MPU_RLAR) = ((uint32_t)(end - 1u) & ~31u) | kind | ENABLED;
}

/* Nothing but the code, RAM to its exact size, and the devices. */
void harness_protect(void)
{
    if (MPU_REGIONS != 0) {
        REGISTER(MPU_MAIR0) = 0x0044u; /* kind 0: memory, not cached; 1: devices */
        allow(0, (uintptr_t)__flash_start, (uintptr_t)__flash_end, READ_ONLY, 0);
        allow(1, (uintptr_t)__ram_start, (uintptr_t)__ram_end, READ_WRITE | NEVER_EXECUTED, 0);
        allow(2, 0x40000000u, 0x60000000u, READ_WRITE | NEVER_EXECUTED, DEVICE);
        enable_mpu(1u);
    }
}

#elif defined(__ARM_ARCH) && __ARM_ARCH >= 7

#define MPU_RASR 0xE000EDA0u

#define MOST_GUARD 0x10000u
#define LEAST_GUARD 32u

/* The size of a guard beside an address: a power of two that divides it. */
static uint32_t guard_bytes(uintptr_t address)
{
    const uint32_t bytes = (uint32_t)(address & (0u - address));
    return bytes > MOST_GUARD ? MOST_GUARD : bytes;
}

static void forbid(uint32_t region, uintptr_t start, uint32_t bytes)
{
    if (bytes >= LEAST_GUARD) {
        REGISTER(MPU_RNR) = region;
        REGISTER(MPU_RBAR) = (uint32_t)start;
        REGISTER(MPU_RASR) = 1u << 28 | (uint32_t)(__builtin_ctz(bytes) - 1) << 1 | 1u;
    }
}

/* All as it is by default, but no access just below and just above RAM. */
void harness_protect(void)
{
    if (MPU_REGIONS != 0) {
        const uint32_t below = guard_bytes((uintptr_t)__ram_start);
        forbid(0, (uintptr_t)__ram_start - below, below);
        forbid(1, (uintptr_t)__ram_end, guard_bytes((uintptr_t)__ram_end));
        enable_mpu(5u); /* with the default map behind the regions */
    }
}

#else

/* Armv6-M as it is emulated and built has no such unit; what lies beside RAM faults by itself. */
void harness_protect(void)
{
}

#endif

/// Faults ///

/* The fault may be a stack that left RAM: start a fresh one before anything is pushed. */
__attribute__((naked)) void harness_fault_handler(void)
{
    __asm volatile("mov r0, sp\n"
                   "ldr r1, =__stack_top\n"
                   "mov sp, r1\n"
                   "ldr r1, =harness_record_fault\n"
                   "bx r1\n"
                   ".ltorg\n");
}

#if defined(__ARM_ARCH) && __ARM_ARCH >= 7

static void record_cause(void)
{
    const uint32_t cause = REGISTER(0xE000ED28u); /* CFSR */
    harness_fault.cause = cause;
    if ((cause & 1u << 7) != 0) {
        harness_fault.address = REGISTER(0xE000ED34u); /* MMFAR */
    } else if ((cause & 1u << 15) != 0) {
        harness_fault.address = REGISTER(0xE000ED38u); /* BFAR */
    }
}

#else

static void record_cause(void)
{
}

#endif

#define FRAME_WORDS 8u
#define FRAME_PC 6u

void harness_record_fault(uint32_t stack)
{
    const uint32_t *const frame = (const uint32_t *)(uintptr_t)stack;
    harness_fault.taken = 1;
    harness_fault.stack = stack;
    if (frame >= __stack_bottom && frame + FRAME_WORDS <= __stack_top) {
        harness_fault.pc = frame[FRAME_PC];
    }
    record_cause();
    harness_stop();
}
