"""Numbers of a .gcv file: base 128, lowest digit first, and a position to read bytes from."""

from __future__ import annotations

from gencodec.codec import CorruptStream

MAX_VARINT_BYTES = 9  # 63 bits


class Cursor:
    """A reading position in bytes that are in memory. Raises CorruptStream at the end of them."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = memoryview(data)
        self.position = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self.data) - self.position

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        if count > self.left:
            raise CorruptStream(
                f"the stream is damaged: a field claims {count} bytes where {self.left} are left"
            )
        self.position += count
        return bytes(self.data[self.position - count : self.position])

    def varint(self) -> int:
        """Return the next varint."""
        value, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift == 7 * MAX_VARINT_BYTES:
                raise CorruptStream("the stream is damaged: a varint has more than 9 bytes")
        if byte == 0 and shift > 7:
            raise CorruptStream("the stream is damaged: a varint is longer than its value needs")
        return value


def pack_varint(value: int) -> bytes:
    """Return `value` >= 0 in base 128, lowest digit first, the high bit set on all bytes but the last."""
    if not 0 <= value < 1 << (7 * MAX_VARINT_BYTES):
        raise ValueError(f"a varint holds 0..2^63-1, got {value}")
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
