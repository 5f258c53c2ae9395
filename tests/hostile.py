"""Files that are made to do harm: each a few lines that write one, by its name.

`FILES` holds those of one array or picture format, `ARCHIVES` zips of many, `SPECIAL` what is no
ordinary file at all. None is larger than a few megabytes.
"""

import gzip
import io
import math
import os
import struct
import zipfile
import zlib

import h5py
import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless
from scans import HEADER, dicom, nifti

FILES, ARCHIVES, SPECIAL = {}, {}, {}
BILLION = (
    '<!DOCTYPE l [<!ENTITY a "ha">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">'
        for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )
    + "]><l>&j;</l>"
)  # fmt: skip


def named(*names, among=FILES):
    """Notes a function that writes a file of each of some names."""

    def note(write):
        among.update({name: write for name in names})
        return write

    return note


def raw_zeros(size):
    """Zeros, deflated: one block of them, again and again."""
    packing = zlib.compressobj(9, wbits=-15)
    block = packing.compress(bytes(2**20)) + packing.flush(zlib.Z_FULL_FLUSH)
    last = zlib.compressobj(9, wbits=-15)
    return block * (size >> 20) + last.compress(bytes(size & (2**20 - 1))) + last.flush()


def zeros(size):
    """Zeros as a zlib stream; their Adler-32 is known."""
    return b"x\xda" + raw_zeros(size) + struct.pack(">HH", size % 65521, 1)


# HDF5


def scan(h5, *without):
    """A good fastMRI file, but for some of its parts."""
    parts = {
        "kspace": np.ones((2, 2, 8, 8), np.complex64),
        "reconstruction_rss": np.ones((2, 8, 8), np.float32),
        "mask": np.arange(8) % 2,
        "ismrmrd_header": HEADER.format(h=8, w=8, x=8, y=8, last=7, center=4),
    }
    for name, value in parts.items():
        if name not in without:
            h5[name] = value


def other(path):
    """Another HDF5 file, which holds what a link could be to."""
    beside = path.with_name("secret.hdf5")
    with h5py.File(beside, "w") as h5:
        scan(h5)
    return str(beside)


PARTS = {"kspace", "reconstruction_rss", "reconstruction_esc", "mask", "ismrmrd_header"}


@named(*(f"external-{part}.h5" for part in PARTS))
def external(path):
    part = path.stem.split("-")[1]
    with h5py.File(path, "w") as h5:
        scan(h5, part)
        h5[part] = h5py.ExternalLink(other(path), part.replace("esc", "rss"))


@named(*(f"loop-{part}.h5" for part in PARTS))
def soft_loop(path):
    part = path.stem.split("-")[1]
    with h5py.File(path, "w") as h5:
        scan(h5, part)
        h5[part], h5["there"] = h5py.SoftLink("/there"), h5py.SoftLink(f"/{part}")


@named("virtual-kspace.h5", "virtual-mask.h5", "virtual-reconstruction_rss.h5")
def virtual(path):
    part = path.stem.split("-")[1]
    with h5py.File(other(path)) as h5:
        shape, kind = h5[part].shape, h5[part].dtype
    layout = h5py.VirtualLayout(shape, kind)
    layout[:] = h5py.VirtualSource(other(path), part, shape)
    with h5py.File(path, "w") as h5:
        scan(h5, part)
        h5.create_virtual_dataset(part, layout)


@named("raw-kspace.h5", "raw-mask.h5", "raw-reconstruction_rss.h5", "raw-ismrmrd_header.h5")
def raw(path):
    part = path.stem.split("-")[1]
    text = path.with_name("text.txt")
    text.write_bytes(b"secret " * 4000)
    shape, kind = {
        "kspace": ((2, 2, 8, 8), "c8"),
        "mask": ((8,), "u1"),
        "reconstruction_rss": ((2, 8, 8), "f4"),
        "ismrmrd_header": ((1,), "S700"),
    }[part]
    with h5py.File(path, "w") as h5:
        scan(h5, part)
        h5.create_dataset(part, shape, kind, external=[(str(text), 0, h5py.h5f.UNLIMITED)])


