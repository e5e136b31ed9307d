/*
 * eq_pairs_dsp.S - the loops of eq_pairs.c on Armv7E-M; what each computes stands there, in C.
 *
 * They use every register, which no compiler would. gcc, clang and zig assemble this file as it is;
 * on other machines it is empty.
 */
#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__)

    .file   "eq_pairs_dsp.S" /* else gcc names a temporary one, and no two builds are equal */
    .syntax unified
    .thumb
    .text

/*
 * From 256 times a sum to a value of 8 bits: a shift of at least 1 to the right, where the sign may be
 * that of the sum (eq_dsp.h).
 */
.macro REQUANTIZE x, free
    asr     \x, \x, #7
    add     \free, r9, \x, asr #31
    smmlar  \x, \x, r8, \free
    asr     \x, \x, r10
    ssat    \x, #8, \x
.endm

/* The same for any shift: r11 is 7 less the shift to the left, r12 is 0 where none is to the right. */
.macro REQUANTIZE_ANY x
    asr     \x, \x, r11
    and     lr, r12, \x, asr #31
    add     lr, lr, r9
    smmlar  \x, \x, r8, lr
    asr     \x, \x, r10
    ssat    \x, #8, \x
.endm

.macro ANY_SHIFT
    ubfx    r11, r10, #8, #8
    uxtb    r10, r10
    rsb     r12, r10, #0
    asr     r12, r12, #31
.endm

/*
 * void eq_pairs_four(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
 *                    int8_t *output, uint32_t stride, uint32_t count, uint32_t groups)
 *
 * r0-r3: channel 0 of pixels 0-3; r4-r7: channel 1; r12: strip; lr: weights.
 */
#define END 0
#define STAGES 4
#define OUTPUT 8 /* and the stride */
#define STRIP 16
#define COUNT 20
#define ROW 24
#define ENTRY 28
#define FRAME 32
#define ARGUMENTS (FRAME + 36)
#define GROUP_CODE 92

    .section .text.eq_pairs_four, "ax", %progbits
    .balign 4
    .global eq_pairs_four
    .type   eq_pairs_four, %function
    .thumb_func
