"""Small files of the formats that scanners and data sets use, written for the tests."""

import gzip
import io

import h5py
import nibabel
import numpy as np
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from measurand.operators.kspace import birdcage_maps, fft2c

RNG = np.random.default_rng(0)
HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>{h}</x><y>{w}</y><z>1</z></matrixSize></encodedSpace>
<reconSpace><matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum>
<center>{center}</center></kspace_encoding_step_1></encodingLimits></encoding></ismrmrdHeader>"""


def nifti(path, voxels, affine=None, *, slope=None, inter=0.0, version=1, zooms=None):
    """A NIfTI file of voxels as they are to be stored."""
    kind = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}[version]
    header = kind.header_class(endianness="<" if voxels.dtype.isnative else ">")
    image = kind(voxels, np.eye(4) if affine is None else affine, header)
    image.header.set_data_dtype(voxels.dtype)
    if zooms is not None:
        image.header.set_zooms(zooms)
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
    content = image.to_bytes()
    if slope is not None:  # nibabel has divided by the slope: put the stored numbers back
        start = int(image.header["vox_offset"]) or (352 if version == 1 else 544)
        content = content[:start] + voxels.tobytes(order="F")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def dicom(
    path,
    samples,
    *,
    slope=1.0,
    intercept=-1024.0,
    position=None,
    normal="z",
    series="1.2.3",
    number=1,
    modality="CT",
    syntax=ExplicitVRLittleEndian,
    **others,
):
    """A DICOM file of stored samples, (H, W), (H, W, 3) or (frames, H, W); None leaves out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, generate_uid()
    ds.SeriesInstanceUID, ds.Modality, ds.InstanceNumber = series, modality, number
    ds.PatientName = "Nobody^Really"
    color = samples.ndim == 3 and samples.shape[2] == 3
    if samples.ndim == 3 and not color:
        ds.NumberOfFrames = len(samples)
    ds.Rows, ds.Columns = samples.shape[:2] if color else samples.shape[-2:]
    ds.SamplesPerPixel = 3 if color else 1
    if color:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8 * samples.dtype.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(samples.dtype.kind == "i")
    if slope is not None:
        ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    if position is not None:
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0] if normal == "z" else [0, 1, 0, 0, 0, -1]
        ds.ImagePositionPatient = [0, 0, position] if normal == "z" else [position, 0, 0]
        ds.PixelSpacing = [0.7, 0.8]
    ds.PixelData = samples.tobytes() + b"\0" * (samples.nbytes % 2)
    ds["PixelData"].VR = "OB" if samples.dtype.itemsize == 1 else "OW"
    for name, value in others.items():
        setattr(ds, name, value)
    ds.save_as(path, enforce_file_format=True)
    return path


def brain(shape=(24, 20), coils=4, slices=2, seed=0):
    """Complex images and their coil images, (slices, H, W) and (slices, coils, H, W)."""
    rng = np.random.default_rng(seed)
    i, j = np.mgrid[: shape[0], : shape[1]]
    disc = ((i - shape[0] / 2) / shape[0]) ** 2 + ((j - shape[1] / 2) / shape[1]) ** 2 < 0.15
    phase = np.exp(1j * (0.05 * i + 0.02 * j))
    x = disc * phase * (0.5 + rng.random((slices, *shape)))
    maps = birdcage_maps(shape, coils)
    maps = np.asarray(maps).reshape(coils, *shape)
    return x.astype(np.complex64), (maps * x[:, None]).astype(np.complex64)


def fastmri(path, coil_images, *, crop=None, header=True, mask=None, single=False, center=None):
    """A fastMRI file of coil images (slices, coils, H, W), with its stored target."""
    y = fft2c(torch.from_numpy(coil_images)).numpy()
    h, w = y.shape[-2:]
    a, b = crop or (h, w)
    top, left = (h - a) // 2, (w - b) // 2
    cut = coil_images[:, :, top : top + a, left : left + b]
    with h5py.File(path, "w") as h5:
        h5["kspace"] = y[:, 0] if single else y
        if mask is None:
            name = "reconstruction_esc" if single else "reconstruction_rss"
            h5[name] = np.sqrt((abs(cut) ** 2).sum(1)).astype(np.float32)
        else:
            h5["mask"] = np.asarray(mask)
        if header:
            h5["ismrmrd_header"] = HEADER.format(
                h=h, w=w, x=a, y=b, last=w - 1, center=w // 2 if center is None else center
            )
        h5.attrs["acquisition"] = "AXT2"
    return path


def originals(folder):
    """One small file of every kind that the library reads, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    voxels = RNG.integers(0, 1000, (6, 7, 5)).astype(np.int16)
    _, coil_images = brain((12, 10), coils=2, slices=2)
    frames = RNG.integers(0, 255, (3, 6, 5), dtype=np.uint8)
    h5 = io.BytesIO()
    with h5py.File(h5, "w") as file:
        file.create_dataset("a/images", data=frames, compression="gzip", chunks=(1, 6, 5))
    (folder / "stack.h5").write_bytes(h5.getvalue())
    np.savez_compressed(folder / "stack.npz", images=frames, subject=np.array(["a", "b", "c"]))
    np.save(folder / "stack.npy", frames.astype(np.float16))
    dicom(folder / "frames.dcm", frames, modality="US", slope=None)
    dicom(folder / "slice.dcm", frames[0].astype(np.int16), position=1.0)
    return [
        nifti(folder / "volume.nii", voxels, slope=0.5),
        nifti(folder / "volume.nii.gz", voxels),
        fastmri(folder / "scan.h5", coil_images),
        folder / "stack.h5",
        folder / "stack.npz",
        folder / "stack.npy",
        folder / "frames.dcm",
        folder / "slice.dcm",
    ]
