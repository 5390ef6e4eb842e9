"""What a file of weights is, told from its content, and whether its parts fit in it."""

import mmap
import pickle
import re
import struct
import zipfile
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from ..errors import CheckpointError
from .pickle_machine import PickleMachine
from .pickle_values import StorageData

# The first pickle of a file that torch.save wrote before PyTorch 1.6, in protocol 2 and later.
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_MAX_TOLD = 6

# How files begin that hold no weights, or not in a way that can be read here.
_FOREIGN = (
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes; save the weights from PyTorch"),
    (
        rb"\x08[\x01-\x20][\x12\x1a\x3a\x42]",
        "an ONNX model; take the weights that it was exported from",
    ),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "compressed; unpack it first"),
    (
        rb"(?s).{257}ustar",
        "a tar archive; unpack it first, or, if a PyTorch older than 0.1.10 wrote it, load it "
        "with PyTorch 1.x and save its state dict again",
    ),
    (rb"\x93NUMPY", "a single numpy array; save a dict of named arrays"),
    (rb"PK\x05\x06", "an empty zip archive; get it again"),
    (
        rb"version https://git-lfs",
        "a pointer of Git LFS in place of the file; fetch the file with: git lfs pull",
    ),
    (
        rb"\s*<(?i:!doctype|html|head|\?xml|error)",
        "a web page, as a failed download leaves it; get it again, from the address of the file",
    ),
)


def foreign_format(head: bytes) -> str | None:
    """What a file is that begins so and can hold no weights, with what to do; None if unknown."""
    return next((told for begin, told in _FOREIGN if re.match(begin, head)), None)


def is_text(head: bytes) -> bool:
    """Whether a file that begins so is for people."""
    text = head.decode("utf-8", "ignore")
    return len(text.encode()) > len(head) - 4 and all(c.isprintable() or c.isspace() for c in text)


@dataclass(frozen=True)
class TorchZip:
    """The parts of a file of ``torch.save``: its pickle, and the sizes of all records in bytes."""

    pickled: bytes
    sizes: dict[str, int]


def open_torch_zip(content: mmap.mmap, name: str) -> TorchZip:
    """Check a zip archive before anything is taken from it.

    Raises:
        CheckpointError: It is cut short, compressed, inconsistent, or not from ``torch.save``.
    """
    try:
        entries = zipfile.ZipFile(cast(BinaryIO, content)).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OSError) as error:
        raise cut_short(name, error) from error
    if not entries:
        raise CheckpointError(f"{name} is a zip archive without content; get it again")
    for entry in entries:
        _check_entry(entry, len(content), name)
    names = [entry.filename for entry in entries]
    # PyTorch's reader of zip files takes names of other case for the same.
    if len({each.casefold() for each in names}) < len(names):
        raise CheckpointError(
            f"{name} holds two entries of one name, so it is not as PyTorch left it"
        )
    if sum(entry.file_size for entry in entries) > len(content):
        raise CheckpointError(f"{name} holds entries that overlap, so it is not as PyTorch left it")
    root = names[0].split("/")[0] + "/"
    records = {each.filename.removeprefix(root): each for each in entries}
    if "constants.pkl" in records or any(each.startswith("code/") for each in records):
        raise CheckpointError(
            f"{name} is a TorchScript program, not weights. Save its tensors alone: "
            "torch.save(torch.jit.load(path).state_dict(), 'weights.pth')"
        )
    if "data.pkl" not in records:
        raise CheckpointError(
            f"{name} is a zip archive of something else (it holds {', '.join(names[:_MAX_TOLD])}); "
            "if the weights are among it, unpack it first"
        )
    sizes = {each: entry.file_size for each, entry in records.items()}
    return TorchZip(_content_of(records["data.pkl"], content, name), sizes)


def _check_entry(entry: zipfile.ZipInfo, file_size: int, name: str) -> None:
    told = entry.filename[:80]
    if entry.flag_bits & 1:
        raise CheckpointError(f"{name} is encrypted; save it again without a password")
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise CheckpointError(
            f"{name} holds {told} compressed, {entry.compress_size} bytes that claim to be "
            f"{entry.file_size}; PyTorch never compresses. Unpack it first if it is an archive"
        )
    if entry.filename.startswith("/") or ".." in re.split(r"[/\\]", entry.filename):
        raise CheckpointError(f"{name} holds an entry that leads outside of it: {told}")
    end = entry.header_offset + _LOCAL_HEADER.size + entry.file_size
    if entry.header_offset < 0 or end > file_size:
        raise cut_short(name, f"{told} has {entry.file_size} bytes, the whole file {file_size}")


def _content_of(entry: zipfile.ZipInfo, content: mmap.mmap, name: str) -> bytes:
    # zipfile would check a checksum, which torch.save leaves out on demand.
    header = content[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if magic != b"PK\x03\x04" or start + entry.file_size > len(content):
        raise cut_short(name, f"{entry.filename[:80]} is not where the archive says")
    return content[start : start + entry.file_size]


@dataclass(frozen=True)
class LegacyFile:
    """A file of ``torch.save`` before PyTorch 1.6: its object, as `PickleMachine` reads it."""

    machine: PickleMachine
    value: Any
    starts: dict[str, int]


def open_legacy(file: BinaryIO, size: int) -> LegacyFile:
    """Check five pickles and the storages behind them, before anything is taken.

    Args:
        file: In memory or mapped, at its start.
        size: Its size in bytes.

    Raises:
        EOFError: It is cut short, or damaged.
        pickle.UnpicklingError: See `PickleMachine.load`.
    """
    machine = PickleMachine(file, with_storages=True)
    if machine.load() != _MAGIC_NUMBER:
        raise EOFError("its magic number is wrong")
    machine.load()  # protocol
    machine.load()  # system of the writer
    value = machine.load()
    keys = machine.load()
    names = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
    if sorted(names) != sorted(machine.storages) or len(names) != len(keys):
        raise pickle.UnpicklingError("its list of storages is not that of its tensors")
    position = file.tell()
    starts = {}
    for key in keys:
        storage: StorageData = machine.storages[key]
        count = int.from_bytes(file.read(8), "little", signed=True)
        starts[key] = position + 8
        position = starts[key] + storage.nbytes
        if count != storage.numel or position > size:
            raise EOFError(f"its storage {str(key)[:40]} of {storage.nbytes} bytes is not there")
        file.seek(position)
    if position != size:
        raise EOFError(f"{size - position} bytes follow its end")
    return LegacyFile(machine, value, starts)


def cut_short(name: str, reason: object) -> CheckpointError:
    """The error for a file that is broken."""
    told = (str(reason).strip() or type(reason).__name__).splitlines()[0]
    return CheckpointError(
        f"the checkpoint {name} cannot be read, it may be cut short or damaged: {told}. Get it "
        "again, and compare its size with the published one"
    )
