r"""The settings of a method: which there are, other values for them, and a file that holds them.

A method is a frozen dataclass, so its settings are its fields, and those of the dataclasses that
stand in its fields: `weight`, `levels.high`. A positive number p is searched on a logarithmic
scale, from p / span to span p; a whole number, which counts calls and so costs time, from
p / sqrt(span) to sqrt(span) p. Text, switches, None and zero have no scale and stay, unless bounds
are given for them. A field says by its metadata what its type cannot:

    zeta: float = field(default=1.0, metadata={"search": (0.0, 1.0)})     hard limits
    tol: float = field(default=1e-4, metadata={"search": None})           not a matter of quality
    steps: int | None = field(default=None, metadata={"start": 16})       None: as the data want

A settings file is JSON, to be read and written by people too. Only `method` is required, and a
field that is left out has its default:

    {"method": {"class": "HQS", "steps": 24, "weight": 0.31, "levels": {"class": "Annealed",
     "high": 0.15}}, "prior": {"name": "natural-color@2"}, "tuned": {"anything": "worth keeping"}}
"""

import json
import math
import os
import types
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..files import write_atomic
from ..jobs.arguments import methods
from ..jobs.penalties import penalty_named

__all__ = ["Setting", "Settings", "changed", "plain", "read_settings", "space", "write_settings"]


@dataclass(frozen=True)
class Setting:
    """A number to be searched, on a logarithmic scale of which [low, high] is the unit.

    Args:
        name: Its field; with the fields it stands in before it, joined by points.
        low: Lower end, above 0.
        high: Upper end.
        start: The value at which the search begins; None where the field holds no positive number.
        whole: Whether it is a whole number.
        reach: Least and largest value it may be given.
    """

    name: str
    low: float
    high: float
    start: float | None = None
    whole: bool = False
    reach: tuple[float, float] = (0.0, math.inf)

    def at(self, u: float) -> float | None:
        """The value at a place of the scale; four digits, or the start itself."""
        if abs(u - self.where(self.start)) < 1e-9:
            return self.start
        value = float(f"{self.low * (self.high / self.low) ** u:.4g}")
        value = min(max(value, self.reach[0]), self.reach[1])
        return round(value) if self.whole else value

    def where(self, value: float | None) -> float:
        """The place of a value on the scale: 0 is `low`, 1 is `high`; the middle for None."""
        if value is None or self.low == self.high:
            return 0.5
        if value <= 0:
            return -math.inf
        return math.log(value / self.low) / math.log(self.high / self.low)


def space(
    owner: object,
    *,
    fixed: Collection[str] = (),
    only: Collection[str] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    span: float = 4.0,
) -> tuple[Setting, ...]:
    """The settings of a method, or of a prior that is a dataclass, that can be searched.

    Args:
        owner: The dataclass; its values are the starts. Anything else has no settings.
        fixed: Names of settings that stay as they are; `levels` means all of `levels.*`.
        only: Names of the only settings that are searched; all where None.
        bounds: Lower and upper end of some settings, which then are hard limits. They also let
            fields be searched that hold None or zero.
        span: Ratio of the ends to the start.
    Returns:
        The settings, in the order of the fields.
    Raises:
        ValueError: A name is not that of a setting, or bounds are not two positive numbers.
    """
    if not 1 < span < math.inf:
        raise ValueError(f"space: got span {span}, wanted a number above 1")
    bounds = dict(bounds or {})
    every = list(_numbers(owner, "", bounds, span))
    names = [name for name, _ in every]
    title = type(owner).__name__
    for name in (*fixed, *(only or ()), *bounds):
        if not any(_within(known, name) for known in names):
            raise ValueError(f"{title} has no setting '{name}'; it has: {', '.join(names)}")
        if name in bounds and name not in names:
            raise ValueError(f"bounds of {name}: got several settings, wanted the name of one")
    chosen = []
    for name, setting in every:
        asked = only is None or any(_within(name, one) for one in only)
        if asked and setting is None and only is not None and name in only:
            raise ValueError(
                f"{title}: {name} holds no positive number to search around; give bounds for it"
            )
        if asked and setting is not None and not any(_within(name, one) for one in fixed):
            chosen.append(setting)
    return tuple(chosen)


def _within(name: str, outer: str) -> bool:
    return name == outer or name.startswith(f"{outer}.")


def _numbers(
    owner: object, prefix: str, bounds: dict[str, tuple[float, float]], span: float
) -> Iterator[tuple[str, Setting | None]]:
    """Every number among the fields, with how it is searched; None where that is not known."""
    if not is_dataclass(owner):
        return
    hints = get_type_hints(type(owner))
    for one in fields(owner):
        name, value = prefix + one.name, getattr(owner, one.name)
        if is_dataclass(value):
            yield from _numbers(value, f"{name}.", bounds, span)
            continue
        kinds = set(get_args(hints[one.name]) or (hints[one.name],)) - {type(None)}
        if kinds not in ({int}, {float}):
            continue
        whole = kinds == {int}
        limits = one.metadata.get("search", (0.0, math.inf))
        start = one.metadata.get("start") if value is None else value
        start = start if start is not None and start > 0 else None
        least, most = limits or (0.0, math.inf)
        if name in bounds:
            low, high = bounds[name]
            if not (least <= low <= high <= most and 0 < low and high < math.inf):
                raise ValueError(
                    f"bounds of {name}: got {low:g} to {high:g}, wanted two positive numbers"
                    f" between {least:g} and {most:g}"
                )
            least, most = low, high
        elif limits is None or start is None:
            yield name, None
            continue
        else:
            ratio, start = span**0.5 if whole else span, min(max(start, least), most)
            low, high = max(start / ratio, least), min(start * ratio, most)
            if whole:  # its ends cost time: they hold
                low, high = least, most = max(1, round(low)), round(high)
        if start is not None:
            start = min(max(start, low), high)
            start = round(start) if whole else start
        yield name, Setting(name, low, high, start, whole, (least, most))


