"""Runs a `FloatGraph` one operator at a time, so that algorithms can look at and change what flows between.

Each operator is a one-node ONNX Runtime session whose weights are inputs: every operator that ONNX Runtime has
works, and a changed weight needs no new session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from edgewright.errors import ConversionError
from edgewright_converters.entry_point import one_line
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.stack import node_line

Array = NDArray[Any]
T = TypeVar("T")
R = TypeVar("R")
WORKERS = 2
"""Samples in flight at once. Every session has one thread: the pools of a hundred sessions would spin against
each other (measured: 20 times slower)."""


def side_by_side(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`map` with `WORKERS` items at a time, in order, never more of them in memory."""
    source = iter(items)
    with ThreadPoolExecutor(WORKERS) as pool:
        while batch := list(islice(source, WORKERS)):
            yield from pool.map(work, batch)


@dataclass(frozen=True)
class Step:
    """One operator, ready to run, and the tensors that nothing needs after it."""

    node: onnx.NodeProto
    session: ort.InferenceSession
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    done: tuple[str, ...]

    def run(self, tensors: Mapping[str, Array], weights: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name; inputs are looked up among the live tensors, then the weights."""
        feeds = {name: tensors[name] if name in tensors else weights[name] for name in self.inputs}
        try:
            made = self.session.run(None, feeds)
        except Exception as error:
            place = f" ({line})" if (line := node_line(self.node)) else ""
            node = f"{self.node.op_type} of node '{self.node.name}'{place}"
            taken = [tuple(argument.shape) for argument in self.session.get_inputs()]
            given = [feed.shape for feed in feeds.values()]
            if taken == given:
                raise ConversionError(f"{node} cannot be run ({one_line(error)})") from error
            raise ConversionError(
                f"a shape depends on the data: {node} takes {taken} for one sample, {given} for another",
                remedy="compute it after the model, from what that returns (non-zero elements, unique values, "
                "boxes that are left), or ask for --precision int8-dynamic and --format onnx",
            ) from error
        return dict(zip(self.outputs, made, strict=True))


@dataclass(frozen=True)
class Execution:
    """A graph as a list of steps. Building one costs about a millisecond an operator."""

    graph: FloatGraph

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Built once, by running the graph on noughts: each session must know the dtypes of its inputs.

        Raises `ConversionError` for control flow: what its branches compute has no range before it runs.
        """
        for node in self.graph.nodes:
            if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
                place = f" ({line})" if (line := node_line(node)) else ""
                problem = (
                    f"{node.op_type} of node '{node.name}'{place} is control flow, which cannot be calibrated"
                )
                raise ConversionError(problem, remedy="unroll the loop, or export with the branch fixed")
        constant = [name for name in self.graph.output_names if name in self.graph.weights]
        if constant:
            problem = f"its output '{constant[0]}' is the same whatever its inputs are"
            raise ConversionError(problem, remedy="return what depends on an input")
        done = self._done()
        live: dict[str, Array] = {
            spec.runtime_name: np.zeros(spec.shape, spec.dtype) for spec in self.graph.inputs
        }
        steps = []
        for index, node in enumerate(self.graph.nodes):
            step = _step(self.graph, node, {**self.graph.weights, **live}, done.get(index, ()))
            live.update(step.run(live, self.graph.weights))
            steps.append(step)
            for name in step.done:
                live.pop(name, None)
        return tuple(steps)

    def run(
        self,
        inputs: Mapping[str, Array],
        visit: Callable[[str, Array], Array | None],
        weights: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        """Run one sample; `visit` sees every tensor as it is made, and what it returns takes its place.

        Returns the graph's outputs by their names in the graph.
        """
        live: dict[str, Array] = {}

        def keep(name: str, value: Array) -> None:
            changed = visit(name, value)
            live[name] = value if changed is None else changed

        for name, value in inputs.items():
            keep(name, value)
        for step in self.steps:
            for name, value in step.run(live, weights or self.graph.weights).items():
                keep(name, value)
            for name in step.done:
                live.pop(name, None)
        return {name: live[name] for name in self.graph.output_names}

    def _done(self) -> dict[int, tuple[str, ...]]:
        """The tensors that are last used by each step, by its index."""
        last = {
            name: index
            for index, node in enumerate(self.graph.nodes)
            for name in (*node.input, *node.output)
            if name not in self.graph.weights
        }
        done: dict[int, tuple[str, ...]] = {}
        for name, index in last.items():
            if name not in self.graph.output_names:
                done[index] = (*done.get(index, ()), name)
        return done


def _step(
    graph: FloatGraph, node: onnx.NodeProto, tensors: Mapping[str, Array], done: tuple[str, ...]
) -> Step:
    inputs = tuple(dict.fromkeys(name for name in node.input if name))
    outputs = tuple(name for name in node.output if name)
    values_in = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(tensors[name].dtype), tensors[name].shape
        )
        for name in inputs
    ]
    model = helper.make_model(
        helper.make_graph([node], "node", values_in, [onnx.ValueInfoProto(name=name) for name in outputs]),
        opset_imports=graph.proto.opset_import,
        ir_version=graph.proto.ir_version,
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # A hundred arenas would each keep the most that their operator ever took.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Step(node, session, inputs, outputs, done)
