"""A policy as an ONNX graph: observation `[N, O]` in, action `[N, A]` out, all scaling inside."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.errors import CorruptError, InputError
from mopo_cli.policy.weights import Weights
from mopo_cli.store.files import check_file

# Both are read by every onnxruntime since 1.12.
_OPSET, _IR_VERSION = 13, 8


def require_onnx(what: str, *packages: str) -> None:
    """InputError, with how to install them, where packages are missing; ``what`` begins the sentence."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise InputError(f"{what} needs {' and '.join(missing)}.", hint=f"pip install {' '.join(missing)}")


def write_onnx(path: Path, weights: Weights, texts: dict[str, str]) -> None:
    """Write the graph and ``texts`` as its metadata.

    The observation is float32, or float64 where an offset is taken off: float32 would not hold it.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, values: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def apply(operation: str, *inputs: str, name: str = "", **settings: Any) -> str:
        name = name or f"{operation.lower()}{len(nodes)}"
        nodes.append(helper.make_node(operation, list(inputs), [name], **settings))
        return name

    x, exact = "observation", bool(weights.offset.any())
    if exact:
        x = apply("Cast", apply("Sub", x, constant("offset", weights.offset)), to=TensorProto.FLOAT)
    count, means = len(weights.layers), []
    for m in range(len(weights.layers[0][0])):
        value = x
        for i, (weight, bias) in enumerate(weights.layers):
            value = apply("Gemm", value, constant(f"w{i}_{m}", weight[m]), constant(f"b{i}_{m}", bias[m, 0]))
            value = apply("Relu" if i < count - 1 else "Tanh", value)
        means.append(value)
    mean = apply("Mean", *means) if len(means) > 1 else means[0]
    low, high = constant("low", weights.low), constant("high", weights.high)
    one, half = constant("one", np.ones(1, np.float32)), constant("half", (weights.high - weights.low) / 2)
    action = apply("Add", low, apply("Mul", apply("Add", mean, one), half))
    apply("Min", apply("Max", action, low), high, name="action")

    kind = TensorProto.DOUBLE if exact else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("observation", kind, ["N", len(weights.offset)])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["N", len(weights.low)])],
        constants,
    )
    model = helper.make_model(
        graph, producer_name="mopo", ir_version=_IR_VERSION, opset_imports=[helper.make_opsetid("", _OPSET)]
    )
    helper.set_model_props(model, texts)
    path.write_bytes(model.SerializeToString(deterministic=True))


def read_onnx(path: Path) -> tuple[Callable[[NDArray[np.float64]], NDArray[Any]], dict[str, str]]:
    """The graph in a file from `write_onnx` as a function, `[N, O]` to `[N, A]`, and the file's metadata.

    InputError where onnxruntime or the file is missing, CorruptError where onnxruntime cannot read it.
    """
    check_file(path)
    require_onnx(f"To run {path}, mopo", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more take longer to wake than these networks to compute
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen errors for what is wrong with a file
        raise CorruptError(f"{path} is damaged or not an ONNX file ({str(error).splitlines()[0][:200]}).") from error
    kinds = {entry.name: entry.type for entry in session.get_inputs()}
    kind = np.float64 if kinds.get("observation") == "tensor(double)" else np.float32

    def act(observation: NDArray[np.float64]) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            stored = observation.astype(kind)
        actions: NDArray[Any] = session.run(["action"], {"observation": stored})[0]
        return actions

    return act, dict(session.get_modelmeta().custom_metadata_map)
