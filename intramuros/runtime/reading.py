"""Forward passes over a batch of sequences whose state can be forked, with OpenVINO.

The model that `openvino_genai` saves from a GGUF keeps its keys and values inside. Here it is cut
before the output matrix and gives the last hidden state of each sequence; logits are made for the
few tokens that are compared. Does not write text, and is not safe for two threads at once.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino
import openvino.opset13 as operation
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Floats = NDArray[np.float32]

COLUMNS = 1024
"""Tokens of a sequence read in one pass; a longer text is read in several."""

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
"""With OpenVINO's own choice, keys and values in 8 bits, an answer depends on its batch."""


class State(NamedTuple):
    """What a batch of sequences has read; `mask` has a row for each, 0 where it was padded."""

    mask: Numbers
    tensors: list[Any]


NOTHING = State(np.zeros((1, 0), np.int64), [])
"""One sequence that has read nothing."""


class Reader:
    """A batch of sequences, each of which may be extended, forked or dropped."""

    def __init__(self, folder: Path, threads: int) -> None:
        core = openvino.Core()
        model = core.read_model(folder / "openvino_model.xml")
        columns = _output_columns(model)
        _cut(model)
        hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", **EXACT}
        if threads:
            hints["INFERENCE_NUM_THREADS"] = threads
        self._request = core.compile_model(model, "CPU", hints).create_infer_request()
        self._columns = core.compile_model(columns, "CPU", hints).create_infer_request()
        self._variables = self._request.query_state()
        self._mask = NOTHING.mask
        self.weights = lru_cache(256)(self._weights)

    def keep(self) -> State:
        """A copy of what the sequences have read, to return to."""
        copies = [openvino.Tensor(np.array(v.state.data)) for v in self._variables]
        return State(self._mask, copies)

    def restore(self, state: State) -> None:
        """Return to what the sequences had read before; NOTHING forgets everything."""
        if not state.tensors:
            self._request.reset_state()
        for variable, tensor in zip(self._variables, state.tensors, strict=False):
            variable.state = tensor
        self._mask = state.mask

    @property
    def length(self) -> int:
        """Tokens that each sequence holds, padding included."""
        return int(self._mask.shape[1])

    def mark(self) -> Numbers:
        """Where the sequences stand, to hide later what they read from here."""
        return self._mask

    def hide(self, mark: Numbers) -> None:
        """Hide what the sequences read since `mark`, if none was forked; it is not copied."""
        width = self.length - mark.shape[1]
        self._mask = np.concatenate([mark, np.zeros((len(mark), width), np.int64)], axis=1)

    def extend(self, parents: Sequence[int], texts: Sequence[Sequence[int]]) -> Floats:
        """Make each text the continuation of a sequence; gives the hidden state behind each.

        `parents` are numbers of present sequences, which may occur often or not at all. The new
        sequences are as many as `texts`, in their order.
        """
        beam = np.array(parents, np.int32)
        lengths = np.array([len(text) for text in texts], np.int64)
        width = int(lengths.max())
        tokens = np.zeros((len(texts), width), np.int64)
        for row, text in enumerate(texts):
            tokens[row, : len(text)] = text
        mask = (np.arange(width) < lengths[:, None]).astype(np.int64)
        if not self._mask.shape[1]:
            beam = np.arange(len(texts), dtype=np.int32)
        read = self._mask[np.array(parents)]
        before = read.sum(axis=1, keepdims=True)
        hidden: Floats = np.zeros((len(texts), 0), np.float32)
        for start in range(0, width, COLUMNS):
            part = slice(start, min(start + COLUMNS, width))
            read = np.concatenate([read, mask[:, part]], axis=1)
            last = np.clip(lengths - 1 - start, 0, part.stop - start - 1)
            self._request.infer(
                {
                    "input_ids": tokens[:, part],
                    "attention_mask": read,
                    "position_ids": before + np.arange(part.start, part.stop),
                    "beam_idx": beam,
                    "last": last,
                }
            )
            found = np.array(self._request.get_output_tensor(0).data).reshape(len(texts), -1)
            hidden = found if start == 0 else np.where((lengths > start)[:, None], found, hidden)
            beam = np.arange(len(texts), dtype=np.int32)
        self._mask = read
        return hidden

    def _weights(self, tokens: tuple[int, ...]) -> Floats:
        """The columns of the output matrix that give the logits of `tokens`."""
        self._columns.infer({"tokens": np.array(tokens, np.int64)})
        return np.array(self._columns.get_output_tensor(0).data)


def _output_columns(model: Any) -> Any:
    """A model that picks columns of the output matrix, which stays compressed."""
    matrix = _product(model).input(1).get_source_output()
    tokens = operation.parameter([-1], openvino.Type.i64, name="tokens")
    picked = operation.gather(matrix, tokens, operation.constant(np.int64(0)))
    return openvino.Model([picked], [tokens], "columns").clone()


def _cut(model: Any) -> None:
    """End the model at the last hidden state of each sequence's position `last`.

    The last block is cut before its feed-forward part, if it is built as expected, which saves that
    part for every position but one.
    """
    last = operation.parameter([-1], openvino.Type.i64, name="last")
    last.output(0).tensor.set_names({"last"})
    position = operation.unsqueeze(last, operation.constant(np.int64(1)))
    product = _product(model)
    for place in _last_attention(product) or [product.input(0)]:
        one = operation.gather(
            place.get_source_output(), position, operation.constant(np.int64(1)), batch_dims=1
        )
        place.replace_source_output(one.output(0))
    hidden = product.input(0).get_source_output()
    result = operation.result(hidden.node)
    model.remove_result(model.get_results()[0])
    model.add_results([result])
    model.add_parameters([last])
    model.validate_nodes_and_infer_types()


def _product(model: Any) -> Any:
    """The product with the output matrix, the last node of the model."""
    return model.get_results()[0].input(0).get_source_output().node


def _last_attention(product: Any) -> list[Any]:
    """Inputs where the last block's residual and attention meet; nothing if they are not found."""
    node = product.input(0).get_source_output().node
    while node.get_type_name() == "Multiply":  # normalisation: the state itself is the first input
        node = node.input(0).get_source_output().node
    sums = [node]
    for _ in range(2):
        if sums[-1].get_type_name() != "Add":
            return []
        sums.append(sums[-1].input(0).get_source_output().node)
    residual = sums[1]
    attended = residual.input(1).get_source_output().node
    if attended.get_type_name() != "MatMul":
        return []
    return [residual.input(0), attended.input(0)]
