"""The values that pass between rooms: tensors, the preprocess, and what can be run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Dict, Mapping, Protocol, Sequence, Tuple, Union

import numpy as np

from convexport.runtime.errors import InputError, UsageError

Dim = Union[int, str]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. A dimension is a number, or a name where it may vary (``batch``)."""

    name: str
    shape: Tuple[Dim, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {'x'.join(str(dim) for dim in self.shape)}"

    def fits(self, array: Any) -> bool:
        """Whether an array has this dtype and shape, and is not empty."""
        shape = getattr(array, "shape", ())
        return (
            str(getattr(array, "dtype", "")) == self.dtype
            and len(shape) == len(self.shape)
            and 0 not in shape
            and all(isinstance(want, str) or want == have for want, have in zip(self.shape, shape))
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TensorSpec:
        """The inverse of ``dataclasses.asdict``, from JSON.

        Raises:
            InputError: E0301, a key is missing, unknown or of the wrong kind.
        """
        _check_keys(cls, data)
        shape = data["shape"]
        if not isinstance(shape, (list, tuple)) or not all(
            type(dim) in (int, str) for dim in shape
        ):
            raise _bad_field(cls, "shape", shape)
        return cls(str(data["name"]), tuple(shape), str(data["dtype"]))


@dataclass(frozen=True)
class Preprocess:
    """From a decoded image to the tensor that the net was trained on.

    The pixels are those of torchvision's evaluation transforms on Pillow images: ``Resize``
    (antialiased), ``CenterCrop``, ``ToTensor``, ``Normalize``.

    Attributes:
        crop: height and width of the network's input.
        resize: ``(n,)`` scales the shorter side to n; ``(h, w)`` scales to exactly that.
        interpolation: ``bilinear`` or ``bicubic``.
        channels: ``RGB``, ``BGR`` or ``L`` (one grey channel).
        mean: subtracted, per channel, after values were scaled to 0..1.
        std: divided by, per channel.
        exif: ``apply`` turns the image as its EXIF orientation says, ``ignore`` does not.
    """

    crop: Tuple[int, int] = (224, 224)
    resize: Tuple[int, ...] = (256,)
    interpolation: str = "bilinear"
    channels: str = "RGB"
    mean: Tuple[float, ...] = IMAGENET_MEAN
    std: Tuple[float, ...] = IMAGENET_STD
    exif: str = "apply"

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise _bad_field(type(self), name, getattr(self, name), f"one of {known}")
        if not all(type(size) is int for size in (*self.crop, *self.resize)):
            raise _bad_field(type(self), "crop, resize", (self.crop, self.resize), "integers")
        if not all(type(v) in (int, float) and math.isfinite(v) for v in (*self.mean, *self.std)):
            raise _bad_field(type(self), "mean, std", (self.mean, self.std), "finite numbers")
        count = 1 if self.channels == "L" else 3
        if len(self.mean) != count or len(self.std) != count or not all(s > 0 for s in self.std):
            raise _bad_field(
                type(self), "mean, std", (self.mean, self.std), f"{count} numbers each"
            )
        if len(self.crop) != 2 or len(self.resize) not in (1, 2):
            raise _bad_field(type(self), "crop, resize", (self.crop, self.resize), "(h, w)")
        if min(self.crop + self.resize) < 1 or min(self.resize) < min(self.crop):
            raise _bad_field(type(self), "crop, resize", (self.crop, self.resize), "crop <= resize")

    @property
    def shape(self) -> Tuple[int, int, int]:
        """Channels, height, width of one image's tensor."""
        return (len(self.mean), self.crop[0], self.crop[1])

    def reshaped(self, shape: Tuple[int, int, int]) -> Preprocess:
        """The same for images of another shape: as much is cropped away as before.

        Where height and width differ, images are stretched to them.
        One channel instead of three is grey, normalised with the mean of the colours' values.

        Raises:
            InputError: E0301, the number of channels is neither 1 nor the one that it has.
        """
        if shape == self.shape:
            return self
        spec, crop = self, (shape[1], shape[2])
        if shape[0] == 1 and len(self.mean) > 1:
            mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
            spec = replace(self, channels="L", mean=(mean,), std=(std,))
        if shape[0] != len(spec.mean):
            raise _bad_field(type(self), "channels", shape[0], f"1 channel or {len(spec.mean)}")
        grown = tuple(round(side * max(self.resize) / max(self.crop)) for side in crop)
        square = len(self.resize) == 1 and crop[0] == crop[1]
        return replace(spec, crop=crop, resize=grown[:1] if square else grown)

    def to_dict(self) -> Dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocess:
        """The inverse of ``to_dict``.

        Raises:
            InputError: E0301, a key is missing, unknown or has a value that makes no sense.
        """
        _check_keys(cls, data)
        values: Dict[str, Any] = {
            key: tuple(v) if isinstance(v, (list, tuple)) else v for key, v in data.items()
        }
        try:
            return cls(**values)
        except (TypeError, OverflowError) as error:  # an integer that no float holds
            raise _bad_field(cls, "", values, str(error)) from error


def require_fitting(specs: Sequence[TensorSpec], feed: Mapping[str, np.ndarray]) -> None:
    """Let nothing pass that a model does not take.

    Raises:
        UsageError: E0201, a name, dtype or shape is another.
    """
    for spec in specs:
        if spec.name not in feed:
            raise UsageError(
                "E0201", f"no input named {spec.name} was given", where=f"given: {sorted(feed)}"
            )
        array = np.asarray(feed[spec.name])
        if not spec.fits(array):
            shape = "x".join(str(dim) for dim in array.shape)
            raise UsageError(
                "E0201",
                "the input does not fit the model",
                where=f"expected {spec}, given {array.dtype} {shape}",
            )


class Runner(Protocol):
    """Anything that maps named arrays to named arrays: a session, or a fake in a test."""

    @property
    def inputs(self) -> Tuple[TensorSpec, ...]:
        """What it takes."""
        ...

    @property
    def outputs(self) -> Tuple[TensorSpec, ...]:
        """What it gives."""
        ...

    def run(self, feed: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """One forward pass. Shapes and dtypes as the specs say."""
        ...


_CHOICES = {
    "interpolation": ("bilinear", "bicubic"),
    "channels": ("RGB", "BGR", "L"),
    "exif": ("apply", "ignore"),
}


def _check_keys(cls: Any, data: Any) -> None:
    if not isinstance(data, Mapping):
        raise _bad_field(cls, "", data, "an object")
    known = {field.name for field in fields(cls)}
    if set(data) != known:
        odd = sorted(str(key) for key in set(data) ^ known)
        raise _bad_field(cls, ", ".join(odd), "missing or unknown", f"exactly {sorted(known)}")


def _bad_field(cls: Any, field: str, value: Any, expected: str = "") -> InputError:
    return InputError(
        "E0301",
        f"{cls.__name__.lower()} has a bad field {field}: {str(value)[:80]}",
        hint=f"expected {expected}" if expected else "",
    )
