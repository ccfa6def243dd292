"""Writes a net as ONNX, for any number of images at once: input `images`, output `logits`.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rootstock.common.errors import ConfigurationError, MissingExtraError
from rootstock.coordinator.export.tracing import Run, traced

try:
    import onnx  # noqa: F401  # torch's exporter writes with these two
    import onnxruntime
    import onnxscript  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"format onnx needs the export extra ({error.name} is not installed); run: "
        "pip install 'rootstock-federation[export]', or take --format torch or safetensors"
    ) from error

MAX_BYTES = 2_000_000_000
"""The most that weights may have: an ONNX file is one protobuf message, of less than 2 GiB."""


def convert(net: nn.Module, example_NCHW: Tensor) -> bytes:
    """Return an ONNX file's bytes."""
    program = torch.onnx.export(
        traced(net, example_NCHW),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None  # noqa: S101  # it is only where a file is given
    data: bytes = program.model_proto.SerializeToString()
    return data


def require_room(net: nn.Module) -> None:
    """Refuse a net that is too large for a file, before an hour of work."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())
    if size > MAX_BYTES:
        raise ConfigurationError(
            f"format onnx cannot hold {size} bytes of weights, the limit is {MAX_BYTES}; export as "
            "safetensors or torch"
        )


def opened(data: bytes) -> Run:
    """Return how to run what `convert` gave."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(images_NCHW: Tensor) -> Tensor:
        (output,) = session.run(["logits"], {"images": images_NCHW.numpy()})
        return torch.from_numpy(output)

    return run
