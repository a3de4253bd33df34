"""A TensorFlow SavedModel as a layer, stored within the `.keras` file of its model."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any

import keras
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from l2p_tf.types import UserError

_PROGRAM = "saved_model.pb"
_SEED = "seed_generator_state"
_REFUSED = frozenset({
    "PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles", "WholeFileReader",
    "WholeFileReaderV2", "TextLineReader", "TextLineReaderV2", "TextLineDataset", "TFRecordDataset", "TFRecordReader",
    "TFRecordReaderV2", "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "FixedLengthRecordReader",
    "FixedLengthRecordReaderV2", "SaveDataset", "SaveDatasetV2", "LoadDataset", "LookupTableImportV2", "RpcCall",
    "RpcClient", "RpcServer",
})  # fmt: skip
"""Operations that access files, Python or other machines."""


_LOOPS = {"While", "StatelessWhile"}


@keras.saving.register_keras_serializable(package="l2p_tf")
class SavedModelLayer(keras.layers.Layer):
    """One signature of a SavedModel: maps a tensor to one of its outputs. The original folder is not needed afterward.

    A SavedModel is a TensorFlow program. Only its graph operations run when the layer is called; it is refused if any
    of them reads or writes files or calls Python. If it uses Keras's seed generators, the layer adopts them, so its
    noise is seeded like that of any layer. It behaves the same in training.

    Args:
      output_shape: shape of the output, without the batch axis.
      signature: name of the signature.
      output: name of its output.
      digest: digest of all files, verified on load.
    """

    def __init__(
        self, output_shape: tuple[int | None, ...], signature: str, output: str, digest: str = "", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.outputs_shape, self.signature, self.output_name = tuple(output_shape), signature, output
        self.digest = digest
        self.built = True

    @classmethod
    def open(cls, folder: pathlib.Path, signature: str, output: str, **kwargs: Any) -> SavedModelLayer:
        """Loads the layer from a folder that holds a SavedModel.

        Raises:
          UserError: the folder has no usable SavedModel.
        """
        function = signature_of(load(folder), signature)
        layer = cls(tuple(function.structured_outputs[output].shape[1:]), signature, output, **kwargs)
        layer.load_assets(str(folder))
        return layer

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the signature's output."""
        (spec,) = self._function.structured_input_signature[1].values()
        outputs = self._run(tf.cast(inputs, spec.dtype))
        return tf.nest.flatten(outputs)[sorted(self._function.structured_outputs).index(self.output_name)]

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Returns (batch, *output_shape)."""
        return (input_shape[0], *self.outputs_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {"signature": self.signature, "output": self.output_name, "digest": self.digest}
        return {**super().get_config(), "output_shape": self.outputs_shape, **own}

    def save_own_variables(self, store: Any) -> None:
        """Does nothing: the variables are in the SavedModel."""

    def load_own_variables(self, store: Any) -> None:
        """Does nothing: the variables are in the SavedModel."""

    def save_assets(self, folder: str) -> None:
        """Writes the SavedModel unchanged."""
        for name, content in self.__dict__["_files"].items():
            file = pathlib.Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    def load_assets(self, folder: str) -> None:
        """Loads the SavedModel after verifying its digest.

        Raises:
          UserError: the digest differs, or the SavedModel cannot be used.
        """
        files = files_of(pathlib.Path(folder))
        digest = digest_of(files)
        if self.digest not in ("", digest):
            raise UserError(f"the SavedModel in layer {self.name!r} should be that of its digest, but is damaged")
        self.digest = digest
        loaded = load(pathlib.Path(folder))
        function = signature_of(loaded, self.signature)
        (spec,) = function.structured_input_signature[1].values()
        # Set in the instance's dictionary, because Keras and TensorFlow would track attributes.
        run = _frozen(function) or (lambda x: function(**{spec.name: x}))
        own = {"_files": files, "_loaded": loaded, "_function": function, "_run": run}
        for name, value in own.items():
            self.__dict__[name] = value
        self._tracker.unlock()
        for variable in function.variables:
            self._adopt(variable)
        self._tracker.lock()

    def _adopt(self, variable: tf.Variable) -> None:
        """Makes a variable of the SavedModel one of the layer's."""
        path, dtype = variable.name.split(":")[0].replace("/", "_"), variable.dtype.name
        is_seed = path.endswith(_SEED) and dtype == "int64" and variable.shape == (2,)
        adopted = keras.Variable(
            initializer=variable, shape=variable.shape, dtype=dtype, trainable=variable.trainable and not is_seed,
            name="seed" if is_seed else path,
        )  # fmt: skip
        self._track_variable(adopted)
        if is_seed:
            self._seed_generators.append(_Seed(adopted))


class _Seed:
    """A seed generator of the SavedModel, wrapping the variable of its state."""

    def __init__(self, state: keras.Variable) -> None:
        self.state = state


def load(folder: pathlib.Path) -> Any:
    """Loads the SavedModel in a folder.

    Raises:
      UserError: it is missing or damaged, or its operations access anything outside the graph.
    """
    wanted = f"{str(folder)!r} should be the folder of a TensorFlow SavedModel"
    try:
        program = saved_model_pb2.SavedModel.FromString((folder / _PROGRAM).read_bytes())
    except (OSError, DecodeError) as error:
        raise UserError(f"{wanted}: {error}") from error
    refused = sorted(_REFUSED & _operations(program))
    if refused:
        raise UserError(f"{wanted} that answers by itself. Its operations reach beyond it: {', '.join(refused)}")
    try:
        return tf.saved_model.load(str(folder))
    except Exception as error:
        # A third-party program may raise anything.
        raise UserError(f"{wanted}: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error


def signature_of(loaded: Any, name: str) -> Any:
    """Returns a signature that takes one tensor.

    Raises:
      UserError: there is no such signature, or it takes several inputs.
    """
    if name not in loaded.signatures:
        known = ", ".join(loaded.signatures) or "none"
        raise UserError(f"The SavedModel should have the signature {name!r}. Its signatures: {known}")
    function = loaded.signatures[name]
    inputs = function.structured_input_signature[1]
    if len(inputs) != 1:
        raise UserError(
            f"The SavedModel should take images alone. Received: {len(inputs)} inputs ({', '.join(inputs)})"
        )
    return function


def _frozen(function: Any) -> Any:
    """Freezes the variables of a signature that has loops and assigns nothing; returns None otherwise.

    TensorFlow cannot differentiate a loaded loop that reads variables.
    """
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for part in graph.library.function for node in part.node_def)]
    kinds = {node.op for node in nodes}
    if not kinds & _LOOPS or any("Assign" in kind for kind in kinds):
        return None
    return convert_variables_to_constants_v2(function, lower_control_flow=False)


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    """Returns the files of a folder by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def digest_of(files: dict[str, bytes]) -> str:
    """SHA-256 of names and contents, as hex."""
    sums = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def _operations(program: saved_model_pb2.SavedModel) -> set[str]:
    graphs = [meta.graph_def for meta in program.meta_graphs]
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for graph in graphs for function in graph.library.function for node in function.node_def]
    return {node.op for node in nodes}
