"""How much a place of an image looks like anything in training: a density beside the UNet.

A UNet says how likely background and object are among what it was taught; where an image looks like nothing taught, its
answer is worth nothing. Both probabilities are multiplied by g, so that S = 1 - g (Pbg + Pfg) rises there (docs/math.md 4).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.looks import AROUND, CELL, DIRECTIONS, EDGES, FLOOR, LEAST_DEVIATION, LOCAL, RESPONSES, SMOOTHED
from engines.models.efficientnet_lite import PhotographCells

LEAST = 1e-4  # of g: in half precision too its logarithm is a number
LIMIT = 10.0  # of logits that g lowers, for the same reason
NEIGHBOURS = 3  # prototypes whose mean distance counts
SPREAD = 1.0  # cells, SD of the Gaussian that g is averaged with: what is beside a strange place is hardly known


def _gaussian(sd: float) -> Tensor:
    """(1, 1, 1, k) a row of weights, their sum 1."""
    reach = math.ceil(4 * sd)
    row = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sd) ** 2)
    return (row / row.sum()).reshape(1, 1, 1, -1)


def _blur(x: Tensor, sd: float) -> Tensor:
    """Each channel of (n, c, h, w) by itself, mirrored at the edges."""
    n, c, h, w = x.shape
    row = _gaussian(sd).to(x)
    reach = row.shape[-1] // 2
    planes = x.reshape(n * c, 1, h, w)
    planes = functional.conv2d(functional.pad(planes, (reach, reach, 0, 0), mode="reflect"), row)
    planes = functional.conv2d(functional.pad(planes, (0, 0, reach, reach), mode="reflect"), row.transpose(2, 3))
    return planes.reshape(n, c, h, w)


def _slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, mirrored at the edges."""
    padded = functional.pad(x, (1, 1, 1, 1), mode="reflect")
    return (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2


def _describe(x: Tensor) -> Tensor:
    mean = _blur(x, LOCAL)
    spread = (_blur(x * x, LOCAL) - mean * mean).clamp_min(0).sqrt() + LEAST_DEVIATION
    x = (x - mean) / spread
    parts = []
    for sd in SMOOTHED:
        smooth = _blur(x, sd)
        variance = (_blur(x * x, sd) - smooth * smooth).clamp_min(0)
        (across, _), (_, down) = (_slopes(slope) for slope in _slopes(smooth))
        parts += [smooth, (variance + FLOOR).log(), _blur((across + down) * sd**2, 1.0)]
    for sd in EDGES:
        gx, gy = (slope * 8 * sd for slope in _slopes(_blur(x, sd)))
        xx, yy, xy = (_blur(product, AROUND) for product in (gx * gx, gy * gy, gx * gy))
        for angle in DIRECTIONS:
            c, s = math.cos(angle), math.sin(angle)
            parts.append(((c * c * xx + s * s * yy + 2 * c * s * xy).clamp_min(0) + FLOOR).log())
    return functional.avg_pool2d(torch.cat(parts, 1), CELL)


class Filters(nn.Module):
    """What each cell of 8x8 pixels looks like to simple filters, as `engines/looks.py` asks them."""

    channels = components = RESPONSES
    whitening = 0.25  # power of the variances that principal components are divided by: halfway to counting alike
    reach = 1.0  # times what distances within training spread, and g has fallen by a factor e

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, h, w) in SD of the set -> (n, 17, h / 8, w / 8)."""
        return _describe(x)


class Familiarity(nn.Module):
    """g in (0, 1] of each pixel: 1 where a place looks like training, towards 0 where nothing did.

    g = exp(-max(0, d - start) / span) of each cell, d the mean distance to the nearest three of the prototypes; then the
    mean of g around.

    Args:
        prototypes: how many descriptions of training are kept.
        looks: what describes cells of 8x8 pixels; default Filters.
    """

    mean: Tensor
    whiten: Tensor
    known: Tensor
    start: Tensor
    span: Tensor

    def __init__(self, prototypes: int = 2048, looks: Filters | PhotographCells | None = None) -> None:
        super().__init__()
        self.looks = looks or Filters()
        channels, components = self.looks.channels, self.looks.components
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("whiten", torch.eye(channels, components))
        self.register_buffer("known", torch.zeros(prototypes, components))
        self.register_buffer("start", torch.tensor(0.0))
        self.register_buffer("span", torch.tensor(1.0))
        self.fitted = False  # before, everything is familiar

    def get_extra_state(self) -> bool:
        """What the state dict holds beside tensors: whether it was fitted."""
        return self.fitted

    def set_extra_state(self, state: bool) -> None:
        """Take from a state dict whether it was fitted."""
        self.fitted = state

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool, *reports: list[str]
    ) -> None:
        """Weights of a network from before it had this are whole; everything is familiar to it."""
        if any(key.startswith(prefix) for key in state_dict):
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *reports)
        else:
            self.fitted = False

    def distances(self, described: Tensor) -> Tensor:
        """(m, channels) descriptions -> (m, prototypes) squared distances to what is known."""
        points = (described - self.mean) @ self.whiten
        known = self.known
        return (points * points).sum(1, keepdim=True) + (known * known).sum(1) - 2 * points @ known.T

    def nearest(self, squared: Tensor) -> Tensor:
        """(m, prototypes) squared distances -> (m,) mean distance to the nearest three."""
        return squared.topk(NEIGHBOURS, dim=1, largest=False).values.clamp_min(0).sqrt().mean(1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, h, w) in SD of the set -> (n, 1, h, w) g; in float32, whatever the network beside it computes in."""
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self.forward(x.float())
        return self.of_cells(self.looks(x))

    def of_cells(self, cells: Tensor) -> Tensor:
        """(n, channels, h / 8, w / 8) what cells look like -> (n, 1, h, w) g."""
        n, c, h, w = cells.shape
        squared = self.distances(cells.permute(0, 2, 3, 1).reshape(-1, c))
        g = torch.exp(-((self.nearest(squared) - self.start) / self.span).clamp_min(0)).reshape(n, 1, h, w)
        return functional.interpolate(_blur(g, SPREAD).clamp(LEAST, 1.0), scale_factor=CELL, mode="bilinear")


def gated(logits: Tensor, g: Tensor) -> Tensor:
    """Logits of g P, for logits of P: log g - log(1 - g + e^-logit); logits within +-10, g in [1e-4, 1]."""
    return g.log() - (1 - g + torch.exp(-logits.clamp(-LIMIT, LIMIT))).log()
