/*
 * counter.c - counts basic blocks and flash reads inside Unicorn, for counters.py, which has the
 * same in Python. It is compiled for this machine when a profile is made, and is part of no firmware.
 */
#include <stdint.h>

/* A block that ran; `fallen` counts how often the next one began right where it ends. */
typedef struct {
    uint64_t address;
    uint64_t bytes; /* 0: a free place */
    uint64_t times;
    uint64_t fallen;
    uint64_t reads; /* bytes read from the flash as data */
} block_t;

/* Open addressing: capacity is a power of two. When it is full, `lost` says so. */
typedef struct {
    uint64_t capacity;
    uint64_t lost;
    block_t *at; /* the block that runs */
    block_t *blocks;
    int (*get)(void *engine, int which, void *value); /* uc_reg_read, uc_reg_write */
    int (*set)(void *engine, int which, const void *value);
    int64_t conditions; /* the register that they are asked for, or 0 */
    uint64_t pending;   /* its bits that Unicorn leaves set */
} trace_t;

void enter(void *engine, uint64_t address, uint32_t bytes, trace_t *trace);
void enter(void *engine, uint64_t address, uint32_t bytes, trace_t *trace)
{
    uint64_t place = (address >> 1) * 0x9E3779B1u + bytes;
    (void)engine;
    if (trace->at != 0 && trace->at->address + trace->at->bytes == address) {
        trace->at->fallen++;
    }
    for (uint64_t tries = 0; tries < trace->capacity; tries++, place++) {
        block_t *block = &trace->blocks[place & (trace->capacity - 1)];
        if (block->bytes == 0) {
            block->address = address;
            block->bytes = bytes;
        }
        if (block->address == address && block->bytes == bytes) {
            block->times++;
            trace->at = block;
            return;
        }
    }
    trace->lost++;
    trace->at = 0;
}

void flash_read(void *engine, int access, uint64_t address, int bytes, int64_t value,
                trace_t *trace);
void flash_read(void *engine, int access, uint64_t address, int bytes, int64_t value,
                trace_t *trace)
{
    uint32_t state = 0;
    (void)access, (void)address, (void)value;
    if (trace->at != 0) {
        trace->at->reads += (uint64_t)bytes;
    }
    if (trace->conditions != 0) {
        trace->get(engine, (int)trace->conditions, &state);
        if (state & trace->pending) {
            state &= ~(uint32_t)trace->pending;
            trace->set(engine, (int)trace->conditions, &state);
        }
    }
}
