/*
 * eq_taps_dsp.S - the loops of eq_taps.c on Armv7E-M; what each computes stands there, in C.
 *
 * They use every register, which no compiler would. gcc, clang and zig assemble this file as it is;
 * on other machines it is empty.
 */
#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__)

    .file   "eq_taps_dsp.S" /* else gcc names a temporary one, and no two builds are equal */
    .syntax unified
    .thumb
    .text

/*
 * void eq_taps_multiply_...(const uint32_t *values, const uint32_t *weights, const uint64_t *first,
 *                           uint64_t *sums, uint32_t groups, uint32_t words, uint32_t channels)
 *
 * r0-r5: sums of three blocks; r6: a word of weights; r7: mask; r8: operand of weights; r9-r11: of
 * values; r12: values; lr: weights. The first turn skips what whole turns have too many.
 */
#define END 0
#define FIRST 4 /* and the sums */
#define SUMS 8
#define WEIGHTS 12
#define ENTRY 16
#define LAST 20
#define VALUES 24 /* and the first starts */
#define ROW 32    /* bytes of weights, and of sums, of a channel */
#define COUNT 40
#define FRAME 44
#define ARGUMENTS (FRAME + 36)

/* One operand of weights, in r8, and three of values. */
.macro STEP
    ldmia   r12!, {r9, r10, r11}
    umlal   r0, r1, r8, r9
    umlal   r2, r3, r8, r10
    umlal   r4, r5, r8, r11
.endm

.macro TAPS first, others:vararg
    and     r8, r7, r6
    STEP
    .irp    by, \others
    and     r8, r7, r6, ror #\by
    STEP
    .endr
.endm

.macro HALF by, odd, bits
    .if     \by
    and     r8, r7, r6, ror #\by
    .else
    and     r8, r7, r6
    .endif
    STEP
    ubfx    r8, r6, #\odd, #\bits
    STEP
.endm

.macro TAPS_14_4
    TAPS    0, 8
.endm

.macro TAPS_14_2
    TAPS    0, 2, 8, 10
.endm

.macro TAPS_12_2
    TAPS    0, 2, 4, 6
.endm

.macro HALVES_4
    HALF    0, 8, 4
    HALF    4, 22, 4
.endm

.macro HALVES_2
    HALF    0, 8, 2
    HALF    2, 10, 2
    HALF    4, 22, 2
    HALF    6, 24, 2
.endm

/* A turn has `turn` words, a power of 2; the code of a word takes `code` bytes. */
.macro MULTIPLY name, word, mask, turn, code
    .section .text.\name, "ax", %progbits
    .balign 4
    .global \name
    .type   \name, %function
    .thumb_func
