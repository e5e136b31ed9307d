/*
 * eq_depthwise_3x3.S - the loops of eq_depthwise_3x3_s8_dsp.c on Armv7E-M; what each computes
 * stands there, in C.
 *
 * They use every register, which no compiler would. gcc, clang and zig assemble this file as it is;
 * on other machines it is empty.
 */
#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__)

    .file   "eq_depthwise_3x3.S" /* else gcc names a temporary one, and no two builds are equal */
    .syntax unified
    .thumb
    .section .text.eq_depthwise_3x3_two_rows, "ax", %progbits

/*
 * Stride 1. The frame: its first 48 bytes are those of the run, but for DELTA_UP in place of the
 * bias.
 */
    .equ    SCALE, 0            /* multiplier, addend, right; then DELTA_UP, for one LDM */
    .equ    DELTA_UP, 12        /* output less input */
    .equ    TAPS, 16
    .equ    LEFT, 40
    .equ    RIGHT, 44
    .equ    BIAS, 48            /* twice, for one LDRD */
    .equ    DELTA_DOWN, 56
    .equ    ROW_3, 60           /* from row 1 */
    .equ    BASE, 64            /* row 1 */
    .equ    END_OF_SINGLES, 68  /* where the input stands after the columns taken singly */
    .equ    END_OF_TRIPLES, 72
    .equ    PAIRS, 76
    .equ    ROWS, 80            /* from here on as in the run, from its rows to DELTA_NEXT */
    .equ    USED, 84
    .equ    CHANNEL, 88
    .equ    LAG, 92
    .equ    SINGLES_END, 96
    .equ    TRIPLES_END, 100
    .equ    STEP, 104
    .equ    OUTSIDE_LEFT, 108
    .equ    OUTSIDE_RIGHT, 112
    .equ    INPUT_NEXT, 116
    .equ    DELTA_NEXT, 120     /* output less input */
    .equ    FRAME, 128

/* r0 input in row 1, r1 step, r2 row 0 and r3 row 2 from row 1; r4-r9 sums of three columns. */

