"""What a DICOM image shows: the magnitude of an echo or its phase, a slice or the plan of a scan.

Objects say it in ImageType, (0008,0008), whose words from the third on are the maker's; enhanced
ones in FrameType and ComplexImageComponent of each frame; GE in (0043,102F).

    phase, real part, imaginary part     parts of a complex MR image other than its magnitude
    map              what was computed pixel by pixel (T1, B0, ADC, perfusion): a unit of its own
    localizer        the overview on which slices are planned
    mosaic           all slices of a volume as tiles of one picture (Siemens)
    dose page        the table of doses, or the protocol, as a picture
    screen capture   what a screen showed
    spectroscopy     spectra, which are no pixels
    segmentation     labels
    dose             what a plan of radiotherapy delivers
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["kind"]

_LABELS = {"SEG": "segmentation", "RTDOSE": "dose"}  # modality
_SPECTROSCOPY = ("1.2.840.10008.5.1.4.1.1.4.2", "1.3.12.2.1107.5.9.1")
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_PARTS = {"P": "phase", "PHASE": "phase", "R": "real part", "REAL": "real part"}
_PARTS |= {"I": "imaginary part", "IMAGINARY": "imaginary part"}
_GE = {1: "phase", 2: "real part", 3: "imaginary part"}
_MAPS = {"ADC", "B0", "B1", "CBF", "CBV", "EADC", "FA", "FIELD_MAP", "MTT", "TMAX", "TTP"}


def kind(ds: Any, stated: Callable[[str, str], Any]) -> str:
    """Return what an image shows, a name of the table above; empty for an ordinary image.

    Args:
        ds: The object, without its pixels.
        stated: Returns the value of a name in a functional group, of the frame that is meant.
    """
    modality, uid = str(ds.get("Modality") or ""), str(ds.get("SOPClassUID") or "")
    frame = f"{modality}ImageFrameTypeSequence"
    words = [*_words(ds.get("ImageType")), *_words(stated(frame, "FrameType"))]
    rest = {word for at, word in enumerate(words) if at > 1}  # the first two say where it is from
    if modality in _LABELS:
        return _LABELS[modality]
    if uid in _SPECTROSCOPY or any("SPECTROSCOPY" in word for word in rest):
        return "spectroscopy"
    if rest & {"LOCALIZER", "SCOUT", "TOPOGRAM"} or any(word.endswith(" TOP") for word in rest):
        return "localizer"
    if rest & {"MOSAIC"}:
        return "mosaic"
    if _page(ds, rest, uid):
        return "dose page"
    if "SCREEN SAVE" in rest or (uid.startswith(_CAPTURE) and modality in ("CT", "MR", "PT")):
        return "screen capture"
    if rest & _MAPS or any(word.endswith("MAP") and _map(word) for word in rest):
        return "map"
    return _part(ds, rest, stated(frame, "ComplexImageComponent")) if modality == "MR" else ""


def _words(value: Any) -> list[str]:
    """The words of a text with several values, or of one."""
    if value is None or isinstance(value, str):
        value = [value] if value else []
    return [str(word).strip().upper() for word in value]


def _page(ds: Any, rest: set[str], uid: str) -> bool:
    """Whether an image is a page of doses or settings."""
    title = str(ds.get("SeriesDescription") or "").lower()
    told = any(word.startswith("DOSE") or word.endswith(" PROT") for word in rest)
    titled = "dose" in title or "protocol" in title
    return told or (titled and (uid.startswith(_CAPTURE) or "SCREEN SAVE" in rest))


def _map(word: str) -> bool:
    """Whether a map is one of a quantity, and not a part of a complex image."""
    return not word.startswith(("PHASE", "VELOCITY"))


def _part(ds: Any, rest: set[str], component: Any) -> str:
    """Which part of a complex image it is; empty for the magnitude."""
    if rest & {"PHASE MAP", "PHASE_MAP", "VELOCITY MAP", "VELOCITY_MAP"}:
        return "phase"
    if component:
        return _PARTS.get(str(component).upper(), "")
    private = ds.get((0x0043, 0x102F))
    if private is not None:
        value = private.value
        if isinstance(value, bytes):
            value = int.from_bytes(value[:2], "little")
        first = value if isinstance(value, int | str) else next(iter(value or ()), 0)
        return _GE.get(int(first), "")
    return next((_PARTS[word] for word in _PARTS if word in rest), "")
