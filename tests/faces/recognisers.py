"""ONNX files of recognisers, right and wrong: tiny ones of our making, and the user's own with something changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bcd_bench_faces.recognition.recogniser import PEOPLE, check_crops

POOL = 8
Change = Callable[[onnx.GraphProto], None]


def tiny(path: Path, *, wants: str = "-1 to 1", padding: int = 0, constant: bool = False) -> Path:
    """A network that knows the people of the stored crops: their pooled pixels to a vector of each one's own.

    It was made for pixels scaled as `wants` says; "0 to 255" scales by itself, after `padding` nodes that do nothing.
    """
    crops = check_crops().reshape(-1, 112, 112, 3).astype(np.float64) / 127.5 - 1
    pooled = crops.reshape(len(crops), 112 // POOL, POOL, 112 // POOL, POOL, 3).mean(axis=(2, 4))
    pixels = pooled.transpose(0, 3, 1, 2).reshape(len(crops), -1)
    centre = pixels.mean(axis=0)
    weights = np.linalg.pinv(pixels - centre) @ np.repeat(np.eye(PEOPLE), 2, axis=0)
    bias = np.ones(PEOPLE) if constant else -centre @ weights
    weights = np.zeros_like(weights) if constant else weights
    numbers = {"weights": weights, "bias": bias, "shift": np.array(127.5), "scale": np.array(1 / 127.5)}
    nodes = [helper.make_node("Identity", ["data" if i == 0 else f"same{i}"], [f"same{i + 1}"]) for i in range(padding)]
    last = f"same{padding}" if padding else "data"
    if wants == "0 to 255":
        nodes.append(helper.make_node("Sub", [last, "shift"], ["shifted"], name="Sub0"))
        nodes.append(helper.make_node("Mul", ["shifted", "scale"], ["scaled"], name="Mul0"))
        last = "scaled"
    nodes += [
        helper.make_node("AveragePool", [last], ["pooled"], kernel_shape=[POOL, POOL], strides=[POOL, POOL]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, PEOPLE])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in numbers.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(path))
    return path


def changed(source: Path, path: Path, *changes: Change) -> Path:
    """A copy of a network with something changed."""
    model = onnx.load(str(source))
    for change in changes:
        change(model.graph)
    onnx.save(model, str(path))
    return path


def random_weights(graph: onnx.GraphProto) -> None:
    """As a network is before it is trained (He et al. 2015)."""
    rng = np.random.default_rng(0)
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.ndim >= 2:
            drawn = rng.normal(0, np.sqrt(2 / np.prod(value.shape[1:])), value.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(drawn, tensor.name))


def scaled_input(factor: float, shift: float) -> Change:
    """The network sees factor * x + shift in place of x, by nodes whose names insightface does not look for."""

    def change(graph: onnx.GraphProto) -> None:
        _arithmetic(graph, graph.input[0].name, [("Mul", factor), ("Add", shift)], front=True)

    return change


def constant_output(graph: onnx.GraphProto) -> None:
    """Every face gets one vector."""
    _arithmetic(graph, graph.output[0].name, [("Mul", 0.0), ("Add", 1.0)], front=False)


def upside_down(graph: onnx.GraphProto) -> None:
    """The network sees the crop with its rows from the bottom to the top."""
    _put_first(graph, "Slice", [np.array([x]) for x in (111, -113, 2, -1)])


def red_for_blue(graph: onnx.GraphProto) -> None:
    """The network sees BGR."""
    _put_first(graph, "Slice", [np.array([x]) for x in (2, -4, 1, -1)])


def _put_first(graph: onnx.GraphProto, kind: str, given: Sequence[npt.NDArray[np.int64]]) -> None:
    name = graph.input[0].name
    for node in graph.node:
        node.input[:] = ["turned" if one == name else one for one in node.input]
    names = [f"turned-{index}" for index in range(len(given))]
    graph.initializer.extend(numpy_helper.from_array(x, n) for x, n in zip(given, names, strict=True))
    graph.node.insert(0, helper.make_node(kind, [name, *names], ["turned"], name="turn"))


def _arithmetic(graph: onnx.GraphProto, name: str, steps: Sequence[tuple[str, float]], *, front: bool) -> None:
    made, last = [], name if front else "before"
    for index, (kind, number) in enumerate(steps):
        graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), f"number{index}"))
        out = name if not front and index == len(steps) - 1 else f"stepped{index}"
        made.append(helper.make_node(kind, [last, f"number{index}"], [out], name=f"step{index}"))
        last = out
    for node in graph.node:
        if front:
            node.input[:] = [last if one == name else one for one in node.input]
        else:
            node.output[:] = ["before" if one == name else one for one in node.output]
    for place, node in enumerate(made):
        graph.node.insert(place if front else len(graph.node), node)
