"""Three engines at batch 1 beside torch eager and OpenVINO's own loop."""

from __future__ import annotations

import numpy as np

from benchmarks.harness import Report
from engines import Precision, Target, bundle
from engines.bundle import MODEL_FILES
from engines.openvino import OpenVinoEngines
from kernels import IMAGE_SIDE


def bench_engines() -> Report:
    """int8, bf16 and f32 against eager float32."""
    import openvino as ov
    import torch

    from engines.models import ROLES, build

    report = Report("three engines, batch 1")
    starter = bundle.load(bundle.find("starter"))
    rng = np.random.default_rng(0)
    images = [rng.random((IMAGE_SIDE, IMAGE_SIDE), np.float32) for _ in range(8)]
    ours = {}
    for precision in Target.OPENVINO.precisions:
        engines = OpenVinoEngines(starter, precision=precision)
        ours[precision] = report.time(f"OpenVINO {precision}", lambda i, e=engines: e.infer(images[i % 8]))  # type: ignore[misc]

    models = [build(role).eval() for role in ROLES]
    tensors = [torch.from_numpy(image)[None, None] for image in images]

    def eager(i: int) -> None:
        with torch.no_grad():
            for model in models:
                model(tensors[i % 8])

    eager_ms = report.time("torch eager float32", eager, samples=10)

    core = ov.Core()
    requests = []
    for file in MODEL_FILES.values():
        model = core.read_model(starter.folder / file)
        model.reshape({model.input(0): [1, 1, IMAGE_SIDE, IMAGE_SIDE]})
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        requests.append(core.compile_model(model, "CPU", config).create_infer_request())
    for request in requests:
        request.get_input_tensor().data[:] = images[0]

    def bare(_i: int) -> None:
        for request in requests:
            request.infer()

    bare_ms = report.time("bare OpenVINO requests, one after another", bare)
    report.ratio("torch eager / int8 engines (goal >= 5)", eager_ms / ours[Precision.INT8])
    report.ratio("bare OpenVINO / int8 engines (goal >= 0.95)", bare_ms / ours[Precision.INT8])
    return report