/* A column of inputs as pairs: rows 0 and 1 in r10, 2 and 3 in r12. */
.macro LOAD
    ldr     lr, [sp, #ROW_3]
    ldrsb   r10, [r0, r2]
    ldrsb   r11, [r0]
    ldrsb   r12, [r0, r3]
    ldrsb   lr, [r0, lr]
    add     r0, r0, r1
    pkhbt   r10, r10, r11, lsl #16
    pkhbt   r12, r12, lr, lsl #16
.endm

/* Column `tap` of the window, added to both sums. */
.macro ADD_TAPS tap, up, down
    ldrd    r11, lr, [sp, #TAPS + 8 * \tap]
    smlad   \up, r11, r10, \up
    smlabt  \down, r11, r10, \down
    smlatb  \up, lr, r12, \up
    smlad   \down, lr, r12, \down
.endm

.macro START up, down
    ldrd    \up, \down, [sp, #BIAS]
    ADD_TAPS 0, \up, \down
.endm

/* From twice the sums to values. The upper row is stored last: it may lie on the lower one. */
.macro FINISH up, down
    ldm     sp, {r10, r11, r12}
    add     lr, r11, \up, asr #31
    add     r11, r11, \down, asr #31
    smmlar  \up, \up, r10, lr
    smmlar  \down, \down, r10, r11
    ldr     lr, [sp, #DELTA_UP]
    ldr     r10, [sp, #DELTA_DOWN]
    asr     \up, \up, r12
    asr     \down, \down, r12
    ssat    \up, #8, \up
    ssat    \down, #8, \down
    strb    \down, [r0, r10]
    strb    \up, [r0, lr]
.endm

/* A column: the last of the first window, the middle of the second, the first of the third. */
.macro COLUMN up_1, down_1, up_2, down_2, up_3, down_3
    LOAD
    ADD_TAPS 2, \up_1, \down_1
    ADD_TAPS 1, \up_2, \down_2
    START   \up_3, \down_3
    FINISH  \up_1, \down_1
.endm

/* void eq_depthwise_3x3_two_rows(const eq_depthwise_run_t *run) */
    .global eq_depthwise_3x3_two_rows
    .type   eq_depthwise_3x3_two_rows, %function
    .balign 4
    .thumb_func
eq_depthwise_3x3_two_rows:
    push    {r4-r11, lr}
    sub     sp, sp, #FRAME
    ldm     r0!, {r1-r12}
    mov     lr, sp
    stm     lr, {r1-r12}
    str     r4, [sp, #BIAS]
    str     r4, [sp, #BIAS + 4]
    ldm     r0, {r2-r12}
    mov     r1, r8
    sub     r12, r12, r11
    add     lr, sp, #ROWS
    stm     lr, {r2-r12}
.Lrows:
    ldr     r0, [sp, #ROWS]
    ldm     r0!, {r2-r8}            /* rows, outputs, pairs */
    str     r0, [sp, #ROWS]
    str     r8, [sp, #PAIRS]
    ldrd    r8, r9, [sp, #CHANNEL]
    sub     r2, r2, r3
    sub     r5, r5, r3
    sub     r6, r6, r3
    sub     r7, r7, r3
    add     r0, r3, r8
    sub     r3, r4, r3
    sub     r6, r6, r9
    sub     r7, r7, r9
    str     r6, [sp, #DELTA_UP]
    ldrd    r8, r9, [sp, #SINGLES_END]
    strd    r7, r5, [sp, #DELTA_DOWN]
    add     r8, r8, r0
    add     r9, r9, r0
    str     r0, [sp, #BASE]
    strd    r8, r9, [sp, #END_OF_SINGLES]
.Lpair:
    ldr     r4, [sp, #OUTSIDE_LEFT]
    cbnz    r4, .Loutside_left
    LOAD
    START   r4, r5
    b       .Lsecond
.Loutside_left:
    ldr     r4, [sp, #LEFT]
    mov     r5, r4
.Lsecond:
    LOAD
    ADD_TAPS 1, r4, r5
    START   r6, r7
    b       .Lsingles
.Lsingle:
    COLUMN  r4, r5, r6, r7, r8, r9
    mov     r4, r6
    mov     r5, r7
    mov     r6, r8
    mov     r7, r9
.Lsingles:
    ldrd    r10, r11, [sp, #END_OF_SINGLES]
    cmp     r0, r10
    bne     .Lsingle
    cmp     r0, r11
    beq     .Lright
.Ltriple:
    COLUMN  r4, r5, r6, r7, r8, r9
    COLUMN  r6, r7, r8, r9, r4, r5
    COLUMN  r8, r9, r4, r5, r6, r7
    ldr     r10, [sp, #END_OF_TRIPLES]
    cmp     r0, r10
    bne     .Ltriple
.Lright:
    ldr     r6, [sp, #OUTSIDE_RIGHT]
    cbz     r6, .Lnext
    ldr     r10, [sp, #RIGHT]
    add     r0, r0, r1
    add     r4, r4, r10
    add     r5, r5, r10
    FINISH  r4, r5
.Lnext:
    ldr     r10, [sp, #PAIRS]
    subs    r10, r10, #1
    str     r10, [sp, #PAIRS]
    beq     .Lpairs_done
    ldrd    r10, r11, [sp, #INPUT_NEXT]
    ldr     r0, [sp, #BASE]
    ldrd    r4, r5, [sp, #END_OF_SINGLES]
    add     r0, r0, r10
    add     r4, r4, r10
    add     r5, r5, r10
    str     r0, [sp, #BASE]
    strd    r4, r5, [sp, #END_OF_SINGLES]
    ldr     r4, [sp, #DELTA_UP]
    ldr     r5, [sp, #DELTA_DOWN]
    add     r4, r4, r11
    add     r5, r5, r11
    str     r4, [sp, #DELTA_UP]
    str     r5, [sp, #DELTA_DOWN]
    b       .Lpair
.Lpairs_done:
    ldr     r4, [sp, #USED]
    subs    r4, r4, #1
    str     r4, [sp, #USED]
    bne     .Lrows
    add     sp, sp, #FRAME
    pop     {r4-r11, pc}
    .size   eq_depthwise_3x3_two_rows, . - eq_depthwise_3x3_two_rows

    .section .text.eq_depthwise_3x3_one_row, "ax", %progbits

/* Stride 2. The frame: its first 16 bytes are those of the run, the scale and then */
    .equ    ONE_BIAS, 12
    .equ    TO, 16              /* the output, and its end, for one LDRD */
    .equ    TO_END, 20
    .equ    ONE_LEFT, 24
    .equ    ONE_RIGHT, 28
    .equ    ROW_COUNT, 32
    .equ    LENGTH, 36
    .equ    OUTPUT, 40          /* of the row, its input is at BASE; from ROWS on as above */

/*
 * r0 input in row 1, r1 step, r2 row 0 and r3 row 2 from row 1; r4 sum of a window, r5 of the next;
 * rows 0 and 1 of the weights in r6, r7, r8, row 2 in r9 (columns 0 and 1) and the top of r10.
 */

/* A column of inputs: rows 0 and 1 as a pair in r11, row 2 in lr. */
.macro LOAD_THREE
    ldrsb   r11, [r0, r2]
    ldrsb   r12, [r0]
    ldrsb   lr, [r0, r3]
    add     r0, r0, r1
    pkhbt   r11, r11, r12, lsl #16
.endm

.macro START_ONE sum
    ldr     \sum, [sp, #ONE_BIAS]
    smlad   \sum, r6, r11, \sum
    smlabb  \sum, r9, lr, \sum
.endm

.macro ADD_MIDDLE
    LOAD_THREE
    smlad   r4, r7, r11, r4
    smlatb  r4, r9, lr, r4
.endm

/* From twice the sum to a value; leaves the output in r11 and its end in r12. */
.macro FINISH_ONE
    ldm     sp, {r11, r12, lr}
    add     r12, r12, r4, asr #31
    smmlar  r4, r4, r11, r12
    ldrd    r11, r12, [sp, #TO]
    asr     r4, r4, lr
    ssat    r4, #8, r4
    strb    r4, [r11]
    add     r11, r11, r1
.endm

/* void eq_depthwise_3x3_one_row(const eq_depthwise_run_t *run) */
    .global eq_depthwise_3x3_one_row
    .type   eq_depthwise_3x3_one_row, %function
    .balign 4
    .thumb_func
eq_depthwise_3x3_one_row:
    push    {r4-r11, lr}
    sub     sp, sp, #FRAME
    ldm     r0!, {r1-r12}               /* scale, bias, weights by column, left, right */
    stm     sp, {r1-r4}
    strd    r11, r12, [sp, #ONE_LEFT]
    pkhtb   r11, r8, r6, asr #16
    mov     r6, r5
    mov     r8, r9
    mov     r9, r11
    ldm     r0!, {r1-r5, r11, r12}  /* rows to step */
    strd    r1, r2, [sp, #ROWS]
    str     r3, [sp, #CHANNEL]
    mov     r1, r12
    ldm     r0, {r2-r5, r11}        /* outside left and right, to the next input and output, length */
    strd    r2, r3, [sp, #OUTSIDE_LEFT]
    strd    r4, r5, [sp, #INPUT_NEXT]
    str     r11, [sp, #LENGTH]
.Lone_rows:
    ldr     r0, [sp, #ROWS]
    ldm     r0!, {r2-r5, r11, r12, lr} /* rows, outputs, count */
    str     r0, [sp, #ROWS]
    str     lr, [sp, #ROW_COUNT]
    ldr     r5, [sp, #CHANNEL]
    sub     r2, r2, r3
    add     r0, r3, r5
    sub     r3, r4, r3
    add     r11, r11, r5
    str     r0, [sp, #BASE]
    str     r11, [sp, #OUTPUT]
.Lrow:
    ldr     r0, [sp, #BASE]
    ldrd    r5, r4, [sp, #LENGTH]
    add     r5, r5, r4
    strd    r4, r5, [sp, #TO]
    ldr     r5, [sp, #OUTSIDE_LEFT]
    ldr     r4, [sp, #ONE_LEFT]
    cbnz    r5, .Lfirst
    LOAD_THREE
    START_ONE r4
.Lfirst:
    ldrd    r11, r12, [sp, #TO]
    cmp     r11, r12
    beq     .Lrow_right
.Lcolumn:
    ADD_MIDDLE
    LOAD_THREE
    smlad   r4, r8, r11, r4
    smlatb  r4, r10, lr, r4
    START_ONE r5
    FINISH_ONE
    str     r11, [sp, #TO]
    mov     r4, r5
    cmp     r11, r12
    bne     .Lcolumn
.Lrow_right:
    ldr     r5, [sp, #OUTSIDE_RIGHT]
    cbz     r5, .Lrow_next
    ADD_MIDDLE
    ldr     r5, [sp, #ONE_RIGHT]
    add     r4, r4, r5
    FINISH_ONE
.Lrow_next:
    ldr     r4, [sp, #ROW_COUNT]
    subs    r4, r4, #1
    str     r4, [sp, #ROW_COUNT]
    beq     .Lone_rows_done
    ldrd    r4, r5, [sp, #INPUT_NEXT]
    ldr     r0, [sp, #BASE]
    ldr     r11, [sp, #OUTPUT]
    add     r0, r0, r4
    add     r11, r11, r5
    str     r0, [sp, #BASE]
    str     r11, [sp, #OUTPUT]
    b       .Lrow
.Lone_rows_done:
    ldr     r4, [sp, #USED]
    subs    r4, r4, #1
    str     r4, [sp, #USED]
    bne     .Lone_rows
    add     sp, sp, #FRAME
    pop     {r4-r11, pc}
    .size   eq_depthwise_3x3_one_row, . - eq_depthwise_3x3_one_row

#endif

#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
