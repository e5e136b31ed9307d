/*
 * eq_fields_dsp.S - unpacking of 4 and 2 bits on Armv7E-M; what it computes stands in eq_fields.c.
 */
#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__)

    .file   "eq_fields_dsp.S" /* else gcc names a temporary one, and no two builds are equal */
    .syntax unified
    .thumb

/* r3 has the lowest field of each byte, r12 the offset; words of r4-r11 are to be stored. */
.macro STORE_BLOCK
    .irp    word, r4, r5, r6, r7, r8, r9, r10, r11
    ssub16  \word, \word, r12
    .endr
    subs    r2, r2, #1
    stmia   r0!, {r4-r11}
.endm

/* void eq_fields_unpack_4(uint32_t *to, const uint32_t *from, uint32_t blocks); and _2 */
    .section .text.eq_fields_unpack_4, "ax", %progbits
    .balign 4
    .global eq_fields_unpack_4
    .type   eq_fields_unpack_4, %function
    .thumb_func
eq_fields_unpack_4:
    push    {r4-r11, lr}
    mov     r3, #0x0F0F0F0F
    mov     r12, #0x08080808
1:
    ldmia   r1!, {r4, r6, r8, r10}
    and     r5, r3, r4, lsr #4
    and     r7, r3, r6, lsr #4
    and     r9, r3, r8, lsr #4
    and     r11, r3, r10, lsr #4
    and     r4, r4, r3
    and     r6, r6, r3
    and     r8, r8, r3
    and     r10, r10, r3
    STORE_BLOCK
    bne     1b
    pop     {r4-r11, pc}
    .size   eq_fields_unpack_4, . - eq_fields_unpack_4

    .section .text.eq_fields_unpack_2, "ax", %progbits
    .balign 4
    .global eq_fields_unpack_2
    .type   eq_fields_unpack_2, %function
    .thumb_func
eq_fields_unpack_2:
    push    {r4-r11, lr}
    mov     r3, #0x03030303
    mov     r12, #0x02020202
1:
    ldrd    r4, r8, [r1], #8
    and     r5, r3, r4, lsr #2
    and     r6, r3, r4, lsr #4
    and     r7, r3, r4, lsr #6
    and     r4, r4, r3
    and     r9, r3, r8, lsr #2
    and     r10, r3, r8, lsr #4
    and     r11, r3, r8, lsr #6
    and     r8, r8, r3
    STORE_BLOCK
    bne     1b
    pop     {r4-r11, pc}
    .size   eq_fields_unpack_2, . - eq_fields_unpack_2

#endif

#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
