"""A recording double of TensorRT's Python bindings, for tests. It proves wiring, and nothing else.

It has exactly the names that ``surface.json`` lists for one version: whatever else is asked for or
set is an AttributeError, as with the bindings themselves. Enumerators have other numbers in each
version. A "plan" is JSON with all that the builder was told; "running" it is one multiplication
by a matrix, between addresses in the memory of ``fake_libcuda.c``.

``TRT_DOUBLE`` names a JSON file: version, weights (K×M), layers, parser_errors, fail, and so on.
"""

import ctypes
import enum
import json
import os
from pathlib import Path

_SAYS = json.loads(Path(os.environ["TRT_DOUBLE"]).read_text())
_ROW = json.loads((Path(__file__).parents[2] / "surface.json").read_text())[_SAYS["version"]]
_NAMES = _ROW["names"]
__version__ = _SAYS.get("says_version", _ROW["version"])

_MAJOR = int(__version__.split(".")[0])
for _name in _NAMES:
    if _name.isidentifier() and _NAMES[_name] and all(m.isupper() for m in _NAMES[_name]):
        _pairs = [(m, i + _MAJOR % 5) for i, m in enumerate(_NAMES[_name])]
        globals()[_name] = enum.IntEnum(_name, _pairs)


class _Guarded:
    """Has the names of its class in the table, and no other."""

    def __getattribute__(self, name):
        _look_up(type(self), name)
        return object.__getattribute__(self, name)

    def __getattr__(self, name):
        _look_up(type(self), name)
        if name.startswith("_"):
            raise AttributeError(name)
        return None  # a value that nobody set

    def __setattr__(self, name, value):
        _look_up(type(self), name)
        object.__setattr__(self, name, value)


def _look_up(kind, name):
    if not name.startswith("_") and name not in _NAMES[kind.__name__]:
        raise AttributeError(f"{kind.__name__} has no {name} in {__version__}")


class ILogger:
    """The base of loggers."""

    Severity = Severity  # noqa: F821  # made from the table


def init_libnvinfer_plugins(logger, namespace):
    """Says one thing, so that logging is seen to work."""
    logger.log(Severity.INFO, "plugins are there")  # noqa: F821
    return True


class IHostMemory(bytes):
    """What a build gives."""


class ITimingCache(_Guarded):
    """Bytes that grow with each build."""

    def __init__(self, data):
        self._data = data

    def serialize(self):
        return IHostMemory(self._data)


class IOptimizationProfile(_Guarded):
    """Shapes of one input."""

    def __init__(self):
        self._shapes = {}

    def set_shape(self, name, least, usual, most):
        self._shapes[name] = [list(least), list(usual), list(most)]


class IBuilderConfig(_Guarded):
    """Everything that it is told, it keeps."""

    def __init__(self):
        self._told = {"set": [], "cleared": [], "pools": {}, "tactics": None, "preview": []}
        self._profiles, self._cache = [], None

    def set_flag(self, flag):
        self._told["set"].append(flag.name)

    def clear_flag(self, flag):
        self._told["cleared"].append(flag.name)

    def set_memory_pool_limit(self, pool, size):
        self._told["pools"][pool.name] = size

    def set_tactic_sources(self, mask):
        self._told["tactics"] = [s.name for s in TacticSource if mask >> int(s) & 1]  # noqa: F821

    def set_preview_feature(self, feature, on):
        self._told["preview"].append([feature.name, on])

    def add_optimization_profile(self, profile):
        self._profiles.append(profile._shapes)

    def create_timing_cache(self, data):
        return ITimingCache(bytes(data))

    def set_timing_cache(self, cache, ignore_mismatch):
        fits = not cache._data or cache._data.startswith(__version__.encode())
        if fits:
            self._cache = cache
        return fits

    def get_timing_cache(self):
        return self._cache

    def _everything(self):
        names = "builder_optimization_level default_device_type DLA_core profiling_verbosity"
        told = dict(self._told, profiles=self._profiles)
        for name in (*names.split(), "hardware_compatibility_level"):
            value = self.__dict__.get(name)
            told[name] = getattr(value, "name", value)
        return told


