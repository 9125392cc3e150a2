"""Every kernel test runs on each instruction set that this processor has."""

from collections.abc import Iterator

import pytest

from kernels import _native


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    name: str = request.param
    if not _native.has_isa(name):
        pytest.skip(f"this processor or build has no {name}")
    before = _native.isa()
    _native.use_isa(name)
    yield name
    _native.use_isa(before)
