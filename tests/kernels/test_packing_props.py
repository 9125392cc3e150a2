"""Every layout equals the reference at every width, stride and padding."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import Layout, RawFrame, unpack
from kernels.packing import reference

ISA_SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("layout", list(Layout))
@ISA_SETTINGS
@given(groups=st.integers(1, 70), height=st.integers(1, 4), padding=st.integers(0, 40), seed=st.integers(0, 2**32 - 1))
def test_unpack_equals_reference_and_inverts_pack(
    isa: str, layout: Layout, groups: int, height: int, padding: int, seed: int
) -> None:
    width = groups * layout.group_samples
    samples = np.random.default_rng(seed).integers(0, 1 << layout.storage_bits, (height, width)).astype(np.uint16)
    packed = reference.pack(samples, layout, stride=layout.row_bytes(width) + padding, padding=0xA5)
    np.testing.assert_array_equal(unpack(packed), samples)
    np.testing.assert_array_equal(reference.unpack(packed), samples)


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_last_row_may_end_with_the_buffer_and_start_unaligned(isa: str, layout: Layout, offset: int) -> None:
    width, height = 4 * 37, 3
    samples = np.random.default_rng(1).integers(0, 1 << layout.storage_bits, (height, width)).astype(np.uint16)
    packed = reference.pack(samples, layout)
    moved = np.empty(packed.packed.size + offset, np.uint8)
    moved[offset:] = packed.packed
    shifted = RawFrame(moved[offset:], width, height, packed.stride, layout, packed.bits)
    np.testing.assert_array_equal(unpack(shifted), samples)
