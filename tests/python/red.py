"""A decoder of RED blocks, written from the description of the format alone."""

import struct

import numpy as np

EXTRA, BOTTOM, HEADER = 7, 0x0080_0000, 304
WORD = 0xFFFF_FFFF


def decode(block):
    """The samples of a whole block that is not encrypted, as int32."""
    flags = block[4]
    slope, intercept, scale, coded, count, length = struct.unpack_from("<fffIII", block, 16)
    assert length == len(block) and flags & 6 == 0
    if count == 0:
        return np.zeros(0, np.int32)
    frequency = block[48:HEADER]
    below = [0]
    for value in frequency:
        below.append(below[-1] + value)
    total = below[256]
    symbol_of = [symbol for symbol in range(256) for _ in range(frequency[symbol])]
    payload = iter(block[HEADER:])
    held = next(payload, 0)
    low, span = held >> 1, 0x80
    stream = bytearray()
    for _ in range(coded - 1):
        while span <= BOTTOM:
            low = (low << 8 | (held << EXTRA & 0xFF)) & WORD
            held = next(payload, 0)
            low |= held >> 1
            span = span << 8 & WORD
        part = span // total
        symbol = symbol_of[min(low // part, total - 1)]
        low -= part * below[symbol]
        span = part * frequency[symbol] if symbol < 255 else span - part * below[255]
        stream.append(symbol)
    samples = np.array(integrate(bytes(stream), count), np.int32)
    if scale > 1.0:
        samples = rounded(samples * float(scale))
    if slope != 0.0 or intercept != 0.0:
        samples = rounded((samples + slope * np.arange(1, count + 1)) + intercept)
    return samples


def integrate(stream, count):
    """Samples of byte-wide differences; 0x80 announces a full value."""
    sample, = struct.unpack_from("<i", stream)
    samples, at = [sample], 4
    while len(samples) < count:
        if stream[at] == 0x80:
            sample, = struct.unpack_from("<i", stream, at + 1)
            at += 5
        else:
            step = stream[at] - 256 if stream[at] > 127 else stream[at]
            sample = (sample + step + 2**31) % 2**32 - 2**31
            at += 1
        samples.append(sample)
    return samples


def rounded(values):
    """Half away from zero, as the format does it."""
    values = np.where(values >= 0, values + 0.5, values - 0.5)
    return np.trunc(np.clip(values, -2147483647.0, 2147483647.0)).astype(np.int32)
