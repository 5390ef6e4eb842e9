"""Malicious and broken files of weights, made byte by byte: what is in them, and what is told."""

import io
import pickle
import struct
import zipfile

import numpy as np
import safetensors.torch
import torch

COMMAND = "touch planted"
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)


def text(value):
    return b"X" + struct.pack("<I", len(value.encode("utf-8"))) + value.encode("utf-8")


def call(name, *arguments):
    """The steps that call a function; arguments are texts, or steps themselves."""
    steps = [each if isinstance(each, bytes) else text(each) for each in arguments]
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n(".encode() + b"".join(steps) + b"tR"


def in_pickle(steps):
    return b"\x80\x02" + steps + b"."


def in_legacy(steps):
    return MAGIC + in_pickle(steps) + pickle.dumps([], 2)


def in_zip(steps, **records):
    return zipped({"data.pkl": in_pickle(steps), "version": b"3\n", **records})


def zipped(records, compression=zipfile.ZIP_STORED, root="archive/"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(root + name, content)
    return file.getvalue()


def saved(content, **settings):
    file = io.BytesIO()
    torch.save(content, file, **settings)
    return file.getvalue()


ATTRIBUTES = call(
    "builtins.getattr",
    call("builtins.getattr", b"cmmengine.logging.history_buffer\nHistoryBuffer\n", "__init__"),
    "__globals__",
)
NESTED = in_legacy(call("os.system", COMMAND))
SYSTEM = b"cos\nsystem\n"

# Steps that would run code, and what the refusal must name.
CODE = {
    "os_system": (call("os.system", COMMAND), "asks for os.system"),
    "posix_system": (call("posix.system", COMMAND), "asks for posix.system"),
    "popen": (call("subprocess.Popen", text("touch"), b"]"), "asks for subprocess.Popen"),
    "check_output": (call("subprocess.check_output", COMMAND), "asks for subprocess.check_output"),
    "eval": (call("builtins.eval", f"__import__('os').system({COMMAND!r})"), "builtins.eval"),
    "exec": (call("builtins.exec", "open('planted', 'w')"), "builtins.exec"),
    "exec_of_python_2": (call("__builtin__.eval", "open('planted', 'w')"), "builtins.eval"),
    "open": (call("builtins.open", "planted", "w"), "builtins.open"),
    "import": (call("builtins.__import__", "antigravity"), "builtins.__import__"),
    "import_module": (call("importlib.import_module", "this"), "importlib.import_module"),
    "runpy": (call("runpy._run_code", "open('planted', 'w')", b"}"), "runpy._run_code"),
    "partial": (call("functools.partial", SYSTEM, COMMAND), "functools.partial, os.system"),
    "map": (call("builtins.list", call("builtins.map", SYSTEM, b"]X\x01\0\0\0xa")), "builtins.map"),
    "attrgetter": (call("operator.attrgetter", "system"), "operator.attrgetter"),
    "methodcaller": (call("operator.methodcaller", "system", COMMAND), "operator.methodcaller"),
    "copyreg": (call("copyreg._reconstructor", SYSTEM, SYSTEM, b"N"), "copyreg._reconstructor"),
    "code_type": (call("types.FunctionType", call("types.CodeType", b"K\x01")), "types.CodeType"),
    "torch_load": (call("torch.load", "evil.pth"), "asks for torch.load"),
    "torch_hub": (call("torch.hub.load", "owner/repo", "model"), "asks for torch.hub.load"),
    "torch_jit": (
        call("torch.jit._serialization.load", "evil.pt"),
        "torch.jit._serialization.load",
    ),
    "cpp_extension": (
        call("torch.utils.cpp_extension.load", "x"),
        "torch.utils.cpp_extension.load",
    ),
    "numpy_load": (call("numpy.load", "evil.npy"), "asks for numpy.load"),
    "numpy_runstring": (
        call("numpy.testing._private.utils.runstring", "open('planted', 'w')", b"}"),
        "numpy.testing._private.utils.runstring",
    ),
    "numpy_ctypes": (call("numpy.ctypeslib.load_library", "evil", "."), "ctypeslib.load_library"),
    "attributes_of_mm_classes": (ATTRIBUTES, "'__init__', which leads to code"),
    "attributes_of_others": (call("builtins.getattr", b"]", "append"), "getattr of something"),
    "pdb": (call("pdb.run", "open('planted', 'w')"), "asks for pdb.run"),
    "bytes_of_a_number": (
        call("builtins.bytearray", b"\x8a\x06\0\0\0\0\0\x7f"),
        "bytes made of a int",
    ),
    "codec": (call("_codecs.encode", "x", "idna"), "bytes in the encoding 'idna'"),
    "model": (
        call("models.yolo.Model") + call("torch.nn.modules.conv.Conv2d"),
        "pickled model object.*: models.yolo.Model, torch.nn.modules.conv.Conv2d.*state_dict",
    ),
    "key_of_tuples": (b"}" + b")" + b"\x85" * 30_000 + b"Ns", "a key of type tuple"),
    "deep_lists": (b"]" * 20_000 + b"a" * 19_999, "nested over 100 deep"),
    "list_in_itself": (b"]q\0h\0a", "nested over 100 deep"),
    "state_of_a_class": (b"ccollections\nOrderedDict\n}b", "a state for a type"),
    "state_of_a_function": (b"c_codecs\nencode\n}b", "a state for a function"),
    "items_of_a_list": (b"]K\0K\0s", "setting items of a list"),
    "call_of_a_text": (text("x") + b")R", "a call of a str"),
    "call_of_a_tensor_class": (b"ctorch\nTensor\nJ\xff\xff\xff\x7f\x85R", "a call of a str"),
    "instance": (b"(X\x01\0\0\0xios\nsystem\n", "asks for os.system"),
}


def array(dtype, raw, shape=b"K\x01\x85", flags=b"\x89"):
    empty = b"(cnumpy\nndarray\nK\0\x85c_codecs\nencode\n(X\1\0\0\0bX\6\0\0\0latin1tRt"
    start = b"cnumpy.core.multiarray\n_reconstruct\n" + empty + b"R"
    kind = (
        b"cnumpy\ndtype\n("
        + text(dtype)
        + b"K\0K\1tR(K\3X\1\0\0\0<NNNJ\xff\xff\xff\xffJ"
        + (b"\xff\xff\xff\xffK\0tb")
    )
    return start + b"(K\1" + shape + kind + flags + raw + b"tb"


PICKLES = {
    "extension_registry": (in_pickle(b"}\x82\x01"), "is no step of a pickle of weights"),
    "extension_registry_4": (in_pickle(b"}\x84\x01\0\0\0"), "is no step of a pickle of weights"),
    "computed_names": (
        b"\x80\x04\x8c\x06system\x94\x8c\x02os\x94\x8c\x01x00h\x01h\x00\x93"
        + text(COMMAND)
        + b"\x85R.",
        "asks for os.system",
    ),
    "names_of_numbers": (b"\x80\x04K\x01K\x02\x93.", "a name that is no text"),
    "kept_outside": (in_pickle(text("storage") + b"Q"), "kept outside of the pickle"),
    "new_object": (
        in_pickle(b"csubprocess\nPopen\n" + text("x") + b"\x85\x81"),
        "subprocess.Popen",
    ),
    "new_object_with_keywords": (b"\x80\x04cos\nsystem\n)}\x92.", "asks for os.system"),
    "obj": (in_pickle(b"(cos\nsystem\n" + text(COMMAND) + b"o"), "asks for os.system"),
    "nested_torch_file": (
        in_pickle(
            call("torch.storage._load_from_bytes", b"B" + struct.pack("<I", len(NESTED)) + NESTED)
        ),
        "asks for os.system",
    ),
    "all_names": (
        in_pickle(b"(" + b"".join(call(f"evil.f{i}") for i in range(5)) + b"t"),
        "evil.f0, evil.f1, evil.f2, evil.f3, evil.f4, which",
    ),
    "tensor_without_storage": (
        in_pickle(call("torch._utils._rebuild_tensor_v2", b"K\1", b"K\0", b")", b")")),
        "a tensor without a storage",
    ),
    "array_of_objects": (in_pickle(array("O8", b"](K\1e")), "dtype 'O8'"),
    "array_of_lists": (in_pickle(array("f4", b"](K\1e")), "a numpy array of objects"),
    "array_of_records": (in_pickle(array("V8", b"U\x080000000")), "dtype 'V8'"),
    "array_too_large": (
        in_pickle(array("f4", b"U\4\0\0\0\0", b"J\xff\xff\xff\x7f\x85")),
        "of 4 bytes",
    ),
    "array_of_negative_size": (
        in_pickle(array("f4", b"U\0", b"J\xff\xff\xff\xff\x85")),
        "the shape",
    ),
    "array_without_end": (in_pickle(array("f4", b"U\xff\0\0\0\0")), "cut short"),
    "giant_length": (in_pickle(b"\x8e" + struct.pack("<Q", 2**62) + b"xxxx"), "cut short"),
    "giant_negative_length": (in_pickle(b"\x8b" + struct.pack("<i", -5)), "cut short"),
    "missing_memo": (in_pickle(b"h\x07"), "KeyError"),
    "empty_stack": (in_pickle(b"\x87"), "IndexError"),
    "steps_without_end": (in_pickle(b"N0" * 1_000_100), "over 2000000 steps"),
    "trailing": (in_pickle(b"}") + b"garbage", "7 bytes follow its end"),
    "truncated_pickle": (pickle.dumps({"w": np.zeros(100)}, 2)[:-30], "cut short"),
    "no_stop": (in_pickle(b"}")[:-1], "cut short"),
}

TENSOR = {"w": torch.arange(64.0)}
ZIP = saved(TENSOR)
LEGACY = saved(TENSOR, _use_new_zipfile_serialization=False)


def stored(key="0", numel=b"K\x04", size=b"K\x04\x85", stride=b"K\x01\x85"):
    """A dict of one tensor, in the steps of ``torch.save``."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + numel
    return (
        b"}"
        + text("w")
        + b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + (b"tQK\0" + size + stride + b"\x89ccollections\nOrderedDict\n)RtRs")
    )


def claiming(content, old, new):
    assert content.count(old), old
    return content.replace(old, new)


ELEMENTS = {"data/0": bytes(16)}
PLAIN_ZIP = in_zip(stored(), **ELEMENTS)  # by zipfile, whose directory is simpler than torch's
BOMB = zipped({"data.pkl": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
GIANT = b"\x8a\x06\0\0\0\0\0\x7f"
ZIPS = {
    "truncated_zip": (ZIP[:-200], "cut short"),
    "half_a_zip": (ZIP[: len(ZIP) // 2], "cut short"),
    "start_of_a_zip": (ZIP[:10], "cut short"),
    "hollow_zip": (ZIP[:300] + ZIP[500:], "cut short|not where the archive says"),
    "zip_bomb": (BOMB, "compressed, .* bytes that claim to be 50000000"),
    "zip_bomb_of_gigabytes": (
        claiming(BOMB, struct.pack("<I", 50_000_000), struct.pack("<I", 0xFFFFFF00)),
        "claim to be 4294967040",
    ),
    "sizes_that_lie": (
        claiming(
            PLAIN_ZIP,
            struct.pack("<II", 16, 16),
            struct.pack("<II", 9999999, 9999999),
        ),
        "cut short.*data/0 has 9999999 bytes",
    ),
    "encrypted": (
        claiming(
            zipped({"data.pkl": b"}."}), b"PK\1\2\x14\x03\x14\0\0\0", b"PK\1\2\x14\x03\x14\0\1\0"
        ),
        "encrypted",
    ),
    "entries_before_its_start": (PLAIN_ZIP[:-5] + b"\xff" + PLAIN_ZIP[-4:], "cut short"),
    "two_entries_of_one_name": (
        zipped({"data.pkl": in_pickle(b"}"), "DATA.pkl": b"x"}),
        "two entries",
    ),
    "leads_outside": (zipped({"data.pkl": b"}.", "../../planted": b"x"}), "leads outside"),
    "absolute": (zipped({"tmp/planted": b"x"}, root="/"), "leads outside"),
    "overlapping": (
        claiming(
            zipped({"data.pkl": in_pickle(stored()), "data/0": bytes(16), "data/1": bytes(4000)}),
            struct.pack("<II", 16, 16),
            struct.pack("<II", 3990, 3990),
        ),
        "overlap|cut short",
    ),
    "torchscript": (
        zipped({"data.pkl": b"}.", "constants.pkl": b").", "code/__torch__.py": b"op"}),
        "TorchScript program.*state_dict",
    ),
    "some_zip": (
        zipped({"photo.jpg": b"x"}),
        "archive of something else .it holds archive/photo.jpg",
    ),
    "empty_zip": (zipped({}), "an empty zip archive"),
    "missing_elements": (in_zip(stored()), "data/0 has 0 bytes, not 16"),
    "more_elements_than_there_are": (
        in_zip(stored(numel=GIANT), **ELEMENTS),
        "data/0 has 16 bytes",
    ),
    "tensor_beyond_its_storage": (in_zip(stored(size=b"M\xff\xff\x85"), **ELEMENTS), "too small"),
    "stride_beyond_its_storage": (in_zip(stored(stride=GIANT + b"\x85"), **ELEMENTS), "too small"),
    "giant_expanded_tensor": (
        in_zip(stored(size=GIANT + b"\x85", stride=b"K\0\x85"), **ELEMENTS),
        r"w \(shape \(139637976727552,\), of which the file holds only a part",
    ),
    "giant_expanded_square": (
        in_zip(stored(size=GIANT + GIANT + b"\x86", stride=b"K\0K\0\x86"), **ELEMENTS),
        "too small",
    ),
    "key_that_leads_outside": (in_zip(stored(key="../../0"), **ELEMENTS), "has 0 bytes"),
    "protocol_4": (
        saved({"w": [1] * 3}, pickle_protocol=4),
        "refuses it .Unsupported operand 149.*another pickle protocol",
    ),
}
LEGACIES = {
    "truncated_legacy": (LEGACY[:-30], "cut short.*is not there"),
    "start_of_legacy": (LEGACY[:60], "cut short"),
    "trailing_legacy": (LEGACY + b"x", "1 bytes follow its end"),
    "wrong_magic": (claiming(LEGACY, b"P\x19.", b"P\x18."), "magic|kept outside|follow its end"),
    "sizes_of_legacy_that_lie": (claiming(LEGACY, b"K@N", b"KAN"), "cut short"),
    "storages_not_listed": (MAGIC + in_pickle(stored()) + pickle.dumps([], 2), "list of storages"),
    "giant_legacy": (
        MAGIC + in_pickle(stored(numel=GIANT)) + pickle.dumps(["0"], 2) + bytes(8),
        "cut short|which is too small",
    ),
    "module_legacy": (
        in_legacy(b"(" + text("module") + b"cmodels\nNet\n" + text("a.py") + text("src") + b"tQ"),
        "asks for models.Net",
    ),
}

SAFE = safetensors.torch.save({"w": torch.arange(4.0), "v": torch.ones(2)}, {"by": "us"})
HEADER = (
    b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
    b'"v":{"dtype":"F32","shape":[4],"data_offsets":[%b]}}'
)


def safetensors_of(header, data=bytes(32)):
    return struct.pack("<Q", len(header)) + header + data


SAFETENSORS = {
    "truncated_safetensors": (SAFE[:-4], "cut short"),
    "header_bomb": (b"\xff" * 7 + b"\x7f" + SAFE[8:], "header says 9223372036854775807 bytes"),
    "overlapping_safetensors": (safetensors_of(HEADER % b"8,24"), "cut short or damaged"),
    "offsets_beyond": (safetensors_of(HEADER % b"16,9999"), "cut short or damaged"),
    "broken_header": (safetensors_of(b'{"w":{"dtype":'), "cut short or damaged"),
    "unknown_dtype": (
        safetensors_of((HEADER % b"16,32").replace(b"F32", b"X32")),
        "cut short or da",
    ),
}
FOREIGN = {
    "empty": (b"", "cut short.*it is empty"),
    "web_page": (b"\n<!DOCTYPE html><html>404 Not Found</html>", "a web page.*get it again"),
    "text": (b"Quota exceeded for this file.\n" * 20, "is a text, not weights.*Quota exceeded"),
    "json": (b'{"a": [{"message": "rate limit exceeded"}]}', "is a text, not weights"),
    "lfs_pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file, as Keras writes"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:" + bytes(90), "an ONNX model"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "compressed; unpack it first"),
    "tar": (b"pickle".ljust(257, b"\0") + b"ustar  \0" + bytes(247), "a tar archive"),
    "array": (b"\x93NUMPY\x01\0" + bytes(100), "a single numpy array"),
    "noise": (np.random.default_rng(1).bytes(4000), "no step of a pickle|cut short"),
    "zeros": (bytes(4000), "no step of a pickle"),
}
VALUES = {
    "nan": (saved({"w": torch.tensor([1.0, float("nan")])}), "w .NaN or infinity at 1 of 2 places"),
    "infinity": (saved({"w": torch.full((3,), torch.inf)}), "w .NaN or infinity at 3 of 3 places"),
    "integers": (saved({"w": torch.arange(3)}), "w .int64"),
    "complex": (saved({"w": torch.ones(3, dtype=torch.complex64)}), "w .complex64"),
    "booleans": (pickle.dumps({"w": np.ones(3, bool)}, 2), "w .bool"),
    "not_tensors": (
        pickle.dumps({"w": [1.0], "v": "x"}, 2),
        r"2 of its 2 .*w \(a list\), v \(a str",
    ),
    "sparse": (saved({"w": torch.eye(3).to_sparse()}), "torch._utils._rebuild_sparse_tensor"),
    "meta": (saved({"w": torch.empty(3, device="meta")}), "_rebuild_meta_tensor_no_storage"),
}

CONTAINERS = {"pkl": in_pickle, "pth": in_zip, "legacy.pth": in_legacy}
FILES = {
    f"{name}.{suffix}": (write(steps), told)
    for name, (steps, told) in CODE.items()
    for suffix, write in CONTAINERS.items()
} | {
    f"{name}.bin": file
    for group in (PICKLES, ZIPS, LEGACIES, SAFETENSORS, FOREIGN, VALUES)
    for name, file in group.items()
}

# Harmless where nothing that they name is imported: what is read of them.
HARMLESS = {
    "giant_memo_index.pkl": (in_pickle(b"}r\xff\xff\xff\x7f"), {}),
    "giant_frame.pkl": (b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f}.", {}),
    "system_of_mmdet.pkl": (
        in_pickle(b"}" + text("meta") + call("mmdet.os.system", COMMAND) + b"s"),
        {"meta": None},
    ),
    "system_of_mmcv.pth": (
        in_zip(b"}" + text("meta") + call("mmcv.os.system", COMMAND) + b"s"),
        {"meta": None},
    ),
}
