"""What the stretch does to frames that matter: noise, hot pixels, plane offsets, constants, saturation."""

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels import FrameGeometryError, NotADarkFrameError, RawFrame, Stretcher, StretchParams, Tone
from kernels.stretch import IMAGE_SIDE

LINEAR = StretchParams(k=6, z_range=16, tone=Tone.LINEAR)


def dark(height: int, width: int, *, sigma: float = 4.0, pedestal: float = 64.0, seed: int = 0) -> NDArray[np.uint16]:
    noise = np.random.default_rng(seed).normal(pedestal, sigma, (height, width))
    return np.clip(np.rint(noise), 0, 65535).astype(np.uint16)


def image_of(samples: NDArray[np.uint16], params: StretchParams = LINEAR) -> NDArray[np.float32]:
    out = np.empty((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    Stretcher(params).stretch(RawFrame.from_samples(samples, bits=16), out)
    return out


def z_of(samples: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (image_of(samples) - 0.5) * 32


def test_noise_is_measured_in_dn() -> None:
    out = np.empty((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    noise = Stretcher(LINEAR).stretch(RawFrame.from_samples(dark(900, 1200), bits=12), out)
    assert noise.sigma_dn == pytest.approx(4.0, rel=0.01)  # 4 SD of the estimate from 2^18 samples
    assert noise.median_dn == pytest.approx(64.0, abs=0.05)


def test_clean_noise_has_unit_spread_whatever_the_sensor(isa: str) -> None:
    for height, width, sigma in [(896, 1120, 2.0), (1792, 896, 40.0)]:
        # Rectangles of whole pixels: the mean of n samples has sigma / sqrt n.
        assert z_of(dark(height, width, sigma=sigma)).std() == pytest.approx(1.0, abs=0.03)


def test_amplitude_survives() -> None:
    samples = dark(896, 896, sigma=4)
    samples[200:400, 200:400] += 3  # 3 DN at n = 16: 3 / (4 / 4) = 3 in noise units
    z = z_of(samples)
    assert z[60:90, 60:90].mean() - z[120:200, 120:200].mean() == pytest.approx(3.0, abs=0.1)


def test_one_hot_pixel_moves_nothing_far() -> None:
    samples = dark(896, 896)
    plain = z_of(samples)
    samples[300, 300] = 65535
    change = np.abs(z_of(samples) - plain)
    assert change.max() < 2 * 6 / 4 + 0.1  # at most from -k to +k sigma in a mean of 16, sigma/4 wide
    assert (change > 0.01).sum() <= 1


def test_cfa_plane_offsets_leave_no_pattern() -> None:
    samples = dark(3 * 300, 3 * 300, sigma=1.0)  # 4.018 pixels a rectangle: planes would beat against it
    flat = z_of(samples)
    samples[::2, ::2] += 40
    samples[1::2, 1::2] += 9
    assert np.abs(z_of(samples) - flat).max() < 0.2


def test_constant_frame_has_no_noise_to_judge(isa: str) -> None:
    with pytest.raises(NotADarkFrameError, match="no noise: not a dark frame"):
        image_of(np.full((300, 300), 77, np.uint16))


@pytest.mark.parametrize(("code", "side"), [(0, "lowest"), (4095, "highest")])
def test_mostly_clipped_frame_is_refused_with_the_code(isa: str, code: int, side: str) -> None:
    samples = np.random.default_rng(0).integers(1, 4095, (300, 300)).astype(np.uint16)
    samples[:200] = code
    with pytest.raises(
        NotADarkFrameError, match=f"clipped: 6. % of pixels at the {side} code, {code} DN".replace(" %", "%")
    ):
        image_of(samples)


@pytest.mark.parametrize(("bit", "value"), [(1, 0), (2, 1), (3, 0), (3, 1), (4, 1)])
def test_a_stuck_bit_is_found_in_the_histogram(isa: str, bit: int, value: int) -> None:
    samples = dark(400, 500, sigma=6.0, pedestal=256.0)
    stuck = samples | np.uint16(1 << bit) if value else samples & ~np.uint16(1 << bit)
    with pytest.raises(NotADarkFrameError, match=f"bit {bit} is {value} in every code"):
        image_of(stuck)


@pytest.mark.parametrize(
    "samples",
    [
        dark(400, 500, sigma=6.0) << 4,  # 12 bits, left-justified
        dark(400, 500, sigma=6.0) * np.uint16(4) + np.uint16(1),  # digital gain and an odd pedestal
        dark(400, 500, sigma=6.0) * np.uint16(5) // np.uint16(2),  # a stretch that leaves codes out
        dark(400, 500, sigma=0.3, pedestal=15.5),
        dark(400, 500, sigma=1.0, pedestal=32.0) + np.array([0, 32], np.uint16)[np.arange(500) % 2],  # plane offsets
    ],
)
def test_codes_left_out_by_scaling_are_no_stuck_bits(isa: str, samples: NDArray[np.uint16]) -> None:
    assert np.isfinite(image_of(samples)).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_a_tile_that_comes_again_is_refused(isa: str, axis: int) -> None:
    samples = dark(500, 620)
    part = [slice(None), slice(None)]
    part[axis] = slice(300, 400)
    source = [slice(None), slice(None)]
    source[axis] = slice(20, 120)
    samples[tuple(part)] = samples[tuple(source)]
    lines = ("rows", "columns")[axis]
    with pytest.raises(NotADarkFrameError, match=f"{lines} from 20 on come again 280 {lines} later"):
        image_of(samples)


def test_flat_borders_are_no_tile(isa: str) -> None:
    samples = dark(500, 620)
    samples[:40] = 64
    samples[:, -50:] = 0
    assert np.isfinite(image_of(samples)).all()


def test_eight_bit_frame_with_less_than_one_dn_of_noise_is_judged() -> None:
    z = z_of(dark(896, 896, sigma=0.35, pedestal=3.2))
    assert np.isfinite(z).all()
    assert 0.5 < z.std() < 2


def test_frame_without_room_for_noise_is_refused() -> None:
    with pytest.raises(FrameGeometryError, match="3x5"):
        image_of(np.arange(15, dtype=np.uint16).reshape(5, 3))


def test_buffers_carry_nothing_from_frame_to_frame() -> None:
    stretcher, out = Stretcher(LINEAR), np.empty((2, IMAGE_SIDE, IMAGE_SIDE), np.float32)
    frame = RawFrame.from_samples(dark(700, 500), bits=16)
    stretcher.stretch(frame, out[0])
    stretcher.stretch(RawFrame.from_samples(dark(900, 1300, sigma=900, pedestal=30000, seed=5), bits=16), out[1])
    stretcher.stretch(frame, out[1])
    np.testing.assert_array_equal(out[0], out[1])


@pytest.mark.parametrize(
    "bad",
    [{"k": 0}, {"z_range": -1}, {"tone_parameter": 0}, {"tone": Tone.MIDTONES, "tone_parameter": 1.0}],
)
def test_parameters_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="stretch"):
        StretchParams(**bad)  # type: ignore[arg-type]  # the point of the test
