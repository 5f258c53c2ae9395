"""Constructor signatures as command-line arguments: the class is its own configuration.

A method is a frozen dataclass, and `tyro` takes it as it is. An operator takes the shape of the
image first, which the data give, and tensors, which a command line cannot hold. So each operator
has a twin, a frozen dataclass made from the signature of its constructor: without the shape, and
with every tensor replaced by text that names one:

    kernel.npy   masks.npz:train   scan.h5:mask   psf.tif:3      a file (`operands`)
    motion_kernel:12:0.8   disk_kernel:4   random_mask:0.7       a function of `operators`

`build` makes the operator from its twin. Classes appear because they are listed in `__all__` of
their folder; those that are made of other operators or of functions have no twin.
"""

import dataclasses
import inspect
import re
from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import torch
from torch import Tensor

from .. import operators, samplers, solvers
from ..data.arrays import split_key
from ..methods import Method
from ..operators import LinearOperator, OperatorFamily
from .operands import operand

__all__ = [
    "build",
    "counted",
    "families",
    "files_of",
    "build_for",
    "methods",
    "notes_of",
    "read_tensor",
    "twins",
]

Shape = tuple[int, ...]
Given = Mapping[str, Tensor]
NONE: Given = {}
_PLAIN = (int, float, bool, str)


def kebab(name: str) -> str:
    """A class's name as a word of the command line: GaussianBlur is gaussian-blur."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def word(cls: Any) -> str:
    """Name of an operator or of a family on the command line."""
    return cls.command or kebab(cls.__name__)


def _is_plain(annotation: Any) -> bool:
    """Whether a command line can say a value of this type."""
    parts = get_args(annotation)
    if not parts:
        return annotation in _PLAIN or annotation in (type(None), ...)
    return all(_is_plain(part) for part in parts)


@cache
def twins() -> dict[str, type]:
    """The dataclass of every operator that a command line can make, by its name there."""
    return _twins_of(LinearOperator)


@cache
def families() -> dict[str, type]:
    """The dataclass of every family of operators with unknown parameters, by its name."""
    return _twins_of(OperatorFamily)


def _twins_of(base: type) -> dict[str, type]:
    found = {}
    for name in operators.__all__:
        cls = getattr(operators, name)
        if not (inspect.isclass(cls) and issubclass(cls, base)):
            continue
        if inspect.isabstract(cls):
            continue
        fields = _fields(cls)
        if fields is not None:
            travels = {"__reduce__": _as_words}  # to other processes, which make the class anew
            twin = dataclasses.make_dataclass(name, fields, frozen=True, namespace=travels)
            twin.__doc__ = inspect.getdoc(cls)
            found[word(cls)] = twin
    return dict(sorted(found.items()))


def _as_words(twin: Any) -> tuple[Any, ...]:
    values = {field.name: getattr(twin, field.name) for field in dataclasses.fields(twin)}
    return _from_words, (word(getattr(operators, type(twin).__name__)), values)


def _from_words(name: str, values: dict[str, Any]) -> Any:
    return {**twins(), **families()}[name](**values)


def _fields(cls: type) -> list[Any] | None:
    """Fields of an operator's twin; None where its arguments cannot be said in words."""
    parameters = list(inspect.signature(cls).parameters.values())
    if not parameters or parameters[0].name not in ("shape", "in_shape"):
        return None
    hints = _hints(cls)
    fields: list[Any] = []
    for parameter in parameters[1:]:
        hint = hints[parameter.name]
        if hint is torch.dtype:
            continue  # real images: the default
        if hint in (Any, Tensor):
            hint = _text()
        elif not _is_plain(hint):
            return None
        if parameter.name in getattr(cls, "estimated", ()):
            fields.append((parameter.name, hint, dataclasses.field(default="auto")))
        elif parameter.default is inspect.Parameter.empty:
            fields.append((parameter.name, hint))
        else:
            fields.append((parameter.name, hint, dataclasses.field(default=parameter.default)))
    return fields


def _hints(cls: type) -> dict[str, Any]:
    """Types of a constructor's arguments."""
    return get_type_hints(inspect.getattr_static(cls, "__init__"))


def _text() -> Any:
    import tyro

    return Annotated[str, tyro.conf.arg(metavar="FILE[:KEY]|FUNCTION:NUMBERS")]


def union(named: dict[str, type]) -> Any:
    """The union of some classes as subcommands of these names."""
    import tyro

    marked = [Annotated[cls, tyro.conf.subcommand(name)] for name, cls in named.items()]
    return reduce(or_, marked)


@cache
def methods() -> dict[str, type[Method]]:
    """Every solver and sampler that has a name on the command line, by that name."""
    every = (getattr(folder, name) for folder in (solvers, samplers) for name in folder.__all__)
    classes = [cls for cls in every if inspect.isclass(cls) and issubclass(cls, Method)]
    return {cls.command: cls for cls in classes if cls.command}


def read_tensor(text: str, name: str, shape: Shape) -> Tensor:
    """The tensor that a piece of text names.

    Args:
        text: A file, with a key where it holds several arrays or pages; or a function of
            `measurand.operators` and its numbers, joined by colons.
        name: What it is for: a kernel is scaled to sum 1, a mask of whole numbers to 0 and 1.
        shape: Shape of the image, for functions that ask for it.
    """
    function, *words = text.split(":")
    if function in operators.__all__ and not Path(text).exists():
        return _made(name, function, words, shape)
    return operand(text, name, shape)[0]