class ITensor(_Guarded):
    """An input of the network, or what a layer gives."""

    def __init__(self, name, shape=(), dtype="FLOAT"):
        self.name, self.shape, self.dtype = name, tuple(shape), DataType[dtype]  # noqa: F821


class ILayer(_Guarded):
    """A node of the network."""

    num_outputs = 1

    def __init__(self, name, taken, given, dtype="FLOAT"):
        self.name, self._told = name, []
        self._taken, self._given = [t and ITensor(t) for t in taken], ITensor(given, (), dtype)

    @property
    def num_inputs(self):
        return len(self._taken)

    def get_input(self, index):
        return self._taken[index]

    def get_output(self, index):
        return self._given

    def set_output_type(self, index, kind):
        self._told.append(kind.name)


class INetworkDefinition(_Guarded):
    """It has the inputs that the JSON file says."""

    def __init__(self, flags):
        self._flags = flags
        self._inputs = [ITensor("input", _SAYS.get("input", [-1, 1, 2, 2]))]
        # As the parsers of 8.5 and 10.1: of a node's layers one has its name.
        inner = [f"(Unnamed Layer* {index}) [Any]_output" for index in range(6)]
        self._layers = [
            ILayer("stem/Conv", ["input"], "stem"),
            ILayer("head/LogSoftmax", ["stem", None], inner[1]),
            ILayer("(Unnamed Layer* 2) [Shape]", [inner[1]], inner[2], "INT32"),
            ILayer("(Unnamed Layer* 3) [Constant]", [], inner[3]),
            ILayer("(Unnamed Layer* 4) [Unary]", [inner[1]], inner[4]),
            ILayer("(Unnamed Layer* 5) [Shuffle]", [inner[4], inner[2]], "scores"),
            ILayer("last/Relu", ["scores"], "logits"),
        ]

    @property
    def num_inputs(self):
        return len(self._inputs)

    def get_input(self, index):
        return self._inputs[index]

    @property
    def num_layers(self):
        return len(self._layers)

    def get_layer(self, index):
        return self._layers[index]


class ParserError(_Guarded):
    """As the JSON file says."""

    def __init__(self, index):
        self._index = index

    def node(self):
        return self._index

    def desc(self):
        return _SAYS["parser_errors"][self._index]

    def node_name(self):
        return f"features.{self._index}"

    def node_operator(self):
        return "Conv"


class OnnxParser(_Guarded):
    """Reads nothing, but wants the file to be there."""

    def __init__(self, network, logger):
        assert isinstance(network, INetworkDefinition)

    def parse_from_file(self, path):
        assert Path(path).stat().st_size
        return not _SAYS.get("parser_errors")

    @property
    def num_errors(self):
        return len(_SAYS["parser_errors"])

    def get_error(self, index):
        return ParserError(index)


class Builder(_Guarded):
    """Its plan is JSON with all that it was told."""

    def __init__(self, logger):
        if _SAYS.get("fail") == "start":
            # As 8.5 does: a warning, not an error.
            logger.log(Severity.WARNING, "CUDA initialization failure with error: 35")  # noqa: F821
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    @property
    def num_DLA_cores(self):  # noqa: N802  # TensorRT's name
        return _SAYS.get("dla_cores", 0)

    def create_network(self, flags=0):
        kinds = NetworkDefinitionCreationFlag  # noqa: F821
        return INetworkDefinition([k.name for k in kinds if flags >> int(k) & 1])

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        fail = _SAYS.get("fail", "")
        if fail.startswith("signal "):
            os.kill(os.getpid(), int(fail.split()[1]))
        if fail.startswith("say "):
            self._logger.log(Severity.ERROR, fail[4:])  # noqa: F821
            return None
        config._cache._data = __version__.encode() + b" measured " + config._cache._data[-40:]
        net = {key: _SAYS.get(key) for key in ("weights", "layers", "input", "off_by")}
        made = {"plan of": __version__, "network": network._flags, "net": net}
        held = [each for each in network._layers if each._told]
        made["held"] = {each.name: [each.precision.name, *each._told] for each in held}
        return IHostMemory(json.dumps({**made, **config._everything()}).encode())


