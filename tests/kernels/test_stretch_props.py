"""The stretch equals its numpy definition at every size, layout, tone and instruction set."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import Layout, NotADarkFrameError, RawFrame, Stretcher, StretchParams, Tone, _native
from kernels.packing import reference as packing_reference
from kernels.stretch import IMAGE_SIDE, reference

ISA_SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Means are exact sums in both; z is rounded to float32 (2^-24 of at most 6 sqrt n) and the tone is float32.
TOLERANCE = 4e-6

tones = st.sampled_from(
    [
        StretchParams(),
        StretchParams(k=3, z_range=16, tone=Tone.LINEAR),
        StretchParams(k=2.5, z_range=8, tone=Tone.MIDTONES, tone_parameter=0.3),
    ]
)


def compare(frame: RawFrame, params: StretchParams) -> None:
    out = np.empty((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    expected, noise = reference.stretch(packing_reference.unpack(frame), params)
    got = Stretcher(params).stretch(frame, out)
    assert got.sigma_dn == pytest.approx(noise.sigma_dn, rel=1e-9)
    assert got.median_dn == pytest.approx(noise.median_dn, rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(out, expected, atol=TOLERANCE, rtol=0)


@ISA_SETTINGS
@given(
    height=st.integers(4, 700), width=st.integers(4, 700), params=tones, seed=st.integers(0, 2**31),
    sigma=st.floats(0.2, 3000),
)  # fmt: skip
def test_equals_reference_at_any_size_and_noise(
    isa: str, height: int, width: int, params: StretchParams, seed: int, sigma: float
) -> None:
    rng = np.random.default_rng(seed)
    samples = np.clip(np.rint(rng.normal(rng.uniform(0, 20000), sigma, (height, width))), 0, 65535).astype(np.uint16)
    hot = rng.random((height, width)) < 0.001
    samples[hot] = rng.integers(0, 65536, int(hot.sum()))
    frame = RawFrame.from_samples(samples, bits=16)
    try:
        reference.stretch(samples, params)
    except NotADarkFrameError:
        with pytest.raises(NotADarkFrameError):
            compare(frame, params)
    else:
        compare(frame, params)


@ISA_SETTINGS
@given(
    seed=st.integers(0, 2**31), sigma=st.floats(0.2, 40), stuck=st.integers(0, 7), value=st.integers(0, 1),
    axis=st.integers(0, 1), rows=st.integers(0, 40), layout=st.sampled_from(list(Layout)),
)  # fmt: skip
def test_faults_are_those_of_the_reference(
    isa: str, seed: int, sigma: float, stuck: int, value: int, axis: int, rows: int, layout: Layout
) -> None:
    samples = np.clip(np.rint(np.random.default_rng(seed).normal(100, sigma, (260, 304))), 0, 255).astype(np.uint16)
    if seed % 2:
        samples = samples | np.uint16(1 << stuck) if value else samples & ~np.uint16(1 << stuck)
    else:
        lines = samples.T if axis else samples
        lines[130 : 130 + rows] = lines[7 : 7 + rows]
    frame = packing_reference.pack(samples, layout)
    try:
        reference.stretch(samples, StretchParams())
    except NotADarkFrameError:
        with pytest.raises(NotADarkFrameError):
            compare(frame, StretchParams())
    else:
        compare(frame, StretchParams())


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("padding", [0, 7])
def test_packed_rows_of_any_stride_equal_reference(isa: str, layout: Layout, padding: int) -> None:
    samples = np.clip(np.random.default_rng(2).normal(60, 9, (450, 372)), 0, 255).astype(np.uint16)
    compare(
        packing_reference.pack(samples, layout, stride=layout.row_bytes(372) + padding, padding=0xFF), StretchParams()
    )


@pytest.mark.parametrize("side", [4, 5, 223, 224, 225, 447, 448, 449])
def test_sizes_around_the_image_side_equal_reference(isa: str, side: int) -> None:
    samples = np.random.default_rng(3).integers(100, 200, (side, 1000 - side)).astype(np.uint16)
    compare(RawFrame.from_samples(samples, bits=8), StretchParams(tone=Tone.LINEAR))


@ISA_SETTINGS
@given(offset=st.integers(0, 30000), seed=st.integers(0, 1000))
def test_a_pedestal_changes_nothing(isa: str, offset: int, seed: int) -> None:
    samples = np.random.default_rng(seed).integers(0, 50, (300, 260)).astype(np.uint16)
    out = np.empty((2, IMAGE_SIDE, IMAGE_SIDE), np.float32)
    for image, shift in zip(out, (0, offset), strict=True):
        Stretcher(StretchParams()).stretch(RawFrame.from_samples(samples + np.uint16(shift), bits=16), image)
    np.testing.assert_allclose(out[0], out[1], atol=TOLERANCE)


@pytest.mark.parametrize("tone", list(Tone))
def test_every_instruction_set_gives_the_same_bits(isa: str, tone: Tone) -> None:
    params = StretchParams(tone=tone, tone_parameter=0.3)
    samples = np.clip(np.random.default_rng(7).normal(300, 11, (731, 905)), 0, 1023).astype(np.uint16)
    frame = RawFrame.from_samples(samples, bits=10)
    out = np.empty((2, IMAGE_SIDE, IMAGE_SIDE), np.float32)
    Stretcher(params).stretch(frame, out[0])
    _native.use_isa("baseline")  # the fixture puts back what was there
    Stretcher(params).stretch(frame, out[1])
    np.testing.assert_array_equal(out[0], out[1])