@named("linked.mat", "looped.mat")
def linked_mat(path):
    with h5py.File(path, "w", userblock_size=512) as h5:
        h5["x"] = h5py.ExternalLink(other(path), "mask")
        h5["y"] = h5py.SoftLink("/y")


@named("entities.h5", "endless-number.h5", "nested-header.h5")
def bad_header(path):
    good = HEADER.format(h=8, w=8, x=8, y=8, last=7, center=4)
    text = {
        "entities": good.replace("?>", "?>" + BILLION.split("<l>")[0]),
        "endless-number": good.replace("<x>8", "<x>" + "9" * 100_000),
        "nested-header": "<a>" * 200_000,
    }[path.stem]
    with h5py.File(path, "w") as h5:
        scan(h5, "ismrmrd_header")
        h5["ismrmrd_header"] = np.bytes_(text)


def chunked(path, name, shape, kind, stored, chunks=None, filters=1):
    """A dataset of one chunk of the given stored bytes behind so many deflate filters."""
    wide = (h5py.h5s.UNLIMITED,) * len(shape)
    with h5py.File(path, "w") as h5:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(chunks or shape)
        for _ in range(filters):
            plist.set_filter(h5py.h5z.FILTER_DEFLATE, h5py.h5z.FLAG_OPTIONAL, (9,))
        space, kind = h5py.h5s.create_simple(shape, wide), h5py.h5t.py_create(np.dtype(kind))
        made = h5py.h5d.create(h5.id, name.encode(), kind, space, plist)
        if stored:
            made.write_direct_chunk((0,) * len(shape), stored)
        if name == "kspace":
            scan(h5, name, "reconstruction_rss", "mask")


@named("deflate-bomb.h5", "deflate-bomb.mat")
def deflated_hdf5(path):
    chunked(path, "x", (64, 1024), "u1", zeros(2**32))


@named("deflate-twice.h5")
def deflated_twice(path):
    chunked(path, "x", (64, 1024), "u1", zlib.compress(zeros(2**33)), filters=2)


@named("claims-kspace.h5", "claims-x.h5")
def claims(path):
    chunked(path, path.stem[7:], (2**20, 1, 2**20, 2**20), "c8", b"", (1, 1, 8, 8))


@named("huge-chunk.h5")
def huge_chunk(path):
    chunked(path, "x", (4, 4), "u1", b"", (2**16, 2**15))


@named("slices-kspace.h5")
def many_kspace(path):
    chunked(path, "kspace", (2**22, 1, 2, 2), "c8", b"", (2**16, 1, 2, 2))


@named("images.h5")
def many_images(path):
    chunked(path, "x", (2**26, 1, 1), "u1", b"", (2**16, 1, 1))


@named("groups.h5")
def groups(path):
    with h5py.File(path, "w") as h5:
        own = [h5.create_group(f"g{k}") for k in range(12)]
        for one in own:
            for k, target in enumerate(own):
                one[f"l{k}"] = target


@named("tables.h5", "arrays.h5")
def many_entries(path):
    with h5py.File(path, "w", libver="latest") as h5:
        kind = h5py.string_dtype() if path.stem == "tables" else np.uint8
        made = h5.create_dataset("x", (1,), kind)
        for k in range(20_000):
            h5[f"n{k}"] = made


@named("bias-kspace.h5", "bias-x.h5")
def wide_part(path):
    """Complex numbers whose real part has another exponent: h5py calls it float64, in 4 bytes."""
    name = path.stem[5:]
    real, pair = h5py.h5t.IEEE_F32LE.copy(), h5py.h5t.create(h5py.h5t.COMPOUND, 8)
    real.set_ebias(639)
    pair.insert(b"r", 0, real)
    pair.insert(b"i", 4, h5py.h5t.IEEE_F32LE)
    with h5py.File(path, "w") as h5:
        scan(h5, name)
        space = h5py.h5s.create_simple((2, 2, 8, 8))
        made = h5py.h5d.create(h5.id, name.encode(), pair, space)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones((2, 2, 8, 8, 2), "f4"), pair)


@named("heap.h5")
def bad_heap(path):
    with h5py.File(path, "w") as h5:
        scan(h5)
    raw = path.read_bytes()
    at = raw.index(b"GCOL") + 16
    path.write_bytes(raw[:at] + b"\7\0" + raw[at + 2 :].replace(b"GCOL", b"GCOX"))


