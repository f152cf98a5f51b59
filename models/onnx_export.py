"""Export of the trees to ONNX, so that float32 features take the same path as in LightGBM."""

import re

import lightgbm as lgb
import numpy as np
import onnx
from numpy.typing import NDArray
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from models.model import INPUT, OUTPUT
from state.contract import N_FEATURES


def to_onnx(booster: lgb.Booster) -> bytes:
    """ONNX model of a binary booster over N_FEATURES numeric features.

    Input f4 [n, N_FEATURES], output f4 [n, 1], the uncalibrated probability; NaN as LightGBM takes it. The
    trees are exported as a regressor with a logistic function behind it: a classifier would add labels and
    a dictionary to every row.
    """
    text = _thresholds_in_float32(booster.model_to_string())
    text, n = re.subn(r"^objective=binary.*$", "objective=regression", text, flags=re.MULTILINE)
    if n != 1:
        raise ValueError("the booster's objective is not binary")
    converted = convert_lightgbm(
        lgb.Booster(model_str=text), initial_types=[(INPUT, FloatTensorType([None, N_FEATURES]))]
    )
    (trees,) = (node for node in converted.graph.node if node.op_type == "TreeEnsembleRegressor")
    trees.output[:] = ["log_odds"]
    logistic = onnx.helper.make_node("Sigmoid", ["log_odds"], [OUTPUT], name="logistic")
    graph = onnx.helper.make_graph(
        [trees, logistic],
        "trees",
        [onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, [None, N_FEATURES])],
        [onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, [None, 1])],
    )
    opsets = [onnx.helper.make_opsetid("", 15), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    model = onnx.helper.make_model(graph, producer_name="fraudstream", opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def rounded_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 not above each threshold t, of the same shape.

    For a float32 x, x <= t holds for a float64 t exactly if it holds for that float32; ONNX would round to
    the nearest.
    """
    nearest = thresholds.astype(np.float32)
    return np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _thresholds_in_float32(text: str) -> str:
    """The model text with each threshold rounded down to float32."""
    # The sizes of the trees' texts change; without them LightGBM reads one tree after the other.
    text = re.sub(r"^tree_sizes=.*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^threshold=(.+)$", _rounded_down, text, flags=re.MULTILINE)


def _rounded_down(line: re.Match[str]) -> str:
    below = rounded_down(np.array(line[1].split(), np.float64))
    return "threshold=" + " ".join(repr(float(value)) for value in below)
