/*
 * eq_lanes_dsp.S - the loops of eq_lanes.c on Armv7E-M; what each computes stands there, in C.
 *
 * They use every register, which no compiler would. gcc, clang and zig assemble this file as it is;
 * on other machines it is empty.
 */
#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__)

    .file   "eq_lanes_dsp.S" /* else gcc names a temporary one, and no two builds are equal */
    .syntax unified
    .thumb
    .text

/* eq_lanes_t */
#define SHAPE_STRIDE 0
#define SHAPE_PAIRS 4
#define SHAPE_FIRST 8
#define SHAPE_UNITS 12
#define SHAPE_MORE 16
#define SHAPE_BITS 20
#define SHAPE_WIDTH 24
#define SHAPE_GENERAL 28

/* A multiplication of both operands of activations: r6 has the weights. */
.macro STEP low, high
    umlal   r0, r1, r6, \low
    umlal   r2, r3, r6, \high
.endm

/* Four steps: two of each four words of the strip, weights rotated by so many bits. */
.macro FOUR_STEPS weights, a, b, c, d
    ldmia   r12!, {r8-r11}
    and     r6, r7, \weights, ror #\a
    STEP    r8, r9
    and     r6, r7, \weights, ror #\b
    STEP    r10, r11
    ldmia   r12!, {r8-r11}
    and     r6, r7, \weights, ror #\c
    STEP    r8, r9
    and     r6, r7, \weights, ror #\d
    STEP    r10, r11
.endm

/* A unit of 8 steps: each takes UNIT_CODE bytes. */
#define UNIT_CODE 116
.macro UNIT_OF_4_BITS
    ldrd    r4, r5, [lr], #8
    FOUR_STEPS r4, 4, 12, 20, 28
    FOUR_STEPS r5, 4, 12, 20, 28
.endm
.macro UNIT_OF_2_BITS
    ldr     r4, [lr], #4
    FOUR_STEPS r4, 4, 6, 12, 14
    FOUR_STEPS r4, 20, 22, 28, 30
.endm
.macro UNIT_OF_SIX_LANES
    ldr     r4, [lr], #4
    FOUR_STEPS r4, 2, 6, 10, 14
    FOUR_STEPS r4, 18, 22, 26, 30
.endm

/* From a doubled sum to a value: FAST where the shift is to the right, EXACT where it is not. */
.macro FAST x, multiplier, addend, right, free
    add     \free, \addend, \x, asr #31
    smmlar  \x, \x, \multiplier, \free
    asr     \x, \x, \right
.endm
.macro EXACT x, multiplier, addend, left
    lsl     \x, \x, \left
    smmulr  \x, \x, \multiplier
    add     \x, \x, \addend
.endm

#define END 0       /* of the weights of a segment */
#define STAGES 4
#define OUTPUT 8    /* and the stride */
#define FIRST 16    /* bytes of weights of the first segment, and the strip */
#define MASK 24     /* and where the first segment enters the loop */
#define WIDTH 32    /* and the pairs that are left */
#define PAIRS 36
#define GENERAL 40 /* 0 where the usual code does */
#define LEFT 44     /* segments after this one */
#define NEXT 48     /* bytes of weights of another segment */
#define LOOP 52
#define PARTIAL 56  /* eight sums of the segments before */
#define FRAME 88