# .npy, .npz and MATLAB before 7.3


def npy(header, data=b"", version=1):
    text = header.encode() + b"\n"
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


HEADERS = {
    "object": "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "parentheses": "(" * 9000,
    "minus": "-" * 9000 + "1",
    "sum": "+".join("1" * 4000),
    "negative": "{'descr': '|u1', 'fortran_order': False, 'shape': (-4, -4), }",
    "overflow": "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
    "nothing": "{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,), }",
    "no-letters": "{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }",
    "axes": f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'1,' * 3000}), }}",
    "code": "__import__('os').system('touch canary')",
    "fields": f"{{'descr': {[(f'f{k}', '<f4') for k in range(500)]}, 'shape': (1,)}}",
    "million": f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'1' * 5000},), }}",
}


@named(*(f"{name}.npy" for name in HEADERS), *(f"{name}.npz" for name in ("object", "minus")))
def npy_header(path):
    content = npy(HEADERS[path.stem], bytes(16))
    if path.suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    else:
        path.write_bytes(content)


@named("long-header.npy", "claimed-header.npy")
def npy_long(path):
    content = npy("{" + " " * 2**22, version=2)
    path.write_bytes(content if path.stem == "long-header" else content[:8] + b"\xff" * 4)


@named("images.npy")
def many_npy_images(path):
    np.save(path, np.zeros((3 * 2**20, 1, 1), np.uint8))


@named("bomb.npz")
def npz_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        with archive.open("x.npy", "w") as member:
            member.write(npy(f"{{'descr':'|u1','fortran_order':False,'shape':({2**29},)}}"))
            for _ in range(32):
                member.write(bytes(2**24))


@named("images.npz")
def npz_images(path):
    np.savez_compressed(path, x=np.zeros((2**25, 1, 1), np.uint8))


@named("members.npz")
def npz_members(path):
    content = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", b"1")
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(40_000):
            archive.writestr(f"{k}.npy", content)


@named("encrypted.npz", "other-method.npz", "cut-member.npz")
def npz_bits(path):
    np.savez_compressed(path, x=np.zeros((9, 9)))
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\1\2")
    if path.stem == "encrypted":
        raw[6] |= 1
        raw[at + 8] |= 1
    elif path.stem == "other-method":
        raw[8:10] = raw[at + 10 : at + 12] = b"\x61\0"
    else:
        raw[60] ^= 255
    path.write_bytes(bytes(raw))


def mat5(elements):
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + elements


def element(kind, content):
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(dims, data, cls=9, kind=2):
    flags = element(6, struct.pack("<II", cls, 0))
    size = element(5, struct.pack(f"<{len(dims)}i", *dims))
    return element(14, flags + size + element(1, b"x") + element(kind, data))


@named("bomb.mat")
def mat_bomb(path):
    packed = zeros(2**30)
    path.write_bytes(mat5(struct.pack("<II", 15, len(packed)) + packed))


@named("claims.mat", "negative.mat")
def mat_claims(path):
    dims = (2**30, 2**30) if path.stem == "claims" else (-4, -4)
    path.write_bytes(mat5(matrix(dims, b"abcdefgh")))


@named("cells.mat")
def mat_cells(path):
    content = matrix((1, 1), b"a")
    for _ in range(2000):
        flags = element(6, struct.pack("<II", 1, 0))
        content = element(
            14, flags + element(5, struct.pack("<2i", 1, 1)) + element(1, b"x") + content
        )
    path.write_bytes(mat5(content))  # fmt: skip


