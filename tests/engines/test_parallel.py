"""torchrun: two processes train one network; each has its part of the batch, and both end with the same weights."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from engines.training.data import SetRecipe, simulate_set
from engines.training.parallel import Group, join_group
from kernels import StretchParams

WORKER = """
import sys
from pathlib import Path
import torch
from engines.training.data import ImageSet
from engines.training.parallel import join_group, leader_first, leave_group
from engines.training.train import train
out = Path(sys.argv[1])
with leader_first() as group:
    (out / f"order-{len(list(out.glob('order-*')))}-rank{group.rank}").touch()
images = ImageSet.load(out / "set")
said = []
weights = train("regressor", (images, images), out / "run", preset="smoke", report=said.append)
from engines.training.fit import Job
torch.save({"rank": group.rank, "said": said}, out / f"rank{group.rank}.pt")
leave_group()
"""


def test_outside_torchrun_a_process_is_its_own_group() -> None:
    assert join_group() == Group(0, 1)
    assert join_group().leads


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    simulate_set(SetRecipe(seed=4, full_size=0.0), 64, StretchParams(), workers=2).save(tmp_path / "set")
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, tmp_path / "worker.py", tmp_path], check=True, env=environment, timeout=240)
    assert sorted(p.name for p in tmp_path.glob("order-*")) == ["order-0-rank0", "order-1-rank1"]
    leader, other = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert leader["said"]
    assert not other["said"]
    state = torch.load(tmp_path / "run" / "weights.pt")
    assert all(torch.isfinite(value).all() for value in state.values() if isinstance(value, torch.Tensor))
    with (tmp_path / "run" / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["images"] == "128"  # the smoke preset's, counted once for both
    assert rows[-1]["mae"]
    assert (tmp_path / "run" / "curve.png").stat().st_size > 1000


GRADIENTS = """
import sys
from pathlib import Path
import numpy as np, torch
from torch import nn
import engines.training.fit
from engines.training.fit import Job, Stage, fit
from engines.training.parallel import join_group, leave_group
engines.training.fit.mixed_precision = lambda device: False
out = Path(sys.argv[1])
group = join_group()
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
images = torch.arange(32.0).reshape(8, 1, 2, 2) / 32
def draw(stage, rng):
    part = slice(group.rank * stage.batch, (group.rank + 1) * stage.batch)
    return images[part], images[part].sum((1, 2, 3))
job = Job(model=model, draw=draw, loss=lambda y, b: ((y[:, 0] - b[1]) ** 2).mean(), validate=lambda m, s: {"x": 0.0},
          stages=(Stage(2, 80, 8, 1e-2),), out=out / f"fit-{group.size}", optimizer="sgd", device="cpu")
fit(job)
torch.save(model.state_dict(), out / f"weights-{group.size}-{group.rank}.pt")
leave_group()
"""


def test_two_halves_of_a_batch_teach_what_the_whole_does(tmp_path: Path) -> None:
    """Without BatchNorm the mean of two gradients is the gradient of the whole batch, and ten steps end alike."""
    (tmp_path / "worker.py").write_text(GRADIENTS)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for processes in ("1", "2"):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
        subprocess.run([*command, tmp_path / "worker.py", tmp_path], check=True, env=environment, timeout=240)
    alone, first, second = (torch.load(tmp_path / f"weights-{name}.pt") for name in ("1-0", "2-0", "2-1"))
    for key, value in alone.items():
        np.testing.assert_array_equal(first[key], second[key])
        # Both in float32; sums are made in another order.
        torch.testing.assert_close(first[key], value, rtol=1e-5, atol=1e-6)