eq_pairs_four:
    push    {r4-r11, lr}
    sub     sp, #FRAME
    mov     lr, r1
    str     r0, [sp, #STRIP]
    str     r2, [sp, #STAGES]
    ldr     r4, [sp, #ARGUMENTS]
    strd    r3, r4, [sp, #OUTPUT]
    ldrd    r5, r6, [sp, #ARGUMENTS + 4]
    lsl     r7, r6, #3
    str     r5, [sp, #COUNT]
    str     r7, [sp, #ROW]
    rsb     r6, r6, #0          /* the first turn skips what four turns have too many */
    and     r6, r6, #3
    movs    r7, #GROUP_CODE
    mul     r6, r6, r7
    adr     r7, 2f
    add     r7, r7, r6
    orr     r7, r7, #1
    str     r7, [sp, #ENTRY]
1:
    ldr     r10, [sp, #ROW]
    ldr     r12, [sp, #STAGES]
    add     r10, r10, lr
    ldrd    r0, r4, [r12], #8
    str     r10, [sp, #END]
    str     r12, [sp, #STAGES]
    ldr     r12, [sp, #STRIP]
    ldr     r11, [sp, #ENTRY]
    mov     r1, r0
    mov     r2, r0
    mov     r3, r0
    mov     r5, r4
    mov     r6, r4
    mov     r7, r4
    bx      r11
    .balign 4
2:
.rept 4
    ldrd    r8, r9, [lr], #8
    ldrd    r10, r11, [r12], #8
    smlad   r0, r8, r10, r0
    smlad   r1, r8, r11, r1
    smlad   r4, r9, r10, r4
    smlad   r5, r9, r11, r5
    ldrd    r10, r11, [r12], #8
    smlad   r2, r8, r10, r2
    smlad   r3, r8, r11, r3
    smlad   r6, r9, r10, r6
    smlad   r7, r9, r11, r7
    ldrd    r10, r11, [r12], #8
    sxtb16  r8, r8
    sxtb16  r9, r9
    smlad   r0, r8, r10, r0
    smlad   r1, r8, r11, r1
    smlad   r4, r9, r10, r4
    smlad   r5, r9, r11, r5
    ldrd    r10, r11, [r12], #8
    smlad   r2, r8, r10, r2
    smlad   r3, r8, r11, r3
    smlad   r6, r9, r10, r6
    smlad   r7, r9, r11, r7
.endr
    ldr     r10, [sp, #END]
    cmp     lr, r10
    bne     2b
    ldr     r11, [sp, #STAGES]
    ldmia   r11!, {r8, r9, r10}
    tst     r10, #0x10000
    bne     5f
    REQUANTIZE r0, r12
    REQUANTIZE r1, r12
    REQUANTIZE r2, r12
    REQUANTIZE r3, r12
    ldmia   r11!, {r8, r9, r10}
    REQUANTIZE r4, r12
    REQUANTIZE r5, r12
    REQUANTIZE r6, r12
    REQUANTIZE r7, r12
4:
    str     r11, [sp, #STAGES]
    ldrd    r12, r8, [sp, #OUTPUT]
    ldr     r10, [sp, #COUNT]
    add     r9, r12, r8, lsl #1
    strb    r1, [r12, r8]
    strb    r2, [r12, r8, lsl #1]
    strb    r3, [r9, r8]
    strb    r0, [r12], #1
    adds    r9, r9, #1
    strb    r5, [r12, r8]
    strb    r6, [r12, r8, lsl #1]
    strb    r7, [r9, r8]
    strb    r4, [r12], #1
    str     r12, [sp, #OUTPUT]
    subs    r10, r10, #1
    str     r10, [sp, #COUNT]
    bmi     6f
    bne     1b
    add     sp, #FRAME
    pop     {r4-r11, pc}
6:                              /* the same channels, the next strip */
    ldr     r9, [sp, #ROW]
    ldr     r7, [sp, #STRIP]
    sub     r11, r11, #32
    sub     lr, lr, r9
    add     r7, r7, r9, lsl #2
    str     r11, [sp, #STAGES]
    str     r7, [sp, #STRIP]
    add     r12, r12, r8, lsl #2
    sub     r12, r12, #2
    str     r12, [sp, #OUTPUT]
    lsls    r10, r10, #1
    bne     1b
    add     sp, #FRAME
    pop     {r4-r11, pc}
5:
    ANY_SHIFT
    REQUANTIZE_ANY r0
    REQUANTIZE_ANY r1
    REQUANTIZE_ANY r2
    REQUANTIZE_ANY r3
    ldr     r11, [sp, #STAGES]
    add     r11, r11, #12
    ldmia   r11, {r8, r9, r10}
    ANY_SHIFT
    REQUANTIZE_ANY r4
    REQUANTIZE_ANY r5
    REQUANTIZE_ANY r6
    REQUANTIZE_ANY r7
    ldr     r11, [sp, #STAGES]
    ldr     lr, [sp, #END]
    add     r11, r11, #24
    b       4b
    .size   eq_pairs_four, . - eq_pairs_four

/*
 * void eq_pairs_one(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
 *                   int8_t *output, uint32_t pairs, uint32_t groups)
 *
 * r0, r1: the channels; r2: strip; r3: its end; r12: the entry; lr: weights.
 */
#undef STAGES
#undef OUTPUT
#undef STRIP
#undef COUNT
#undef FRAME
#undef ARGUMENTS
#define STAGES 0
#define OUTPUT 4
#define STRIP 8
#define PAIRS 12
#define ODD 16
#define ENTRY_AND_WEIGHTS 24 /* kept where registers are short */
#define FRAME 32
#define ARGUMENTS (FRAME + 36)
#define STEP_CODE 56

.macro TWO_CHANNELS w0, w1, high, low
    smlad   r0, \w0, \high, r0
    smlad   r1, \w1, \high, r1
    sxtb16  \w0, \w0
    sxtb16  \w1, \w1
    smlad   r0, \w0, \low, r0
    smlad   r1, \w1, \low, r1
.endm

    .section .text.eq_pairs_one, "ax", %progbits
    .balign 4
    .global eq_pairs_one
    .type   eq_pairs_one, %function
    .thumb_func
eq_pairs_one:
    push    {r4-r11, lr}
    sub     sp, #FRAME
    mov     lr, r1
    str     r0, [sp, #STRIP]
    str     r2, [sp, #STAGES]
    str     r3, [sp, #OUTPUT]
    ldrd    r4, r5, [sp, #ARGUMENTS]
    str     r4, [sp, #PAIRS]
    and     r6, r5, #1
    str     r6, [sp, #ODD]
    add     r3, r0, r5, lsl #3
    lsr     r5, r5, #1          /* steps of two groups, the first turn skips some of four */
    rsb     r6, r5, #0
    and     r6, r6, #3
    movs    r7, #STEP_CODE
    mul     r6, r6, r7
    adr     r12, 2f
    add     r12, r12, r6
    orr     r12, r12, #1
1:
    ldr     r10, [sp, #STAGES]
    ldr     r2, [sp, #STRIP]
    ldr     r4, [sp, #ODD]
    ldrd    r0, r1, [r10], #8
    str     r10, [sp, #STAGES]
    cbz     r4, 3f
    ldrd    r4, r5, [lr], #8
    ldrd    r8, r9, [r2], #8
    TWO_CHANNELS r4, r5, r8, r9
    cmp     r2, r3
    beq     4f
3:
    bx      r12
    .balign 4
2:
.rept 4
    ldmia   lr!, {r4-r7}
    ldmia   r2!, {r8-r11}
    TWO_CHANNELS r4, r5, r8, r9
    TWO_CHANNELS r6, r7, r10, r11
.endr
    cmp     r2, r3
    bne     2b
4:
    ldr     r11, [sp, #STAGES]
    ldmia   r11!, {r8, r9, r10}
    tst     r10, #0x10000
    bne     6f
    REQUANTIZE r0, r4
    ldmia   r11!, {r8, r9, r10}
    REQUANTIZE r1, r4
5:
    str     r11, [sp, #STAGES]
    ldr     r4, [sp, #OUTPUT]
    ldr     r5, [sp, #PAIRS]
    strb    r0, [r4], #1
    strb    r1, [r4], #1
    str     r4, [sp, #OUTPUT]
    subs    r5, r5, #1
    str     r5, [sp, #PAIRS]
    bne     1b
    add     sp, #FRAME
    pop     {r4-r11, pc}
6:
    strd    r12, lr, [sp, #ENTRY_AND_WEIGHTS]
    ANY_SHIFT
    REQUANTIZE_ANY r0
    ldr     r11, [sp, #STAGES]
    add     r11, r11, #12
    ldmia   r11, {r8, r9, r10}
    ANY_SHIFT
    REQUANTIZE_ANY r1
    ldr     r11, [sp, #STAGES]
    ldrd    r12, lr, [sp, #ENTRY_AND_WEIGHTS]
    add     r11, r11, #24
    b       5b
    .size   eq_pairs_one, . - eq_pairs_one

/*
 * void eq_pairs_widen_four(uint32_t *strip, const int8_t *a, const int8_t *b, const int8_t *c,
 *                          const int8_t *d, uint32_t groups)
 */
    .section .text.eq_pairs_widen_four, "ax", %progbits
    .balign 4
    .global eq_pairs_widen_four
    .type   eq_pairs_widen_four, %function
    .thumb_func
eq_pairs_widen_four:
    push    {r4-r11, lr}
    ldrd    r4, lr, [sp, #36]
1:
    ldr     r9, [r1], #4
    ldr     r10, [r2], #4
    ldr     r11, [r3], #4
    ldr     r12, [r4], #4
    sxtb16  r5, r9, ror #8
    sxtb16  r6, r10, ror #8
    sxtb16  r7, r11, ror #8
    sxtb16  r8, r12, ror #8
    rev16   r9, r9
    rev16   r10, r10
    rev16   r11, r11
    rev16   r12, r12
    eor     r9, r9, #0x007F007F
    eor     r10, r10, #0x007F007F
    eor     r11, r11, #0x007F007F
    eor     r12, r12, #0x007F007F
    stmia   r0!, {r5-r12}
    subs    lr, lr, #1
    bne     1b
    pop     {r4-r11, pc}
    .size   eq_pairs_widen_four, . - eq_pairs_widen_four

#endif

#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