# pictures


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, color, data, *more, interlaced=0):
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    chunks = [(b"IHDR", head), *more, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def rows(height, size, kind=4):
    return zlib.compress((bytes([kind]) + bytes(size)) * height, 9)


@named("wide.png", "tall.png", "grey.png", "laced.png")
def png_slow(path):
    width, height = (1, 700_000) if path.stem == "tall" else (700_000, 1)
    color, size = (4, 4) if path.stem == "grey" else (2, 6)
    if path.stem == "laced":
        path.write_bytes(png(1200, 1200, 16, 2, zeros(7201 * 1200 + 9999), interlaced=1))
    else:
        path.write_bytes(png(width, height, 16, color, rows(height, size * width)))


@named("flat8.png", "flat16.png", "flat1.png")
def png_flat(path):
    depth, color, size = {
        "flat8": (8, 2, 13000), "flat16": (16, 6, 9000), "flat1": (1, 3, 13000)
    }[path.stem]  # fmt: skip
    row = 1 + -(-size * depth * {2: 3, 6: 4, 3: 1}[color] // 8)
    palette = [(b"PLTE", bytes(6)), (b"tRNS", b"\0")] if color == 3 else []
    path.write_bytes(png(size, size, depth, color, zeros(row * size), *palette))


@named("claims.png", "empty.png")
def png_claims(path):
    size = 2**31 - 1 if path.stem == "claims" else 0
    path.write_bytes(png(size, size, 16, 2, zlib.compress(b"")))


@named("text.png", "profile.png", "texts.png")
def png_text(path):
    packed = zeros(2**30 if path.stem != "texts" else 900_000)
    kind = b"iCCP" if path.stem == "profile" else b"zTXt"
    more = [(kind, b"x\0\0" + packed)] * (3000 if path.stem == "texts" else 1)
    path.write_bytes(png(4, 4, 8, 0, rows(4, 4, 0), *more))


@named("frames.png")
def png_frames(path):
    control = struct.pack(">IIIIIHHBB", 0, 4, 4, 0, 0, 1, 10, 0, 0)
    more = [(b"acTL", struct.pack(">II", 2**31 - 1, 0)), *[(b"fcTL", control)] * 20_000]
    path.write_bytes(png(4, 4, 8, 0, rows(4, 4, 0), *more))


@named("script.png", "script.tif")
def postscript(path):
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n%%EndComments\n{} loop\n%%EOF\n"
    path.write_bytes(text)


@named("exif.jpg")
def exif_loop(path):
    Image.new("L", (16, 16)).save(path)
    tiff = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 8, 8)
    raw, body = path.read_bytes(), b"Exif\0\0" + tiff
    path.write_bytes(raw[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + raw[2:])


@named("scans.jpg")
def jpeg_scans(path):
    """A progressive JPEG of many scans, each of a few bytes that end all of its blocks at once."""
    out = io.BytesIO()
    Image.new("L", (8000, 8000)).save(out, "JPEG", progressive=True, quality=50)
    raw = out.getvalue()
    at = raw.rindex(b"\xff\xda")
    path.write_bytes(raw[:at] + raw[at:-2] * 400 + raw[-2:])


@named("claims.jpg", "claims.ppm", "claims.bmp", "claims.webp")
def picture_claims(path):
    Image.new("RGB", (16, 16)).save(path)
    raw = path.read_bytes()
    if path.suffix == ".jpg":
        at = raw.index(b"\xff\xc0") + 5
        raw = raw[:at] + b"\xff\xdc\xff\xdc" + raw[at + 4 :]
    elif path.suffix == ".ppm":
        raw = b"P6 " + b"9" * 8 + b" " + b"9" * 8 + raw[8:]
    elif path.suffix == ".bmp":
        raw = raw[:18] + struct.pack("<ii", 13000, 13000) + raw[26:]
    else:
        raw = raw[:26] + b"\xff\xff\xff\xff" + raw[30:]
    path.write_bytes(raw)


# TIFF


def tiff(pages, tail=b"", order="<"):
    """A TIFF of pages, each {tag: (type, count, value)}; `tail` stands at byte 8."""
    out, at = [], 8 + len(tail) + len(tail) % 2
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    for tags in pages:
        body = b"".join(struct.pack(order + "HHII", tag, *tags[tag]) for tag in sorted(tags))
        at += 6 + len(body)
        out.append(struct.pack(order + "H", len(tags)) + body + struct.pack(order + "I", at))
    out[-1] = out[-1][:-4] + bytes(4)
    return head + tail + bytes(len(tail) % 2) + b"".join(out)


def page(width, height, at=8, size=1, compression=1, **more):
    tags = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, compression),
        262: (3, 1, 1), 273: (4, 1, at), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, size),
    }  # fmt: skip
    return tags | {int(k[1:]): v for k, v in more.items()}


