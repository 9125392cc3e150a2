"""Layouts by example: bytes written out by hand, and geometry that does not fit."""

import numpy as np
import pytest

from kernels import FrameGeometryError, Layout, RawFrame, unpack


def frame(data: list[int], width: int, height: int, layout: Layout, stride: int | None = None) -> RawFrame:
    packed = np.array(data, np.uint8)
    return RawFrame(packed, width, height, stride or layout.row_bytes(width), layout, layout.storage_bits)


@pytest.mark.parametrize(
    ("layout", "data", "samples"),
    [
        (Layout.U8, [1, 255], [1, 255]),
        (Layout.U16LE, [0x34, 0x12], [0x1234]),
        (Layout.U16BE, [0x12, 0x34], [0x1234]),
        # Low bits of sample 0 in bits 1-0 of the fifth byte, of sample 3 in bits 7-6.
        (Layout.RAW10, [0x01, 0x02, 0x03, 0xFF, 0b11_10_01_00], [0x004, 0x009, 0x00E, 0x3FF]),
        (Layout.RAW12, [0xAB, 0xCD, 0x21], [0xAB1, 0xCD2]),
        # Low six bits 0x01, 0x02, 0x03, 0x3F from the least significant bit of the fifth byte on.
        (Layout.RAW14, [0x10, 0x20, 0x30, 0x40, 0x81, 0x30, 0xFC], [0x401, 0x802, 0xC03, 0x103F]),
        (Layout.PACKED10, [0xFF, 0xC0, 0x10], [0x3FF, 0x001]),
        (Layout.PACKED12, [0x12, 0x3A, 0xBC], [0x123, 0xABC]),
        (Layout.PACKED14, [0xFF, 0xFC, 0x00, 0x10], [0x3FFF, 0x0001]),
    ],
)
def test_bytes_give_the_samples_of_the_layout(layout: Layout, data: list[int], samples: list[int]) -> None:
    got = unpack(frame(data, len(samples), 1, layout))
    assert got.tolist() == [samples]


@pytest.mark.parametrize(
    ("width", "height", "stride", "layout", "size", "message"),
    [
        (6, 1, 8, Layout.RAW10, 8, "multiple of 4"),
        (4, 2, 4, Layout.RAW10, 20, "stride of 4 bytes, a row takes 5"),
        (4, 2, 5, Layout.RAW10, 9, "9 bytes, wanted 10"),
        (0, 2, 5, Layout.U8, 10, "sides must be"),
        (2, 40000, 2, Layout.U8, 80000, "sides must be"),
    ],
)
def test_geometry_that_does_not_fit_names_the_numbers(
    width: int, height: int, stride: int, layout: Layout, size: int, message: str
) -> None:
    with pytest.raises(FrameGeometryError, match=message):
        RawFrame(np.zeros(size, np.uint8), width, height, stride, layout, layout.storage_bits)


def test_samples_of_another_kind_are_refused() -> None:
    with pytest.raises(FrameGeometryError, match="float64"):
        RawFrame.from_samples(np.zeros((4, 4)), bits=8)


def test_big_endian_samples_are_taken_as_values() -> None:
    samples = np.array([[1, 256]], ">u2")
    assert unpack(RawFrame.from_samples(samples, bits=16)).tolist() == [[1, 256]]