class Runtime(_Guarded):
    """Takes the plans of its own version, and others if they are compatible."""

    def __init__(self, logger):
        self._logger = logger

    def deserialize_cuda_engine(self, data):
        try:
            plan = json.loads(bytes(data).decode())
        except ValueError:
            self._logger.log(Severity.ERROR, "magicTag does not match")  # noqa: F821
            return None
        if "VERSION_COMPATIBLE" in plan["set"]:
            assert self.engine_host_code_allowed
        elif plan["plan of"] != __version__:
            self._logger.log(Severity.ERROR, "version tag does not match")  # noqa: F821
            return None
        return ICudaEngine(plan)


class ICudaEngine(_Guarded):
    """One input, one output, one matrix."""

    def __init__(self, plan):
        self._plan = plan

    @property
    def device_memory_size(self):
        return 1 << 20

    device_memory_size_v2 = device_memory_size
    num_io_tensors = 2

    def get_tensor_name(self, index):
        return ("input", "logits")[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name == "input" else TensorIOMode.OUTPUT  # noqa: F821

    def get_tensor_dtype(self, name):
        return DataType.FLOAT  # noqa: F821

    def get_tensor_location(self, name):
        return TensorLocation.DEVICE  # noqa: F821

    def get_tensor_shape(self, name):
        shape = tuple(self._plan["net"]["input"] or [-1, 1, 2, 2])
        return shape if name == "input" else (shape[0], len(self._plan["net"]["weights"]))

    def create_execution_context(self):
        return IExecutionContext(self)

    def create_engine_inspector(self):
        return EngineInspector(self)


class EngineInspector(_Guarded):
    """Says the layers of the JSON file, with the keys of its version."""

    def __init__(self, engine):
        self._engine, self.execution_context = engine, None

    def get_engine_information(self, format):
        assert format == LayerInformationFormat.JSON  # noqa: F821
        layers = self._engine._plan["net"]["layers"] or []
        if self.execution_context is None or self.execution_context._shape is None:
            layers = [_of_unsettled_shape(each) for each in layers]
        rest = {"I/O Tensors": []} if _MAJOR >= 11 else {"Bindings": ["input", "logits"]}
        return json.dumps({"Layers": layers, **rest})


def _of_unsettled_shape(layer):
    """Without a context TensorRT tells no types of tensors whose shapes are dynamic."""
    if not isinstance(layer, dict):
        return layer
    unknown = {"Format/Datatype": "N/A due to dynamic shapes"}
    return {k: [unknown for _ in v] if k in ("Inputs", "Outputs") else v for k, v in layer.items()}


class IExecutionContext(_Guarded):
    """Multiplies when it is told to, in the order of the stream."""

    def __init__(self, engine):
        self._plan, self._shape, self._addresses, self._works = engine._plan, None, {}, []
        self._library = ctypes.CDLL(os.environ["FAKE_LIBCUDA"])
        self._library.fake_device.restype = ctypes.c_void_p
        self._library.fake_device.argtypes = (ctypes.c_uint64,)
        self._library.fake_enqueue.argtypes = (ctypes.c_void_p, ctypes.c_void_p)

    def set_input_shape(self, name, shape):
        assert name == "input"
        least, _, most = (self._plan["profiles"] or [{"input": [shape] * 3}])[0]["input"]
        assert all(a <= b <= c for a, b, c in zip(least, shape, most)), shape  # noqa: B905
        self._shape = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        return (self._shape[0], len(self._plan["net"]["weights"]))

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle):
        import numpy as np

        given, taken = ((self._addresses[n]) for n in ("input", "logits"))
        shape, out = self._shape, self.get_tensor_shape("logits")
        weights = np.asarray(self._plan["net"]["weights"], np.float32)

        def array(address, shape):
            kind = ctypes.c_float * int(np.prod(shape))
            memory = kind.from_address(self._library.fake_device(address))
            return np.frombuffer(memory, np.float32).reshape(shape)

        def work():
            x = array(given, shape).reshape(shape[0], -1)
            array(taken, out)[:] = x @ weights.T + (self._plan["net"]["off_by"] or 0)

        self._works.append(ctypes.CFUNCTYPE(None)(work))  # kept for replays
        pointer = ctypes.cast(self._works[-1], ctypes.c_void_p)
        return self._library.fake_enqueue(pointer, stream_handle) == 0