@named("pages.tif")
def tiff_many_pages(path):
    path.write_bytes(tiff([page(4, 4, size=16)] * 70_000, bytes(16)))


@named("shared.tif")
def tiff_shared(path):
    packed = zeros(4096 * 4096)
    path.write_bytes(tiff([page(4096, 4096, 8, len(packed), 8)] * 300, packed))


@named("offsets.tif")
def tiff_offsets(path):
    tail = struct.pack("<I", 8) * 300_000
    many = page(4, 4, t273=(4, 300_000, 8), t279=(4, 300_000, 8))
    path.write_bytes(tiff([many] * 5000, tail))


@named("strips.tif")
def tiff_strips(path):
    tail = struct.pack("<I", 8) * 500_000
    more = {"t273": (4, 500_000, 8), "t279": (4, 500_000, 8), "t278": (4, 1, 1)}
    path.write_bytes(tiff([page(4, 500_000, **more)], tail))


@named("tiles.tif")
def tiff_tiles(path):
    one = page(16000, 16000, t322=(3, 1, 16), t323=(3, 1, 16), t324=(4, 1, 8), t325=(4, 1, 256))
    for tag in (273, 278, 279):
        del one[tag]
    path.write_bytes(tiff([one], bytes(256)))


@named("self.tif", "cycle.tif", "children.tif")
def tiff_loops(path):
    raw = bytearray(tiff([page(4, 4, size=16)] * 3, bytes(16)))
    if path.stem == "self":
        raw[24 + 6 + 9 * 12 - 4 :][:4] = struct.pack("<I", 24)
        raw[24 + 2 + 9 * 12 : 24 + 6 + 9 * 12] = struct.pack("<I", 24)
    elif path.stem == "cycle":
        raw[-4:] = struct.pack("<I", 24)
    else:
        raw = tiff([page(4, 4, size=16, t330=(4, 1, 24))], bytes(16))
    path.write_bytes(bytes(raw))


@named("claims.tif", "count.tif", "depth.tif", "bits.tif")
def tiff_claims(path):
    more = {
        "claims": {"t256": (4, 1, 2**31), "t257": (4, 1, 2**31)},
        "count": {"t273": (4, 2**32 - 1, 8), "t270": (2, 2**32 - 1, 8)},
        "depth": {"t32997": (4, 1, 2**31)},
        "bits": {"t258": (3, 1, 65535), "t277": (3, 1, 65535)},
    }[path.stem]
    one = page(4, 4, size=16) | {int(k[1:]): v for k, v in more.items()}
    path.write_bytes(tiff([one], bytes(16)))


DESCRIPTIONS = {
    "imagej": b"ImageJ=1.53\nimages=2000000000\nhyperstack=true\nslices=2000000000\n",
    "lines": b"ImageJ=1.53\n" + b"a=1\n" * 1_000_000,
    "shaped": b'{"shape": [2000000000, 4, 4]}',
    "nested": b'{"shape": ' + b"[" * 500_000,
    "ome": b'<?xml version="1.0"?>' + BILLION.encode() + b"<OME></OME>",
    "ome-sizes": b'<?xml version="1.0"?>'
    b'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="a">'
    b'<Pixels DimensionOrder="XYZCT" Type="uint8" SizeX="4" SizeY="4" SizeZ="99999" '
    b'SizeC="9999" SizeT="9999"><TiffData/></Pixels></Image></OME>',
    "long": b"x" * 2**23,
    "svs": b"Aperio" + b"|a = 1" * 500_000,
}  # fmt: skip


@named(*(f"description-{name}.tif" for name in DESCRIPTIONS))
def tiff_description(path):
    text = DESCRIPTIONS[path.stem.removeprefix("description-")] + b"\0"
    one = page(4, 4, 8 + len(text), 16, t270=(2, len(text), 8))
    path.write_bytes(tiff([one], text + bytes(16)))


@named("lzw.tif", "plain.tif", "packbits.tif")
def tiff_four_hundred(path):
    image = Image.new("L", (300, 300))
    kind = {"lzw": "tiff_lzw", "plain": None, "packbits": "packbits"}[path.stem]
    image.save(path, save_all=True, append_images=[image] * 400, compression=kind)