\name:
    push    {r4-r11, lr}
    sub     sp, #FRAME
    mov     r12, r0
    strd    r0, r2, [sp, #VALUES]
    strd    r2, r3, [sp, #FIRST]
    str     r1, [sp, #WEIGHTS]
    ldrd    r4, r5, [sp, #ARGUMENTS]
    ldr     r6, [sp, #ARGUMENTS + 8]
    str     r6, [sp, #COUNT]
    movs    r6, #24
    mul     r7, r4, r6
    lsl     r6, r5, #2
    strd    r6, r7, [sp, #ROW]
    add     r7, r7, r3
    add     r6, r6, r1
    str     r7, [sp, #LAST]
    str     r6, [sp, #END]
    rsb     r5, r5, #0
    and     r5, r5, #(\turn - 1)
    movs    r6, #\code
    mul     r5, r5, r6
    adr     r6, 2f
    add     r6, r6, r5
    orr     r6, r6, #1
    str     r6, [sp, #ENTRY]
    movw    r7, #(\mask & 0xFFFF)
    movt    r7, #(\mask >> 16)
1:
    ldr     lr, [sp, #WEIGHTS]
    ldr     r9, [sp, #ENTRY]
    ldr     r6, [sp, #FIRST]
    ldmia   r6!, {r0-r5}
    str     r6, [sp, #FIRST]
    bx      r9
    .balign 4
2:
.rept \turn
    ldr     r6, [lr], #4
    \word
.endr
    ldr     r9, [sp, #END]
    cmp     lr, r9
    bne     2b
    ldr     r6, [sp, #SUMS]
    ldr     r9, [sp, #LAST]
    stmia   r6!, {r0-r5}
    str     r6, [sp, #SUMS]
    cmp     r6, r9
    bne     1b
    ldr     r9, [sp, #COUNT]
    subs    r9, r9, #1
    beq     3f
    str     r9, [sp, #COUNT]
    ldrd    r12, r10, [sp, #VALUES]
    ldrd    r8, r11, [sp, #ROW]
    str     r10, [sp, #FIRST]
    str     lr, [sp, #WEIGHTS]
    add     r8, r8, lr
    add     r6, r6, r11
    str     r8, [sp, #END]
    str     r6, [sp, #LAST]
    b       1b
3:
    add     sp, #FRAME
    pop     {r4-r11, pc}
    .size   \name, . - \name
.endm

    MULTIPLY eq_taps_multiply_14_4, TAPS_14_4, 0xF003C00F, 16, 44
    MULTIPLY eq_taps_multiply_14_2, TAPS_14_2, 0x3000C003, 8, 84
    MULTIPLY eq_taps_multiply_12_2, TAPS_12_2, 0x03003003, 8, 84
    MULTIPLY eq_taps_multiply_halves_4, HALVES_4, 0x0003C00F, 8, 84
    MULTIPLY eq_taps_multiply_halves_2, HALVES_2, 0x0000C003, 4, 164

/*
 * void eq_taps_finish_...(const uint64_t *sums, const int32_t *stage, int8_t *output, uint32_t step,
 *                         uint32_t blocks)
 *
 * r0: sums; r1: step; r2, r3: what the block before adds; r4-r7: the stage; r8, r9: a sum; r12:
 * output; lr: end.
 */
.macro BEGIN_FINISH name
    .section .text.\name, "ax", %progbits
    .balign 4
    .global \name
    .type   \name, %function
    .thumb_func
\name:
    push    {r4-r11, lr}
    ldr     lr, [sp, #36]
    mov     r12, r2
    ldmia   r1, {r4-r7}
    mov     r1, r3
    add     lr, r0, lr, lsl #3
.endm

.macro SCALE x
    add     \x, r4, \x, lsl #1
    add     r9, r6, \x, asr #31
    smmlar  \x, \x, r5, r9
    asr     \x, \x, r7
    ssat    \x, #8, \x
.endm

/* For any shift: r9 is the one to the left, r8 0 where none is to the right. */
.macro ANY_SHIFT
    uxtb    r8, r7
    ubfx    r9, r7, #8, #8
    rsb     r8, r8, #0
    asr     r8, r8, #31
.endm

.macro SCALE_ANY x
    add     \x, r4, \x, lsl #1
    lsl     \x, \x, r9
    smmulr  \x, \x, r5
    tst     r8, \x, asr #31
    it      ne
    subne   \x, \x, #1
    add     \x, \x, r6
    asr     \x, \x, r7
    ssat    \x, #8, \x
.endm

/* Lanes 2 and 3. */
.macro CARRY_14
    lsr     r2, r8, #28
    bfi     r2, r9, #4, #10
    lsr     r3, r9, #10
.endm

.macro BLOCK_14
    ldmia   r0!, {r8, r9}
    ubfx    r10, r8, #0, #14
    ubfx    r11, r8, #14, #14
    add     r10, r10, r2
    add     r11, r11, r3
    CARRY_14
.endm

.macro STORE_14
    cmp     r0, lr
    strb    r10, [r12]
    strb    r11, [r12, r1]
    add     r12, r12, r1, lsl #1
.endm

    BEGIN_FINISH eq_taps_finish_14
    ldmia   r0!, {r8, r9}
    CARRY_14
    tst     r7, #0x10000
    bne     3f
2:
    BLOCK_14
    SCALE   r10
    SCALE   r11
    STORE_14
    bne     2b
    pop     {r4-r11, pc}
3:
    BLOCK_14
    ANY_SHIFT
    SCALE_ANY r10
    SCALE_ANY r11
    STORE_14
    bne     3b
    pop     {r4-r11, pc}
    .size   eq_taps_finish_14, . - eq_taps_finish_14

/* Lanes of 16 bits, of which 1 and 2 have changed places. */
.macro CARRY_ROWS
    lsr     r2, r8, #16
    lsr     r3, r9, #16
.endm

.macro BLOCK_ROWS
    ldmia   r0!, {r8, r9}
    uxtah   r10, r2, r8
    uxtah   r11, r3, r9
    CARRY_ROWS
.endm

    BEGIN_FINISH eq_taps_finish_rows
    ldmia   r0!, {r8, r9}
    CARRY_ROWS
    tst     r7, #0x10000
    bne     3f
2:
    BLOCK_ROWS
    SCALE   r10
    SCALE   r11
    STORE_14
    bne     2b
    pop     {r4-r11, pc}
3:
    BLOCK_ROWS
    ANY_SHIFT
    SCALE_ANY r10
    SCALE_ANY r11
    STORE_14
    bne     3b
    pop     {r4-r11, pc}
    .size   eq_taps_finish_rows, . - eq_taps_finish_rows

/* Three lanes of `width` bits; what is above them is the carry. r3: three steps. */
.macro BLOCK_THREE width
    ldmia   r0!, {r8, r9}
    adds    r8, r8, r2
    adc     r9, r9, r2, asr #31
    ubfx    r10, r8, #0, #\width
    ubfx    r11, r8, #\width, #\width
    lsr     r8, r8, #(2 * \width)
    asr     r2, r9, #(3 * \width - 32)
    bfi     r8, r9, #(32 - 2 * \width), #(3 * \width - 32)
.endm

.macro STORE_THREE
    cmp     r0, lr
    strb    r10, [r12]
    strb    r11, [r12, r1]
    strb    r8, [r12, r1, lsl #1]
    add     r12, r12, r3
.endm

.macro FINISH_THREE name, width
    BEGIN_FINISH \name
    add     r3, r3, r3, lsl #1
    movs    r2, #0
    tst     r7, #0x10000
    bne     3f
2:
    BLOCK_THREE \width
    SCALE   r10
    SCALE   r11
    SCALE   r8
    STORE_THREE
    bne     2b
    pop     {r4-r11, pc}
3:
    push    {r1}
    BLOCK_THREE \width
    mov     r1, r8
    ANY_SHIFT
    SCALE_ANY r10
    SCALE_ANY r11
    SCALE_ANY r1
    mov     r8, r1
    pop     {r1}
    STORE_THREE
    bne     3b
    pop     {r4-r11, pc}
    .size   \name, . - \name
.endm

    FINISH_THREE eq_taps_finish_12, 12
    FINISH_THREE eq_taps_finish_halves, 14

/* void eq_taps_move(uint32_t *to, const uint32_t *from, uint32_t sixes) */
    .section .text.eq_taps_move, "ax", %progbits
    .balign 4
    .global eq_taps_move
    .type   eq_taps_move, %function
    .thumb_func
eq_taps_move:
    push    {r4-r7, lr}
1:
    ldmia   r1!, {r3, r4, r5, r6, r7, r12}
    subs    r2, r2, #1
    stmia   r0!, {r3, r4, r5, r6, r7, r12}
    bne     1b
    pop     {r4-r7, pc}
    .size   eq_taps_move, . - eq_taps_move

#endif

#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
