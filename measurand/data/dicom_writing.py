"""A DICOM file, or a folder of one series, as slices, and derived DICOM objects written back.

Values are those of `dicom`: Hounsfield units in CT. A value v is stored as `(v - intercept) /
slope`, rounded and clipped to the type of the file. What is written is an object of its own, as
the standard asks of processed images: a new SOP and series UID, ImageType DERIVED, the old
instance as its source; patient, study and geometry are those of the source.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_atomic
from . import dicom
from .arrays import ARRAYS
from .grid import Volume, as_stored, resized
from .ranges import HOUNSFIELD, MAGNITUDE, STORED
from .sources import File, UnreadableFile

if TYPE_CHECKING:
    from .form import Form

__all__ = ["is_series", "volume"]

_OTHERS = (*ARRAYS, ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".nii.gz", ".mhd", ".mha")


@dataclass(frozen=True)
class _Objects:
    """The objects of a series, in the order of its slices.

    Args:
        files: The file of each slice.
        indices: Its frame there, from 0.
        scales: Slope and intercept of each.
    """

    files: tuple[Path, ...]
    indices: tuple[int, ...]
    scales: tuple[tuple[float, float], ...]

    def write(self, path: Path, values: np.ndarray, form: Form) -> None:
        """Writes slices (N, H, W, C): one file as a file, several as a folder of them."""
        import pydicom

        several = len(set(self.files)) > 1
        if several:
            path.with_suffix("").mkdir(parents=True, exist_ok=True)
        series = pydicom.uid.generate_uid()
        for k, file in enumerate(dict.fromkeys(self.files)):
            own = [i for i, name in enumerate(self.files) if name == file]
            own.sort(key=lambda i: self.indices[i])
            ds = _derived(file, series)
            _fill(ds, values[own], [self.scales[i] for i in own])
            out = BytesIO()
            ds.save_as(out, enforce_file_format=True)
            target = path.with_suffix("") / f"{k:04d}.dcm" if several else path
            write_atomic(target, out.getvalue())


def is_series(folder: Path) -> bool:
    """Whether a folder holds DICOM files, and no other data, directly in it.

    Notes, indices and other files that nobody could measure are no data.
    """
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    if not files or any(p.suffix.lower() in (".csv", ".jsonl") for p in files):
        return False
    measured = [p for p in files if p.name.upper() != "DICOMDIR"]
    found = [dicom.is_dicom(File(str(p), p)) for p in measured]
    others = (p for p, is_dicom in zip(measured, found, strict=True) if not is_dicom)
    return any(found) and not any(p.name.lower().endswith(_OTHERS) for p in others)


def volume(file: File) -> Volume:
    """Return the slices of the one series of a file or a folder.

    Raises:
        UnreadableFile: It holds several series, or none.
    """
    path = file.path or Path(file.name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        found = dicom.series(path)
    if len(found) != 1:
        named = (
            "; ".join(
                f"{len(s.images)} of '{s.description or s.uid}', the first of them in "
                f"{Path(s.files[0]).name}"
                for s in found
            )
            or "none"
        )
        raise UnreadableFile(
            f"{path}: holds {len(found)} series of images ({named}), wanted one: put the files of "
            "the one you mean in a folder of their own (slices of another orientation, size or "
            "spacing are another series)"
        )
    (series,) = found
    template = _Objects(tuple(map(Path, series.files)), series.indices, series.scales)
    images = np.stack(series.images)
    dtype = "uint8" if images.dtype == np.uint8 else "float32"
    notes = [f"{series.modality} series of {len(images)} slices"] if path.is_dir() else []
    notes += [str(w.message) for w in caught if "measurand" in w.filename]
    unit = MAGNITUDE
    if series.modality == "CT" and dtype == "float32":
        unit = HOUNSFIELD if series.rescaled else STORED
    return Volume(images, dtype, ".dcm", template, unit, tuple(notes))


def _derived(file: Path, series: str) -> Any:
    """The dataset of a file as a new object that is derived from it, without its pixels."""
    import pydicom

    ds = pydicom.dcmread(file, stop_before_pixels=True)
    uid = pydicom.uid
    source = pydicom.Dataset()
    source.ReferencedSOPClassUID = ds.SOPClassUID
    source.ReferencedSOPInstanceUID = ds.SOPInstanceUID
    ds.SourceImageSequence = [source]
    kind = list(ds.get("ImageType", ["ORIGINAL", "PRIMARY"]))
    ds.ImageType = ["DERIVED", *kind[1:]]
    ds.DerivationDescription = "restored by measurand"
    ds.SOPInstanceUID = uid.generate_uid()
    ds.SeriesInstanceUID = series
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    for name in ("LossyImageCompression", "SmallestImagePixelValue", "LargestImagePixelValue"):
        if name in ds:
            delattr(ds, name)
    return ds


def _fill(ds: Any, values: np.ndarray, scales: list[tuple[float, float]]) -> None:
    """Put images (n, H, W, C) in a dataset."""
    n, h, w, channels = values.shape
    old = int(ds.Rows), int(ds.Columns)
    if (h, w) != old:
        _rescale(ds, (h, w))
    if channels == 3:
        ds.PhotometricInterpretation, ds.SamplesPerPixel, ds.PlanarConfiguration = "RGB", 3, 0
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit, ds.PixelRepresentation = 7, 0
        ds.PixelData = values.round().clip(0, 255).astype(np.uint8).tobytes()
        ds["PixelData"].VR = "OB"
        return
    signed, bits = int(ds.PixelRepresentation), int(ds.BitsStored)
    if "ModalityLUTSequence" in ds or int(ds.BitsAllocated) not in (8, 16, 32):
        raise UnreadableFile(
            f"{ds.SOPClassUID.name}: samples behind a look-up table, or of {ds.BitsAllocated} "
            "bits, cannot be written back; convert the file to NIfTI"
        )
    kind = np.dtype(f"<{'i' if signed else 'u'}{int(ds.BitsAllocated) // 8}")
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    stored = []
    for image, (slope, intercept) in zip(values[..., 0], scales, strict=True):
        u = as_stored(image, np.dtype(np.float64), slope, intercept).round().clip(low, high)
        if ds.PhotometricInterpretation == "MONOCHROME1" and (slope, intercept) == (1.0, 0.0):
            u = (-1 if signed else high) - u
        stored.append(u.astype(kind))
    ds.HighBit = bits - 1
    ds.PixelData = np.stack(stored).tobytes()
    ds["PixelData"].VR = "OB" if kind.itemsize == 1 else "OW"


def _rescale(ds: Any, size: tuple[int, int]) -> None:
    """Give the dataset of a single frame another number of rows and columns."""
    if int(ds.get("NumberOfFrames") or 1) > 1:
        raise UnreadableFile("frames of another size cannot be written in a multi-frame object")
    maps = [
        resized(before, after) for before, after in zip((ds.Rows, ds.Columns), size, strict=True)
    ]
    ds.Rows, ds.Columns = size
    if "PixelSpacing" in ds:
        old = [float(v) for v in ds.PixelSpacing]
        ds.PixelSpacing = [f"{s * f:.10g}" for s, (f, _) in zip(old, maps, strict=True)]
        if "ImagePositionPatient" in ds and "ImageOrientationPatient" in ds:
            along, down = np.array([float(v) for v in ds.ImageOrientationPatient]).reshape(2, 3)
            first = np.array([float(v) for v in ds.ImagePositionPatient])
            first = first + maps[0][1] * old[0] * down + maps[1][1] * old[1] * along
            ds.ImagePositionPatient = [f"{v:.10g}" for v in first]