@named("bomb.tif")
def tiff_bomb(path):
    packed = zeros(2**31)
    path.write_bytes(tiff([page(4, 4, 8, len(packed), 8)], packed))


# DICOM


@named("deflated.dcm")
def dicom_deflated(path):
    dicom(path, np.zeros((4, 4), np.int16), syntax=DeflatedExplicitVRLittleEndian)
    raw = path.read_bytes()
    ds = pydicom.dcmread(path)
    start = 132 + 12 + ds.file_meta.FileMetaInformationGroupLength
    body = zlib.decompress(raw[start:], -15)
    packing = zlib.compressobj(9, wbits=-15)
    out = packing.compress(body + struct.pack("<HH2sHI", 0x7FE1, 0x1010, b"OB", 0, 2**32 - 2))
    path.write_bytes(raw[:start] + out + packing.flush(zlib.Z_FULL_FLUSH) + raw_zeros(2**32 - 2))


@named("nested.dcm")
def dicom_nested(path):
    dicom(path, np.zeros((4, 4), np.int16))
    raw = path.read_bytes()
    at = raw.index(struct.pack("<HH", 0x0028, 0x0002))
    deep = struct.pack(
        "<HH2sHIHHI", 0x0018, 0x9737, b"SQ", 0, 2**32 - 1, 0xFFFE, 0xE000, 2**32 - 1
    )
    path.write_bytes(raw[:at] + deep * 50_000 + raw[at:])


@named("items.dcm", "elements.dcm")
def dicom_wide(path):
    dicom(path, np.zeros((4, 4), np.int16))
    raw = path.read_bytes()
    at = raw.index(struct.pack("<HH", 0x0028, 0x0002))
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 300_000
    wide = struct.pack("<HH2sHI", 0x0018, 0x9737, b"SQ", 0, len(items)) + items
    if path.stem == "elements":
        wide = b"".join(
            struct.pack("<HH2sH", 0x0019 + 2 * (k >> 16), k & 65535, b"UN", 0) + bytes(4)
            for k in range(4096, 150_000)
        )
        at = raw.index(struct.pack("<HH", 0x0020, 0x000E))
    path.write_bytes(raw[:at] + wide + raw[at:])


@named("claims.dcm", "frames.dcm", "few.dcm", "bits.dcm", "no-bits.dcm")
def dicom_claims(path):
    more = {
        "claims": {"Rows": 65535, "Columns": 65535},
        "few": {"NumberOfFrames": 2**31 - 1},
        "bits": {"BitsAllocated": 65535},
        "no-bits": {"BitsAllocated": 0, "BitsStored": 0},
        "frames": {},
    }[path.stem]
    frames = np.zeros((3_000_000, 1, 1), np.uint8) if path.stem == "frames" else None
    dicom(path, np.zeros((4, 4), np.uint8) if frames is None else frames, modality="US", **more)


@named("rle.dcm", "jpeg.dcm")
def dicom_packed(path):
    syntax = RLELossless if path.stem == "rle" else JPEGBaseline8Bit
    content = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 500_000
    if path.stem == "jpeg":
        out = io.BytesIO()
        Image.new("L", (12000, 12000)).save(out, "JPEG", quality=10)
        content = out.getvalue()
    dicom(path, np.zeros((4, 4), np.uint8), modality="US")
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([content])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.save_as(path, enforce_file_format=True)


@named("endless.dcm")
def dicom_endless(path):
    dicom(path, np.zeros((4, 4), np.uint8), modality="US")
    raw = path.read_bytes()
    at = raw.index(struct.pack("<HH", 0x7FE0, 0x0010))
    head = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 2**32 - 1)
    path.write_bytes(raw[:at] + head + bytes(2**22))


# NIfTI and MetaImage


NIFTI_DIMS = {
    "overflow": (3, 32767, 32767, 32767, 1, 1, 1, 1),
    "negative": (3, -4, -4, 4, 1, 1, 1, 1),
    "rank": (-1, 4, 4, 4, 1, 1, 1, 1),
    "zero": (3, 0, 4, 4, 1, 1, 1, 1),
}


