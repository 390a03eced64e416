"""Files of graphs in three formats: how they are written, and how they are run on the processor.

All three are made from one trace, so that they compute the same. A file has the graph's metadata inside: a JSON document
under the name ``kplab``.
"""

from __future__ import annotations

import json
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from kplab.errors import ConfigError, RunError
from kplab.export.graphs import ViewGraph

#: Format to the suffix of its main file.
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".pt"}
#: Precisions of OpenVINO by their names here; ``default`` leaves the choice to OpenVINO.
PRECISIONS = {"f32": "f32", "bf16": "bf16", "f16": "f16", "default": None}
OPSET = 18
#: Name of the metadata in a file.
METADATA = "kplab"

Arrays = dict[str, np.ndarray]


class Session(ABC):
    """A file that is loaded and ready to compute.

    Attributes:
        metadata: of the file.
    """

    metadata: dict[str, Any]

    @abstractmethod
    def run(self, **inputs: np.ndarray) -> Arrays:
        """The outputs by name."""


def files_of(path: Path) -> list[Path]:
    """All files of a graph by its main one: OpenVINO has the weights beside it."""
    return [path, path.with_suffix(".bin")] if path.suffix == SUFFIXES["openvino"] else [path]


def write(graph: ViewGraph, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a graph in the format that the suffix of the path names.

    Args:
        graph: the module.
        path: of the main file.
        metadata: values that JSON can state.
    """
    example = tuple(graph.example().values())
    with torch.no_grad():
        names = list(graph(*example))
    stated = {METADATA: json.dumps({**metadata, "inputs": list(graph.example()), "outputs": names})}
    if path.suffix == SUFFIXES["torchscript"]:
        with quiet(), torch.no_grad():
            traced = torch.jit.trace(graph, example, strict=False, check_trace=False)
            torch.jit.save(traced, str(path), _extra_files=stated)
        return
    content = onnx_bytes(graph, names)
    if path.suffix == SUFFIXES["onnx"]:
        import onnx

        model = onnx.load_from_string(content)
        onnx.helper.set_model_props(model, stated)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return
    import openvino

    converted = openvino.Core().read_model(content)
    converted.set_rt_info(stated[METADATA], METADATA)
    openvino.save_model(converted, path, compress_to_fp16=False)


def onnx_bytes(graph: ViewGraph, names: list[str]) -> bytes:
    """The graph as ONNX.

    It is traced, because torch's other exporter takes ten times as long, and the TorchScript file needs the trace.
    """
    example = graph.example()
    with quiet(), torch.no_grad(), TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            graph,
            tuple(example.values()),
            path,
            input_names=list(example),
            output_names=names,
            dynamic_axes={"images": {1: "height", 2: "width"}},
            opset_version=OPSET,
            dynamo=False,
        )
        return path.read_bytes()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of a trace about sizes that it records, as those of a view don't change, and about its future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def load(path: Path) -> Session:
    """Load a file that ``write`` has written.

    Raises:
        RunError: it can't be read.
        ConfigError: a package is missing, or the runtime does not compute with the precision that the file states.
    """
    kinds: dict[str, type[Session]] = {
        SUFFIXES["onnx"]: OnnxSession,
        SUFFIXES["openvino"]: OpenVinoSession,
        SUFFIXES["torchscript"]: TorchScriptSession,
    }
    try:
        return kinds[path.suffix](path)  # type: ignore[call-arg]
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed, which reads {path.name}. Run: pip install kplab[export]"
        ) from None
    except (ConfigError, RunError):
        raise
    except Exception as error:  # each runtime has errors of its own
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise RunError(f"{path}: can't be loaded ({reason}). Export the run again: kplab export.") from None


class OnnxSession(Session):
    """ONNX Runtime on the processor, with as many threads as torch has."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # warnings are about shapes that a trace has left open
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.metadata = json.loads(self.session.get_modelmeta().custom_metadata_map[METADATA])
        self.names = [output.name for output in self.session.get_outputs()]

    def run(self, **inputs: np.ndarray) -> Arrays:
        """The outputs by name."""
        return dict(zip(self.names, self.session.run(None, inputs), strict=True))


class OpenVinoSession(Session):
    """OpenVINO on the processor, with the precision that the file states and as many threads as torch has."""

    def __init__(self, path: Path) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        self.metadata = json.loads(str(model.get_rt_info(METADATA).value))
        hint = PRECISIONS[self.metadata["precision"]]
        options: dict[str, Any] = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
        if hint is not None:
            options["INFERENCE_PRECISION_HINT"] = hint
        self.compiled = core.compile_model(model, "CPU", options)
        #: of the computation, as OpenVINO states it
        self.precision: str = self.compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if hint is not None and self.precision != hint:
            raise ConfigError(
                f"{path.name} asks for precision {hint}, but OpenVINO computes with {self.precision} on this processor. "
                "Export again with precision=f32."
            )

    def run(self, **inputs: np.ndarray) -> Arrays:
        """The outputs by name."""
        found = self.compiled(inputs)
        return {name: found[name].copy() for name in self.metadata["outputs"]}


class TorchScriptSession(Session):
    """TorchScript on the processor. A file contains a program: load none of unknown origin."""

    def __init__(self, path: Path) -> None:
        extra = {METADATA: ""}
        with quiet():
            self.module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
        self.metadata = json.loads(extra[METADATA])

    def run(self, **inputs: np.ndarray) -> Arrays:
        """The outputs by name."""
        with torch.inference_mode():
            found = self.module(*(torch.from_numpy(np.ascontiguousarray(value)) for value in inputs.values()))
        return {name: value.numpy() for name, value in found.items()}
