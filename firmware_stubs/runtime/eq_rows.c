#include "eq_rows.h"

void eq_store_run(const eq_tensor_record_t *tensor, int8_t *data, uint32_t first,
                  const int8_t *values, uint32_t count)
{
    const uint32_t width = eq_width(tensor->bits);
    const uint32_t per_byte = 8u / width;
    const uint32_t mask = (1u << width) - 1u;
    uint8_t *at = (uint8_t *)data + first / per_byte;
    uint32_t used = first % per_byte * width;
    uint32_t byte = used != 0 ? *at & ((1u << used) - 1u) : 0;
    const int8_t *end = values + count;
    while (values != end) {
        if (used == 0 && width == 4 && end - values >= 2) { /* the usual case, without a loop */
            *at++ = (uint8_t)(((uint32_t)values[0] & 15u) | (uint32_t)values[1] << 4);
            values += 2;
            continue;
        }
        byte |= ((uint32_t)*values++ & mask) << used;
        used += width;
        if (used == 8) {
            *at++ = (uint8_t)byte;
            byte = used = 0;
        }
    }
    if (used != 0) {
        *at = (uint8_t)byte;
    }
}
