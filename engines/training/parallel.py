"""Data-parallel training: the processes that `torchrun` starts share each step's batch and average their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

WAIT = timedelta(days=1)  # for the leader, who may simulate or decode a large set first


@dataclass(frozen=True, slots=True)
class Group:
    """The processes of one training.

    Attributes:
        rank: of this process, 0..size - 1.
        size: processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process validates, reports and writes files."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when every process came here."""
        if self.size > 1:
            dist.barrier()

    def share(self, model: nn.Module) -> nn.Module:
        """The model to train: its gradients are the mean over the group."""
        return model if self.size == 1 else DistributedDataParallel(model)


def join_group() -> Group:
    """The group that torchrun started this process in; a group of one elsewhere. NCCL between GPUs, Gloo between CPUs."""
    if not dist.is_torchelastic_launched():
        return Group()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=WAIT)
        if torch.cuda.is_available():
            torch.cuda.set_device(dist.get_node_local_rank())
    return Group(dist.get_rank(), dist.get_world_size())


def leave_group() -> None:
    """End the group, so that no process is left waiting."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def leader_first() -> Iterator[Group]:
    """The leader goes through the block alone, the others after it: they find what it made."""
    group = join_group()
    if not group.leads:
        group.wait()
    yield group
    if group.leads:
        group.wait()