/* Of r0..r3 the arguments, r4 the shape; r5: what a unit's weights take is 1 << r5. */
.macro ENTER mask, loop
    str     r0, [sp, #FIRST + 4]
    str     r2, [sp, #STAGES]
    ldr     r6, [r4, #SHAPE_STRIDE]
    strd    r3, r6, [sp, #OUTPUT]
    mov     lr, r1
    ldrd    r6, r7, [r4, #SHAPE_FIRST]
    rsb     r8, r6, #0              /* the first turn skips what four turns have too many */
    and     r8, r8, #3
    lsl     r6, r6, r5
    lsl     r7, r7, r5
    str     r6, [sp, #FIRST]
    str     r7, [sp, #NEXT]
    movs    r9, #UNIT_CODE
    mul     r8, r8, r9
    adr.w   r10, \loop
    orr     r10, r10, #1
    str     r10, [sp, #LOOP]
    add     r10, r10, r8
    strd    \mask, r10, [sp, #MASK]
    ldr     r8, [r4, #SHAPE_WIDTH]
    ldr     r9, [r4, #SHAPE_PAIRS]
    strd    r8, r9, [sp, #WIDTH]
    ldr     r8, [r4, #SHAPE_GENERAL]
    str     r8, [sp, #GENERAL]
.endm

.macro BEGIN_PAIR
    ldrd    r4, r12, [sp, #FIRST]
    ldrd    r7, r11, [sp, #MASK]
    add     r4, r4, lr
    str     r4, [sp, #END]
.endm

.macro REPEAT_UNTIL_END target
    ldr     r6, [sp, #END]
    cmp     lr, r6
    bne     \target
.endm

/*
 * void eq_lanes_four(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
 *                    int8_t *output, const eq_lanes_t *shape)
 *
 * r0, r1: pixels 0 and 1 of both channels; r2, r3: pixels 2 and 3; r12: strip; lr: weights.
 */
    .section .text.eq_lanes_four, "ax", %progbits
    .balign 4
    .global eq_lanes_four
    .type   eq_lanes_four, %function
    .thumb_func
eq_lanes_four:
    push    {r4-r11, lr}
    sub     sp, #FRAME
    ldr     r4, [sp, #FRAME + 36]
    ldr     r5, [r4, #SHAPE_MORE]
    str     r5, [sp, #LEFT]
    movs    r5, #0
    movs    r6, #0
    strd    r5, r6, [sp, #PARTIAL]
    strd    r5, r6, [sp, #PARTIAL + 8]
    strd    r5, r6, [sp, #PARTIAL + 16]
    strd    r5, r6, [sp, #PARTIAL + 24]
    ldr     r6, [r4, #SHAPE_BITS]
    cmp     r6, #2
    beq     1f
    mov     r5, #3
    mov     r11, #0x0F
    orr     r11, r11, #0xF0000000
    ENTER   r11, 20f
    b       10f
1:
    mov     r5, #2
    mov     r11, #0x03
    orr     r11, r11, #0x30000000
    ENTER   r11, 21f
10:
    BEGIN_PAIR
    mov     r0, #0
    mov     r1, #0
    mov     r2, #0
    mov     r3, #0
    bx      r11
    .balign 4
20:
.rept 4
    UNIT_OF_4_BITS
.endr
    REPEAT_UNTIL_END 20b
    b       30f
    .balign 4
21:
.rept 4
    UNIT_OF_2_BITS
.endr
    REPEAT_UNTIL_END 21b
30:                             /* channel 0 to r4..r7, channel 1 to r0..r3 */
    ubfx    r4, r0, #0, #14
    ubfx    r5, r0, #14, #14
    ubfx    r6, r2, #0, #14
    ubfx    r7, r2, #14, #14
    lsr     r0, r0, #28
    lsr     r2, r2, #28
    orr     r0, r0, r1, lsl #4
    orr     r2, r2, r3, lsl #4
    ubfx    r0, r0, #0, #14
    ubfx    r2, r2, #0, #14
    lsr     r1, r1, #10
    lsr     r3, r3, #10
    ldr     r8, [sp, #GENERAL]
    cmp     r8, #0
    bne     60f
    ldmia   r12, {r8-r11}
    ldr     r12, [sp, #STAGES]
    rsb     r4, r8, r4, lsl #1
    rsb     r5, r9, r5, lsl #1
    rsb     r6, r10, r6, lsl #1
    rsb     r7, r11, r7, lsl #1
    rsb     r0, r8, r0, lsl #1
    rsb     r1, r9, r1, lsl #1
    rsb     r2, r10, r2, lsl #1
    rsb     r3, r11, r3, lsl #1
    ldmia   r12!, {r8-r11}
    add     r4, r4, r8
    add     r5, r5, r8
    add     r6, r6, r8
    add     r7, r7, r8
    FAST    r4, r9, r10, r11, r8
    FAST    r5, r9, r10, r11, r8
    FAST    r6, r9, r10, r11, r8
    FAST    r7, r9, r10, r11, r8
    ldmia   r12!, {r8-r11}
    add     r0, r0, r8
    add     r1, r1, r8
    add     r2, r2, r8
    add     r3, r3, r8
    FAST    r0, r9, r10, r11, r8
    FAST    r1, r9, r10, r11, r8
    FAST    r2, r9, r10, r11, r8
    FAST    r3, r9, r10, r11, r8
42:
    str     r12, [sp, #STAGES]
    ldrd    r8, r9, [sp, #OUTPUT]
    ldrd    r11, r10, [sp, #WIDTH]
    add     r12, r8, r9, lsl #1
    cmp     r11, #4
    bne     50f
    ssat    r4, #4, r4
    ssat    r5, #4, r5
    ssat    r6, #4, r6
    ssat    r7, #4, r7
    ssat    r0, #4, r0
    ssat    r1, #4, r1
    ssat    r2, #4, r2
    ssat    r3, #4, r3
    bfi     r5, r1, #4, #4
    bfi     r6, r2, #4, #4
    bfi     r7, r3, #4, #4
    bfi     r4, r0, #4, #4
    strb    r5, [r8, r9]
    strb    r6, [r8, r9, lsl #1]
    strb    r7, [r12, r9]
    strb    r4, [r8], #1
43:
    subs    r10, r10, #1
    str     r8, [sp, #OUTPUT]
    str     r10, [sp, #PAIRS]
    bne     10b
    add     sp, #FRAME
    pop     {r4-r11, pc}
50:                             /* two bytes of each pixel */
    ssat    r4, #8, r4
    ssat    r5, #8, r5
    ssat    r6, #8, r6
    ssat    r7, #8, r7
    ssat    r0, #8, r0
    ssat    r1, #8, r1
    ssat    r2, #8, r2
    ssat    r3, #8, r3
    strb    r5, [r8, r9]
    strb    r6, [r8, r9, lsl #1]
    strb    r7, [r12, r9]
    strb    r4, [r8], #1
    add     r12, r12, #1
    strb    r1, [r8, r9]
    strb    r2, [r8, r9, lsl #1]
    strb    r3, [r12, r9]
    strb    r0, [r8], #1
    b       43b
40:
    ldmia   r12, {r8-r11}
    ldr     r12, [sp, #STAGES]
    rsb     r4, r8, r4, lsl #1
    rsb     r5, r9, r5, lsl #1
    rsb     r6, r10, r6, lsl #1
    rsb     r7, r11, r7, lsl #1
    rsb     r0, r8, r0, lsl #1
    rsb     r1, r9, r1, lsl #1
    rsb     r2, r10, r2, lsl #1
    rsb     r3, r11, r3, lsl #1
    ldmia   r12!, {r8-r11}
    add     r4, r4, r8
    add     r5, r5, r8
    add     r6, r6, r8
    add     r7, r7, r8
    tst     r11, #0x10000
    bne     70f
    FAST    r4, r9, r10, r11, r8
    FAST    r5, r9, r10, r11, r8
    FAST    r6, r9, r10, r11, r8
    FAST    r7, r9, r10, r11, r8
41:
    ldmia   r12!, {r8-r11}
    add     r0, r0, r8
    add     r1, r1, r8
    add     r2, r2, r8
    add     r3, r3, r8
    tst     r11, #0x10000
    bne     71f
    FAST    r0, r9, r10, r11, r8
    FAST    r1, r9, r10, r11, r8
    FAST    r2, r9, r10, r11, r8
    FAST    r3, r9, r10, r11, r8
    b       42b
60:                             /* not all shifts are to the right, or one of several segments */
    lsls    r8, r8, #1
    beq     40b
    add     r9, sp, #PARTIAL
    ldmia   r9!, {r10, r11}
    add     r4, r4, r10
    add     r5, r5, r11
    ldmia   r9!, {r10, r11}
    add     r6, r6, r10
    add     r7, r7, r11
    ldmia   r9!, {r10, r11}
    add     r0, r0, r10
    add     r1, r1, r11
    ldmia   r9, {r10, r11}
    add     r2, r2, r10
    add     r3, r3, r11
    ldr     r10, [sp, #LEFT]
    subs    r10, r10, #1
    bmi     61f
    str     r10, [sp, #LEFT]
    add     r9, sp, #PARTIAL
    stmia   r9!, {r4-r7}
    stmia   r9, {r0-r3}
    ldr     r4, [sp, #NEXT]
    ldr     r7, [sp, #MASK]
    ldr     r11, [sp, #LOOP]
    add     r4, r4, lr
    str     r4, [sp, #END]
    mov     r0, #0
    mov     r1, #0
    mov     r2, #0
    mov     r3, #0
    bx      r11
61:                             /* the last: the next pair begins anew */
    lsr     r8, r8, #1
    str     r8, [sp, #LEFT]
    mov     r10, #0
    mov     r11, #0
    strd    r10, r11, [sp, #PARTIAL]
    strd    r10, r11, [sp, #PARTIAL + 8]
    strd    r10, r11, [sp, #PARTIAL + 16]
    strd    r10, r11, [sp, #PARTIAL + 24]
    b       40b
70:
    lsr     r11, r11, #8
    EXACT   r4, r9, r10, r11
    EXACT   r5, r9, r10, r11
    EXACT   r6, r9, r10, r11
    EXACT   r7, r9, r10, r11
    b       41b
71:
    lsr     r11, r11, #8
    EXACT   r0, r9, r10, r11
    EXACT   r1, r9, r10, r11
    EXACT   r2, r9, r10, r11
    EXACT   r3, r9, r10, r11
    b       42b
    .size   eq_lanes_four, . - eq_lanes_four

/*
 * void eq_lanes_six(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
 *                   int8_t *output, const eq_lanes_t *shape)
 *
 * r0, r1: pixels 0 to 2 of both channels; r2, r3: pixels 3 to 5; one segment.
 */
/* Three pixels: channel 0 to r4..r6, channel 1 to r7..r9. */
.macro THREE_PIXELS low, high
    ubfx    r4, \low, #0, #10
    ubfx    r5, \low, #10, #10
    ubfx    r6, \low, #20, #10
    lsr     r7, \low, #30
    orr     r7, r7, \high, lsl #2
    ubfx    r8, \high, #8, #10
    ubfx    r7, r7, #0, #10
    lsr     r9, \high, #18
.endm

/* Of one channel, whose words are next at r12, where its shift is to the right. */
.macro FAST_CHANNEL x, y, z
    ldmia   r12!, {r1, r10, r11, lr}
    add     \x, r1, \x, lsl #1
    add     \y, r1, \y, lsl #1
    add     \z, r1, \z, lsl #1
    FAST    \x, r10, r11, lr, r1
    FAST    \y, r10, r11, lr, r1
    FAST    \z, r10, r11, lr, r1
.endm

/* Of one channel, whose words are next at r0. */
.macro CHANNEL x, y, z, exact
    ldmia   r0!, {r1, r10, r11, lr}
    add     \x, r1, \x, lsl #1
    add     \y, r1, \y, lsl #1
    add     \z, r1, \z, lsl #1
    tst     lr, #0x10000
    bne     \exact
    FAST    \x, r10, r11, lr, r1
    FAST    \y, r10, r11, lr, r1
    FAST    \z, r10, r11, lr, r1
.endm
.macro CHANNEL_EXACT x, y, z, back
    lsr     lr, lr, #8
    EXACT   \x, r10, r11, lr
    EXACT   \y, r10, r11, lr
    EXACT   \z, r10, r11, lr
    b       \back
.endm

.macro SATURATE bits
    ssat    r4, #\bits, r4
    ssat    r5, #\bits, r5
    ssat    r6, #\bits, r6
    ssat    r7, #\bits, r7
    ssat    r8, #\bits, r8
    ssat    r9, #\bits, r9
.endm

/* Of r10, r11: the first of three pixels and the stride; r0 is lost. */
.macro STORE_THREE a, b, c
    strb    \a, [r10]
    strb    \b, [r10, r11]
    strb    \c, [r10, r11, lsl #1]
.endm

/*
 * Two bits of each channel: a byte holds four, of which those of an even pair come first; r1 is how
 * many pairs are left.
 */
.macro STORE_PACKED
    SATURATE 2
    bfi     r4, r7, #2, #2
    bfi     r5, r8, #2, #2
    bfi     r6, r9, #2, #2
    lsls    r1, r1, #31
    bne     8f
    STORE_THREE r4, r5, r6
    b       9f
8:
    ldrb    r7, [r10]
    ldrb    r8, [r10, r11]
    ldrb    r9, [r10, r11, lsl #1]
    bfi     r7, r4, #4, #4
    bfi     r8, r5, #4, #4
    bfi     r9, r6, #4, #4
    STORE_THREE r7, r8, r9
9:
.endm

.macro STORE_BYTES
    SATURATE 8
    STORE_THREE r4, r5, r6
    add     r10, r10, #1
    STORE_THREE r7, r8, r9
.endm

    .section .text.eq_lanes_six, "ax", %progbits
    .balign 4
    .global eq_lanes_six
    .type   eq_lanes_six, %function
    .thumb_func
eq_lanes_six:
    push    {r4-r11, lr}
    sub     sp, #FRAME
    ldr     r4, [sp, #FRAME + 36]
    mov     r5, #2
    mov     r11, #0x03
    orr     r11, r11, #0xC0000000
    ENTER   r11, 20f
10:
    BEGIN_PAIR
    ldmia   r12!, {r0-r3}       /* what makes sums of all signs lanes */
    bx      r11
    .balign 4
20:
.rept 4
    UNIT_OF_SIX_LANES
.endr
    REPEAT_UNTIL_END 20b
    ldr     r4, [sp, #GENERAL]
    cmp     r4, #0
    bne     60f
    THREE_PIXELS r0, r1
    ldr     r12, [sp, #STAGES]
    FAST_CHANNEL r4, r5, r6
    FAST_CHANNEL r7, r8, r9
    SATURATE 2
    bfi     r4, r7, #2, #2      /* three bytes of four bits each */
    bfi     r5, r8, #2, #2
    bfi     r6, r9, #2, #2
    bfi     r4, r5, #8, #8
    bfi     r4, r6, #16, #16
    mov     r0, r4
    sub     r12, r12, #32
    THREE_PIXELS r2, r3
    FAST_CHANNEL r4, r5, r6
    FAST_CHANNEL r7, r8, r9
    str     r12, [sp, #STAGES]
    SATURATE 2
    bfi     r4, r7, #2, #2
    bfi     r5, r8, #2, #2
    bfi     r6, r9, #2, #2
    ldrd    r10, r11, [sp, #OUTPUT]
    ldr     r3, [sp, #PAIRS]
    add     r12, r11, r11, lsl #1
    lsr     r7, r0, #8
    lsr     r8, r0, #16
    add     r12, r12, r10
    lsls    r1, r3, #31
    ldr     lr, [sp, #END]
    bne     35f
    strb    r0, [r10]
    strb    r7, [r10, r11]
    strb    r8, [r10, r11, lsl #1]
    strb    r4, [r12]
    strb    r5, [r12, r11]
    strb    r6, [r12, r11, lsl #1]
    sub     r3, r3, #1
    str     r3, [sp, #PAIRS]
    b       10b
35:                             /* these come above four bits that are there */
    ldrb    r9, [r10]
    ldrb    r1, [r10, r11]
    ldrb    r2, [r10, r11, lsl #1]
    bfi     r9, r0, #4, #4
    bfi     r1, r7, #4, #4
    bfi     r2, r8, #4, #4
    ldrb    r0, [r12]
    ldrb    r7, [r12, r11]
    ldrb    r8, [r12, r11, lsl #1]
    bfi     r0, r4, #4, #4
    bfi     r7, r5, #4, #4
    bfi     r8, r6, #4, #4
    strb    r1, [r10, r11]
    strb    r2, [r10, r11, lsl #1]
    strb    r9, [r10], #1
    strb    r0, [r12]
    strb    r7, [r12, r11]
    strb    r8, [r12, r11, lsl #1]
    str     r10, [sp, #OUTPUT]
    subs    r3, r3, #1
    str     r3, [sp, #PAIRS]
    bne     10b
    add     sp, #FRAME
    pop     {r4-r11, pc}
60:                             /* not all shifts are to the right, or the output is in bytes */
    THREE_PIXELS r0, r1
    ldr     r0, [sp, #STAGES]
    CHANNEL r4, r5, r6, 70f
31:
    CHANNEL r7, r8, r9, 71f
32:
    ldrd    r10, r11, [sp, #OUTPUT]
    ldrd    r0, r1, [sp, #WIDTH]
    cmp     r0, #2
    bne     50f
    STORE_PACKED
    b       40f
50:
    STORE_BYTES
40:
    THREE_PIXELS r2, r3
    ldr     r0, [sp, #STAGES]
    CHANNEL r4, r5, r6, 72f
41:
    CHANNEL r7, r8, r9, 73f
42:
    str     r0, [sp, #STAGES]
    ldrd    r10, r11, [sp, #OUTPUT]
    ldrd    r0, r1, [sp, #WIDTH]
    mov     r2, r10
    sub     r3, r1, #1
    add     r10, r10, r11, lsl #1
    add     r10, r10, r11
    cmp     r0, #2
    bne     51f
    and     r12, r1, #1
    add     r2, r2, r12
    STORE_PACKED
    b       45f
51:
    STORE_BYTES
    add     r2, r2, #2
45:
    ldr     lr, [sp, #END]
    str     r2, [sp, #OUTPUT]
    str     r3, [sp, #PAIRS]
    cmp     r3, #0
    bne     10b
    add     sp, #FRAME
    pop     {r4-r11, pc}
70:
    CHANNEL_EXACT r4, r5, r6, 31b
71:
    CHANNEL_EXACT r7, r8, r9, 32b
72:
    CHANNEL_EXACT r4, r5, r6, 41b
73:
    CHANNEL_EXACT r7, r8, r9, 42b
    .size   eq_lanes_six, . - eq_lanes_six

/*
 * void eq_lanes_one(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
 *                   int8_t *output, const eq_lanes_t *shape)
 *
 * r0, r1: two channels; r2, r3: two more; r12: strip; r9: its end; lr, r8: weights.
 */
.macro TWO_STEPS a, b
    ldrd    r10, r11, [r12], #8
    and     r6, r7, r4, ror #\a
    umlal   r0, r1, r6, r10
    and     r6, r7, r5, ror #\a
    umlal   r2, r3, r6, r10
    and     r6, r7, r4, ror #\b
    umlal   r0, r1, r6, r11
    and     r6, r7, r5, ror #\b
    umlal   r2, r3, r6, r11
.endm

#undef STAGES
#undef OUTPUT
#undef PAIRS
#undef FRAME
#define STRIP 0
#define STAGES 4
#define OUTPUT 8
#define PAIRS 12
#define ROW 16 /* bytes of weights of a pair */
#define LAST 20
#define BITS 24
#define OFFSET 28
#define FRAME 32

/* r11 says how one channel's doubled sum becomes a value; see eq_lanes.c. */
.macro ONE_CHANNEL x, exact
    ldmia   r5!, {r8-r11}
    add     \x, \x, r8
    tst     r11, #0x10000
    bne     \exact
    FAST    \x, r9, r10, r11, r8
.endm
.macro ONE_EXACT x, back
    lsr     r11, r11, #8
    EXACT   \x, r9, r10, r11
    b       \back
.endm

    .section .text.eq_lanes_one, "ax", %progbits
    .balign 4
    .global eq_lanes_one
    .type   eq_lanes_one, %function
    .thumb_func
eq_lanes_one:
    push    {r4-r11, lr}
    sub     sp, #FRAME
    ldr     r4, [sp, #FRAME + 36]
    mov     lr, r1
    strd    r0, r2, [sp, #STRIP]
    ldrd    r5, r6, [r4, #SHAPE_PAIRS]
    strd    r3, r5, [sp, #OUTPUT]
    add     r8, r0, r6, lsl #5
    ldr     r7, [r4, #SHAPE_BITS]
    lsl     r6, r6, #2
    cmp     r7, #2
    it      ne
    lslne   r6, r6, #1
    strd    r6, r8, [sp, #ROW]
    ldr     r8, [r8]
    strd    r7, r8, [sp, #BITS]
10:
    ldrd    r8, r9, [sp, #ROW]
    ldr     r4, [sp, #PAIRS]
    ldr     r12, [sp, #STRIP]
    cmp     r4, #1
    ite     eq
    moveq   r8, lr              /* the last pair alone: twice */
    addne   r8, r8, lr
    mov     r0, #0
    mov     r1, #0
    mov     r2, #0
    mov     r3, #0
    ldr     r4, [sp, #BITS]
    mov     r7, #0x0F
    cmp     r4, #2
    beq     21f
    orr     r7, r7, #0xF0000000
20:
.rept 2
    ldr     r4, [lr], #4
    ldr     r5, [r8], #4
    TWO_STEPS 4, 12
    TWO_STEPS 20, 28
.endr
    cmp     r12, r9
    bne     20b
    b       30f
21:
    mov     r7, #0x03
    orr     r7, r7, #0x30000000
22:
    ldr     r4, [lr], #4
    ldr     r5, [r8], #4
    TWO_STEPS 4, 6
    TWO_STEPS 12, 14
    TWO_STEPS 20, 22
    TWO_STEPS 28, 30
    cmp     r12, r9
    bne     22b
30:
    mov     lr, r8
    ldr     r12, [sp, #OFFSET]
    ldr     r5, [sp, #STAGES]
    ldr     r4, [sp, #OUTPUT]
    lsr     r6, r0, #28
    lsr     r7, r2, #28
    orr     r1, r6, r1, lsl #4
    orr     r3, r7, r3, lsl #4
    bic     r0, r0, #0xF0000000
    bic     r2, r2, #0xF0000000
    rsb     r0, r12, r0, lsl #1
    rsb     r1, r12, r1, lsl #1
    rsb     r2, r12, r2, lsl #1
    rsb     r3, r12, r3, lsl #1
    ONE_CHANNEL r0, 70f
31:
    ONE_CHANNEL r1, 71f
32:
    ldr     r6, [sp, #PAIRS]
    ssat    r0, #8, r0
    ssat    r1, #8, r1
    strb    r0, [r4], #1
    strb    r1, [r4], #1
    subs    r6, r6, #2
    bmi     40f                 /* the last pair was alone */
    ONE_CHANNEL r2, 72f
33:
    ONE_CHANNEL r3, 73f
34:
    ssat    r2, #8, r2
    ssat    r3, #8, r3
    strb    r2, [r4], #1
    strb    r3, [r4], #1
    strd    r4, r6, [sp, #OUTPUT]
    str     r5, [sp, #STAGES]
    cmp     r6, #0
    bne     10b
40:
    add     sp, #FRAME
    pop     {r4-r11, pc}
70:
    ONE_EXACT r0, 31b
71:
    ONE_EXACT r1, 32b
72:
    ONE_EXACT r2, 33b
73:
    ONE_EXACT r3, 34b
    .size   eq_lanes_one, . - eq_lanes_one

#endif

#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