@named(*(f"{name}.nii" for name in NIFTI_DIMS), "overflow.nii.gz")
def nifti_dims(path):
    nifti(path, np.zeros((4, 4, 4), np.uint8))
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    raw = raw[:40] + struct.pack("<8h", *NIFTI_DIMS[path.name.split(".")[0]]) + raw[56:]
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@named("overflow2.nii", "negative2.nii")
def nifti2_dims(path):
    nifti(path, np.zeros((4, 4, 4), np.uint8), version=2)
    raw, n = path.read_bytes(), 2**62 if path.stem == "overflow2" else -(2**62)
    path.write_bytes(raw[:16] + struct.pack("<4q", 3, n, n, 16) + raw[48:])


@named("offset.nii", "inside.nii", "nan.nii")
def nifti_offset(path):
    nifti(path, np.zeros((4, 4, 4), np.uint8))
    raw, offset = path.read_bytes(), {"offset": 1e30, "inside": 0.0, "nan": np.nan}[path.stem]
    path.write_bytes(raw[:108] + struct.pack("<f", offset) + raw[112:])


@named("bomb.nii.gz", "behind.nii.gz", "images.nii.gz", "series.nii.gz")
def nifti_bomb(path):
    stem = path.name.split(".")[0]
    sides = {"bomb": (32000, 32000, 4), "images": (1, 8000, 32000), "behind": (4, 4, 4)}
    nifti(path.with_suffix(""), np.zeros((1, 1, 1), np.uint8))
    raw = path.with_suffix("").read_bytes()
    path.with_suffix("").unlink()
    dims = (4, 1, 1, 16000, 16000) if stem == "series" else (3, *sides[stem], 1)
    head = raw[:40] + struct.pack("<5h", *dims) + raw[50:352]
    packing = zlib.compressobj(9, wbits=31)
    out = packing.compress(head) + packing.flush(zlib.Z_FULL_FLUSH)
    size = {"behind": 2**32}.get(stem, math.prod(dims[1:]))
    check = zlib.crc32(head)
    for _ in range(size >> 20 if size < 2**30 else 0):  # of a bomb, nobody sees the end
        check = zlib.crc32(bytes(2**20), check)
    check = zlib.crc32(bytes(size & (2**20 - 1)), check)
    path.write_bytes(out + raw_zeros(size) + struct.pack("<II", check, (size + 352) % 2**32))


METAIMAGES = {
    "passwd.mhd": ("4 4", "/etc/passwd"),
    "above.mhd": ("4 4", "../secret.raw"),
    "device.mhd": ("4 4", "zero.raw"),
    "pipe.mhd": ("4 4", "pipe.raw"),
    "list.mhd": ("4 4", "LIST"),
    "pattern.mhd": ("4 4 2", "x%03d.raw 1 2 1"),
    "itself.mhd": ("4 4", "itself.mhd"),
    "nul.mhd": ("4 4", "a\0b"),
    "images.mha": ("1 1 67108864", "LOCAL"),
    "bomb.mha": ("4 4", "LOCAL"),
    "claims.mha": ("999999999 999999999 999999999 999999999", "LOCAL"),
    "digits.mha": ("9" * 5000 + " 4", "LOCAL"),
    "negative.mha": ("-4 -4", "LOCAL"),
    "huge.mhd": ("4 4", "huge.raw"),
}


@named(*METAIMAGES)
def metaimage(path):
    size, file = METAIMAGES[path.name]
    if path.stem == "device":
        path.with_name("zero.raw").symlink_to("/dev/zero")
    if path.stem == "pipe":
        os.mkfifo(path.with_name("pipe.raw"))
    if path.stem == "huge":  # a hole: large, and of no size on the disk
        with open(path.with_name("huge.raw"), "wb") as raw:
            raw.truncate(2**40)
    local = zeros({"images": 2**26, "bomb": 2**31}.get(path.stem, 16)) if file == "LOCAL" else b""
    lines = [f"NDims = {len(size.split())}", f"DimSize = {size}", "ElementType = MET_UCHAR"]
    lines += [f"CompressedData = {file == 'LOCAL'}", f"ElementDataFile = {file}", ""]
    path.write_bytes("\n".join(lines).encode() + local)


# zips


