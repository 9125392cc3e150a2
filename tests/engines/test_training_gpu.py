"""Training on a CUDA device gives the network that the CPU then runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engines.models import build  # noqa: E402
from engines.training.data import SetRecipe, simulate_set  # noqa: E402
from engines.training.fit import Stage, fit, predict, reestimate_norms  # noqa: E402
from engines.training.regress import regressor_job  # noqa: E402
from kernels import StretchParams  # noqa: E402

pytestmark = pytest.mark.gpu


def test_a_network_trained_on_cuda_predicts_the_same_on_the_cpu(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("NO CUDA DEVICE: nothing of the GPU was tested")
    data = simulate_set(SetRecipe(seed=5, full_size=0.0), 128, StretchParams(), workers=2)
    model = build("regressor")
    fit(regressor_job(model, data, data, (Stage(64, 512, 32, 1e-3),), tmp_path))
    reestimate_norms(model, data.images, 64, batch=64)
    on_gpu = predict(model, data.images, 64)
    on_cpu = predict(model.to("cpu"), data.images, 64)
    # bfloat16 keeps 8 bits: relative steps of 2^-8, through 18 layers, on levels of up to 10.
    np.testing.assert_allclose(on_gpu, on_cpu, atol=0.3)