def changed(owner: Any, values: Mapping[str, float | None]) -> Any:
    """The same method with other values.

    Args:
        owner: A frozen dataclass.
        values: Values by the names of settings.
    Returns:
        A new one of the same class.
    """
    own: dict[str, Any] = {}
    inner: dict[str, dict[str, float | None]] = {}
    for name, value in values.items():
        head, _, rest = name.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            own[head] = value
    for head, some in inner.items():
        own[head] = changed(getattr(owner, head), some)
    return replace(owner, **own) if own else owner


@dataclass(frozen=True)
class Settings:
    """What a settings file says.

    Args:
        method: The method, as it is to be called.
        prior: What is said of the prior: its `name`, and the `weight` of a penalty.
        tuned: How the settings were found; whatever its writer kept.
    """

    method: Any
    prior: dict[str, Any] = field(default_factory=dict)
    tuned: dict[str, Any] = field(default_factory=dict)

    @property
    def prior_name(self) -> str | None:
        """The prior as the command line has it, such as `total-variation:2.5`; or None."""
        name, weight = self.prior.get("name"), self.prior.get("weight")
        return name if name is None or weight is None else f"{name}:{weight!r}"


def plain(value: Any) -> Any:
    """A method as JSON: its class and its fields, all the way down."""
    if is_dataclass(value) and not isinstance(value, type):
        inside = {one.name: plain(getattr(value, one.name)) for one in fields(value)}
        return {"class": type(value).__name__, **inside}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"settings: got a {type(value).__name__}, which a settings file cannot hold")


def write_settings(path: str | os.PathLike[str], settings: Settings) -> None:
    """Write a settings file; it appears whole or not at all.

    Args:
        path: The file.
        settings: What it is to say.
    """
    record = {"method": plain(settings.method)}
    for name in ("prior", "tuned"):
        if getattr(settings, name):
            record[name] = getattr(settings, name)
    write_atomic(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


def read_settings(path: str | os.PathLike[str]) -> Settings:
    """The method and the prior that a settings file describes.

    Args:
        path: The file.
    Raises:
        ValueError: It is not JSON, or has an entry that is unknown or of a wrong type; the message
            names the entry and says what there is.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a settings file ({error})") from error
    _known(record, ("method", "prior", "tuned"), f"{path}")
    if "method" not in record:
        raise ValueError(f"{path}: says no method")
    every = {cls.__name__: cls for cls in methods().values()}
    method = _built(record["method"], every, f"{path}: method")
    prior, tuned = record.get("prior", {}), record.get("tuned", {})
    _known(tuned, None, f"{path}: tuned")
    _known(prior, ("name", "weight", "sha256"), f"{path}: prior")
    for name, kind in (("name", str), ("weight", float), ("sha256", str)):
        if name in prior and not _is(prior[name], kind):
            raise ValueError(f"{path}: prior.{name}: {_wanted(prior[name], kind)}")
    if "weight" in prior:
        named = isinstance(prior.get("name"), str) and penalty_named(prior["name"]) is not None
        if not named or prior["weight"] < 0:
            raise ValueError(
                f"{path}: prior.weight: wanted a number >= 0, of total-variation or another prior "
                "without a weight file only"
            )
    return Settings(method, prior, tuned)


def _known(record: Any, names: Collection[str] | None, where: str) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"{where}: got {record!r:.60}, wanted {{name: value, ...}}")
    for name in record:
        if names is not None and name not in names:
            raise ValueError(f"{where}: no entry '{name}'; there are: {', '.join(names)}")


def _built(record: Any, classes: Mapping[str, type], where: str) -> Any:
    """The dataclass that a record describes, one of some classes."""
    _known(record, None, where)
    name = record.get("class")
    cls = classes.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(f"{where}.class: got {name!r:.60}, wanted one of: {', '.join(classes)}")
    hints = get_type_hints(cls)
    _known(record, ("class", *(one.name for one in fields(cls))), where)
    values: dict[str, Any] = {}
    for name, value in record.items():
        if name == "class":
            continue
        inside = _classes(hints[name])
        if inside:
            value = _built(value, inside, f"{where}.{name}")
        elif not _is(value, hints[name]):
            raise ValueError(f"{where}.{name}: {_wanted(value, hints[name])}")
        values[name] = value
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _classes(hint: Any) -> dict[str, type]:
    """The dataclasses that a type allows, with those derived from them."""
    found: dict[str, type] = {}
    for cls in get_args(hint) or (hint,):
        if isinstance(cls, type) and is_dataclass(cls):
            if not getattr(cls, "__abstractmethods__", None):
                found[cls.__name__] = cls
            for derived in cls.__subclasses__():
                found |= _classes(derived)
    return found


def _is(value: Any, hint: Any) -> bool:
    """Whether a value from a file is of a type; numbers are finite, and a truth is no number."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_is(value, part) for part in get_args(hint))
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return value is None if hint is type(None) else type(value) is hint


def _wanted(value: Any, hint: Any) -> str:
    parts = get_args(hint) or (hint,)
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return f"got {value!r:.60}, wanted {' or '.join(words.get(p, 'null') for p in parts)}"