def notes_of(twin: Any, shape: Shape) -> list[str]:
    """What was decided about the files that the options of an operator name, a sentence each.

    Args:
        twin: An instance of one of `twins()`.
        shape: Shape (C, H, W) of one image.
    """
    return [
        note for name in files_of(twin) for note in operand(getattr(twin, name), name, shape)[1]
    ]


def files_of(twin: Any) -> dict[str, Path]:
    """The files that the options of an operator name, by option.

    Args:
        twin: An instance of one of `twins()`.
    """
    hints = _hints(getattr(operators, type(twin).__name__))
    found = {}
    for field in dataclasses.fields(twin):
        text = getattr(twin, field.name)
        if hints[field.name] in (Any, Tensor) and isinstance(text, str):
            file = split_key(text)[0]
            if file.is_file():
                found[field.name] = file
    return found


def _made(name: str, function: str, words: list[str], shape: Shape) -> Tensor:
    """The tensor that a function of `measurand.operators` makes of numbers written as words."""
    make = getattr(operators, function)
    hints = get_type_hints(make)
    asked = [
        p.name for p in inspect.signature(make).parameters.values() if p.kind != p.KEYWORD_ONLY
    ]
    values: list[Any] = [shape] if asked[:1] in (["shape"], ["in_shape"]) else []
    try:
        for parameter, word in zip(asked[len(values) :], words, strict=False):
            values.append(int(word) if hints[parameter] is int else float(word))
        made = make(*values)
    except (TypeError, ValueError) as error:
        wanted = ":".join(
            [function, *(a.upper() for a in asked if a not in ("shape", "in_shape"))]
        )
        raise ValueError(
            f"{name}: got '{':'.join([function, *words])}', wanted {wanted} ({error})"
        ) from error
    if not isinstance(made, Tensor):
        raise ValueError(f"{name}: {function} makes no tensor")
    return made


def build(twin: Any, shape: Shape, given: Given = NONE) -> LinearOperator:
    """The operator that a twin describes, for images of a shape.

    Args:
        twin: An instance of one of `twins()`.
        shape: Shape (C, H, W) of one image.
        given: Options that the data have told, instead of those of the twin.
    """
    cls = getattr(operators, type(twin).__name__)
    return cls(shape, **_options(twin, [f.name for f in dataclasses.fields(twin)], shape, given))


def counted(twin: Any, y: Shape) -> Any:
    """A twin with the options that are counted in data, where nobody has said them.

    Args:
        twin: An instance of one of `twins()`.
        y: Shape of one measurement.
    """
    found = getattr(operators, type(twin).__name__).counted(y)
    unsaid = {name: n for name, n in found.items() if getattr(twin, name) is None}
    return dataclasses.replace(twin, **unsaid)


def build_for(twin: Any, y: Shape, given: Given = NONE) -> LinearOperator:
    """The operator whose measurements have a given shape, with the image shape that this needs.

    Args:
        twin: An instance of one of `twins()`.
        y: Shape of one measurement.
        given: Options that the data have told, instead of those of the twin.
    Raises:
        ValueError: The operator does not know the shape of such an image, or has other data.
    """
    cls = getattr(operators, type(twin).__name__)
    advice = "say the shape of the image, --shape C H W"
    asked = list(inspect.signature(cls.image_shape).parameters)[1:]  # options of the constructor
    options = _options(twin, asked, y, given)
    try:
        shape = cls.image_shape(y, **options)
    except ValueError as error:
        raise ValueError(f"{error}" if cls.pictures else f"{error}; {advice}") from error
    operator = build(counted(twin, y), shape, given)
    if operator.out_shape != y:
        more = turned(y, operator.out_shape) or f"; {advice}"
        if advice in more and not operator.pictures and operator.out_shape[-1] == y[-1]:
            more = (
                f"; the {y[-2]} rows of the data are views, and {operator.out_shape[-2]} angles "
                "are said: save as many angles as views (of projections (views, slices, bins) "
                "save np.swapaxes(a, 0, 1), which are as many sinograms)"
            )
        if operator.out_shape[-2:] == y[-2:]:
            more = "; channels or coils differ, rows and columns do not"
        raise ValueError(
            f"{cls.__name__}: an image of shape {shape} gives measurements of shape "
            f"{operator.out_shape}, the data have shape {y}{more}"
        )
    return operator


def turned(y: Shape, wanted: Shape) -> str:
    """Return what to do about data that lack rows, and have them as columns; empty where not.

    Args:
        y: Shape of the data, rows and columns last.
        wanted: Shape of those of the operator.
    """
    if len(y) < 2 or len(wanted) < 2 or not y[-1] == wanted[-2] != y[-2]:
        return ""
    return "; rows and columns seem to be exchanged: save np.swapaxes(a, -1, -2)"


def _options(twin: Any, names: list[str], shape: Shape, given: Given) -> dict[str, Any]:
    """Options of an operator's constructor, with the tensors that a twin names in words."""
    hints = _hints(getattr(operators, type(twin).__name__))
    values = {name: given.get(name, getattr(twin, name)) for name in names}
    for name, value in values.items():
        if value == "auto" and isinstance(value, str):
            raise ValueError(f"--operator.{name}: it cannot be told without data; say it")
    return {
        name: read_tensor(value, name, shape)
        if hints[name] in (Any, Tensor) and isinstance(value, str)
        else value
        for name, value in values.items()
    }
