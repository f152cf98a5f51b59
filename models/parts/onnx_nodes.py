"""An ONNX model put together node by node."""

from typing import Any

import onnx
from numpy.typing import NDArray

from models.model import INPUT, OUTPUT
from state.contract import N_FEATURES

OPSETS = {"": 15, "ai.onnx.ml": 3}
IR_VERSION = 8


class Nodes:
    """Nodes on the way from `features` to `raw_score`, each known by the name of its value."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str | NDArray[Any], domain: str = "", **attributes: Any) -> str:
        """The value of one more node; arrays among its inputs become constants, "" stands for none."""
        name = f"{op.lower()}_{len(self._nodes)}"
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        outputs = ["", name] if op == "GRU" else [name]  # all states, then the last one, which is wanted
        self._nodes.append(onnx.helper.make_node(op, names, outputs, name, domain=domain, **attributes))
        return name

    def model(self, score: str) -> bytes:
        """The model that gives the value `score`, f4 [n, 1]."""
        result = onnx.helper.make_node("Identity", [score], [OUTPUT], OUTPUT)
        number = onnx.TensorProto.FLOAT
        graph = onnx.helper.make_graph(
            [*self._nodes, result],
            "part",
            [onnx.helper.make_tensor_value_info(INPUT, number, [None, N_FEATURES])],
            [onnx.helper.make_tensor_value_info(OUTPUT, number, [None, 1])],
            self._constants,
        )
        opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        model = onnx.helper.make_model(
            graph, producer_name="fraudstream", opset_imports=opsets, ir_version=IR_VERSION
        )
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString()
        return data

    def _constant(self, value: NDArray[Any]) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(onnx.numpy_helper.from_array(value, name))
        return name