def picture():
    out = io.BytesIO()
    Image.new("L", (4, 4)).save(out, "PNG")
    return out.getvalue()


def directory(path, name, local, count, record):
    """A zip whose directory has `count` members, of which each is the same bytes of the file."""
    names = [name.format(k).encode() for k in range(count)]
    made = (20, 0, 20, 0, *record)
    entries = b"".join(
        struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", *made, len(n), 0, 0, 0, 0, 0, 0) + n
        for n in names
    )
    start = len(local)
    wide = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(entries), start
    )
    wide += struct.pack("<4sLQL", b"PK\6\7", 0, start + len(entries), 1)
    few, at = min(count, 65535), start
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, few, few, len(entries), at, 0)
    path.write_bytes(local + entries + (wide if count > 65535 else b"") + end)


def member(content, method, size, check):
    """The local header and the content of a member without a name, and its record."""
    record = (0, method, 0, 0, check, len(content), size)
    head = struct.pack("<4s2B4HL2L2H", b"PK\3\4", 20, 0, *record[:4], *record[4:], 0, 0)
    return head + content, record


@named("members.zip", "unnamed.zip", among=ARCHIVES)
def zip_members(path):
    content = picture()
    local, record = member(content, 0, len(content), zlib.crc32(content))
    directory(path, "{}.png" if path.stem == "members" else "IM{}", local, 300_000, record)


@named("overlapping.zip", among=ARCHIVES)
def zip_overlapping(path):
    content = raw_zeros(200 * 2**20)
    local, record = member(content, 8, 200 * 2**20, zlib.crc32(bytes(200 * 2**20)))
    directory(path, "{}.npy", local, 5000, record)


@named("million.zip", among=ARCHIVES)
def zip_million(path):
    local, record = member(b"", 0, 0, 0)
    directory(path, "{}", local, 1_000_000, record)


DAMAGE = {"crc": 45, "packed": 60, "name": 31, "signature": 2}


ODD = ("method.zip", "secret.zip", "lzma.zip", "nested.zip", "names.zip")
DAMAGED = [f"{kind}-{end}.zip" for kind in DAMAGE for end in ("png", "IM", "h5", "dcm", "nii")]


@named(*DAMAGED, *ODD, among=ARCHIVES)
def zip_damaged(path):
    kind, _, ending = path.stem.partition("-")
    content = picture() * 20
    method = zipfile.ZIP_LZMA if kind == "lzma" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(f"a.{ending}".replace(".IM", "") if ending else "a", content)
        archive.writestr("b.png", picture())
        if kind == "nested":
            archive.writestr("c.zip", b"PK\5\6" + bytes(18))
        if kind == "names":
            for name in ("../../up.png", "/etc/x.png", "C:\\x.png", "b.png/", "\udcff.png"[1:]):
                archive.writestr(name, picture())
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\1\2")
    if kind in DAMAGE:
        raw[DAMAGE[kind]] ^= 255
    elif kind == "method":
        raw[8:10] = raw[at + 10 : at + 12] = b"\x61\0"
    elif kind == "secret":
        raw[6] |= 1
        raw[at + 8] |= 1
    elif kind == "lzma":  # a dictionary of 4 GB
        raw[36:40] = b"\xff" * 4
    path.write_bytes(bytes(raw))


# no ordinary files


ENDINGS = ("png", "tif", "npy", "npz", "h5", "mat", "nii", "nii.gz", "mha", "dcm", "zip", "IM0")


@named(*(f"pipe.{ending}" for ending in ENDINGS), among=SPECIAL)
def pipe(path):
    os.mkfifo(path)


@named(*(f"zero.{ending}" for ending in ENDINGS), among=SPECIAL)
def device(path):
    path.symlink_to("/dev/zero")


@named("itself.png", "gone.png", among=SPECIAL)
def bad_link(path):
    path.symlink_to(path if path.stem == "itself" else "nowhere.png")


@named("pipes", among=SPECIAL)
def folder_of_pipes(path):
    path.mkdir()
    os.mkfifo(path / "IM0")
    (path / "IM1").symlink_to(path / "IM0")
    (path / "zero.png").symlink_to("/dev/zero")
    (path / "up").symlink_to("..")
    (path / "a.png").write_bytes(picture())
