/*
 * eq_crc32.h - CRC-32 of IEEE 802.3 (zlib's crc32), four bits at a time from a table of 64 bytes.
 */
#ifndef EQ_CRC32_H
#define EQ_CRC32_H

#include <stdint.h>

uint32_t eq_crc32(const uint8_t *bytes, uint32_t count);

#endif
