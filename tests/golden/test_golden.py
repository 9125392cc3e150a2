"""Nothing drifts: kernels, references and decoders against cases kept in the repository."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from appliance.reading import read_frame
from appliance.settings import Settings
from kernels import RawFrame, Reducer, Stretcher, unpack
from kernels.stretch import IMAGE_SIDE, reference
from tests.golden.make import CORPUS, HERE, TONES

EXPECTED: dict[str, dict[str, str]] = json.loads((CORPUS / "expected.json").read_text())


@pytest.mark.parametrize("tone", TONES)
def test_the_stretch_has_not_drifted(tone: str) -> None:
    with np.load(HERE / "kernels.npz") as golden:
        out = np.empty((IMAGE_SIDE, IMAGE_SIDE), np.float32)
        noise = Stretcher(TONES[tone]).stretch(RawFrame.from_samples(golden["samples"], bits=10), out)
        np.testing.assert_allclose(out[::8, ::8], golden[tone], atol=4e-6)
        np.testing.assert_allclose(
            reference.stretch(golden["samples"], TONES[tone])[0][::8, ::8], golden[tone], atol=1e-12
        )
        assert [noise.median_dn, noise.sigma_dn] == pytest.approx(golden["numbers"][:2], rel=1e-9)


def test_the_reduction_has_not_drifted() -> None:
    with np.load(HERE / "kernels.npz") as golden:
        got = Reducer(threshold=0.5, alpha=2.0).reduce(golden["logits"])
        assert [got.m_thresh, got.m_alpha] == pytest.approx(golden["numbers"][2:], rel=1e-5)
        assert np.abs(got.map / 255 - golden["s"]).max() < 0.5 / 255 + 1e-6


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_file_is_decoded_or_refused_as_kept(name: str) -> None:
    frame = read_frame(CORPUS / name, name, Settings())
    case = EXPECTED[name]
    if case["expect"] == "decode":
        assert frame.raw is not None, frame.unreadable
        assert hashlib.sha256(unpack(frame.raw).astype("<u2").tobytes()).hexdigest() == case["sha256_u16le"]
    else:
        assert frame.raw is None
        assert case["reason"] in (frame.unreadable or "")
