"""fovea/io safetensors and .pt readers against the safetensors and torch packages, and against hostile pickles."""
import collections
import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from probe import ask, digest, refusal

NAMES = {torch.bool: "bool", torch.uint8: "u8", torch.int8: "i8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64",
         torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32", torch.float64: "f64"}


UNSIGNED = {torch.uint16: "u16", torch.uint32: "u32", torch.uint64: "u64"}  # torch.save has no storage type for them


def of(tensor):
    """What the probe says of a tensor."""
    tensor = tensor.detach().contiguous()
    raw = tensor.reshape(-1).view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    return {"dtype": (NAMES | UNSIGNED)[tensor.dtype], "shape": list(tensor.shape), "sha256": digest(raw.numpy())}


def example(names=NAMES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for dtype, name in names.items():
        for shape in [(), (1,), (3, 5), (2, 0, 4), (2, 3, 4, 5)]:
            t = torch.randn(shape, generator=generator) * 50
            tensors[f"{name}.{'x'.join(map(str, shape))}"] = (t > 0) if dtype == torch.bool else t.abs().to(dtype) if dtype in UNSIGNED else t.to(dtype)
    return tensors


def check(path, tensors):
    assert ask("tensors", path) == {name: of(t) for name, t in sorted(tensors.items())}


def test_reads_what_the_safetensors_package_wrote(tmp_path):
    save_file(example(NAMES | UNSIGNED), tmp_path / "a.safetensors", metadata={"format": "pt"})
    check(tmp_path / "a.safetensors", example(NAMES | UNSIGNED))


def test_the_safetensors_package_reads_what_we_write(tmp_path):
    tensors = example(NAMES | UNSIGNED)
    save_file(tensors, tmp_path / "a.safetensors")
    ask("convert", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    back = load_file(tmp_path / "b.safetensors")
    assert back.keys() == tensors.keys()
    for name, t in tensors.items():
        assert back[name].dtype == t.dtype and torch.equal(back[name], t), name
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes(), "the same order and padding as the reference"


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "network_weights"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_torch_saved(tmp_path, wrap, protocol):
    tensors = collections.OrderedDict(example())
    saved = tensors if wrap is None else {"epoch": 300, "best": 0.75, "name": "swin", "none": None, "flags": [True, 2**40, -7, (1, 2, 3, 4)], "size": torch.Size([1, 2]), wrap: tensors}
    torch.save(saved, tmp_path / "a.pt", pickle_protocol=protocol)
    check(tmp_path / "a.pt", tensors)


def test_strided_shared_and_parameter_tensors_come_out_contiguous(tmp_path):
    base = torch.arange(120.0).reshape(4, 5, 6)
    tensors = {"base": base, "t": base.permute(2, 0, 1), "rows": base[1:3, ::2], "scalar": base[3, 4, 5], "expanded": base[0, 0, :1].expand(7),
               "p": torch.nn.Parameter(torch.ones(3)), "half": torch.arange(10).half()[2:9:3], "empty": base[:0]}
    torch.save(tensors, tmp_path / "a.pt")
    check(tmp_path / "a.pt", tensors)


def test_a_modules_state_dict_with_its_metadata(tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.BatchNorm3d(4), torch.nn.Linear(4, 2))
    torch.save(module.state_dict(), tmp_path / "a.pth")
    check(tmp_path / "a.pth", module.state_dict())
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.randn(1, 1, 4, 4, 6)).sum().backward()
    optimizer.step()
    torch.save({"optimizer": optimizer.state_dict(), "state_dict": module.state_dict()}, tmp_path / "b.pth")
    check(tmp_path / "b.pth", module.state_dict())


def test_monai_swin_unetr(tmp_path):
    from monai.networks.nets import SwinUNETR
    state = SwinUNETR(in_channels=1, out_channels=3, feature_size=12).state_dict()
    torch.save({"state_dict": state}, tmp_path / "a.pt")
    check(tmp_path / "a.pt", state)
    ask("convert", tmp_path / "a.pt", tmp_path / "b.safetensors")
    back = load_file(tmp_path / "b.safetensors")
    assert all(torch.equal(back[name], t) for name, t in state.items())


def archive(path, program, storages=None, root="archive", extra=None):
    """A zip as torch.save lays it out, with any pickle inside."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr(f"{root}/data.pkl", program)
        for name, content in (storages or {}).items():
            file.writestr(f"{root}/data/{name}", content)
        for name, content in (extra or {}).items():
            file.writestr(name, content)


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_refuses_pickles_that_call_something_and_runs_none(tmp_path):
    """os.system and its relatives, in every protocol, alone, nested, and hidden among real tensors."""
    canary = tmp_path / "canary"
    calls = [(os.system, f"touch {canary}"), (eval, f"open({str(canary)!r}, 'w')"), (exec, f"open({str(canary)!r}, 'w')"), (open, str(canary), "w"),
             (getattr, str, "join"), (__import__, "os"), (os.mkdir, str(canary)), (pickle.loads, b"cos\nsystem\n(S'true'\ntR."), (bytearray, 10**9), (print, "x")]
    refused = 0
    for protocol in [2, 3, 4, 5]:
        for call in calls:
            for wrap in [lambda e: e, lambda e: {"state_dict": {"a": e}}, lambda e: [1, (e,)], lambda e: {e.call[0].__name__: 1, "x": e}, lambda e: collections.OrderedDict(a=e)]:
                buffer = io.BytesIO()
                torch.save(wrap(Evil(*call)), buffer, pickle_protocol=protocol)
                (tmp_path / "a.pt").write_bytes(buffer.getvalue())
                assert "pickle byte" in refusal("tensors", tmp_path / "a.pt")
                refused += 1
    assert refused == 200 and not canary.exists()


@pytest.mark.parametrize("name,program", {
    "the classic": b"cos\nsystem\n(S'touch canary'\ntR.",
    "protocol 2 system": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
    "posix": b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
    "builtins eval": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93X\x01\x00\x00\x001\x85R.",
    "torch.load itself": b"\x80\x02ctorch\nload\nX\x01\x00\x00\x00x\x85R.",
    "torch._utils other": b"\x80\x02ctorch._utils\n_rebuild_qtensor\n)R.",
    "INST": b"\x80\x02(X\x04\x00\x00\x00trueios\nsystem\n.",
    "OBJ": b"\x80\x02(cos\nsystem\no.",
    "NEWOBJ": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "EXT1": b"\x80\x02\x82\x01.",
    "reduce of a storage type": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "build on a name": b"\x80\x02ctorch\nFloatStorage\n}b.",
    "OrderedDict with a list": b"\x80\x02ccollections\nOrderedDict\n]\x85R.",
    "reduce of a string": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "memo that is not there": b"\x80\x02h\x05.",
    "memo far away": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "empty stack": b"\x80\x02a.",
    "no mark": b"\x80\x02NNt.",
    "a mark as a value": b"\x80\x02(\x85.",
    "a string longer than the file": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "8-byte length": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.",
    "no end": b"\x80\x02}",
    "bytes after the end": b"\x80\x02}.x",
    "two values": b"\x80\x02}}.",
    "protocol 9": b"\x80\x09}.",
    "a long of 255 bytes": b"\x80\x02\x8a\xff" + bytes(255) + b".",
    "persistent id that is a number": b"\x80\x02K\x01Q.",
    "nothing": b"",
}.items())
def test_refuses_hand_made_pickles(tmp_path, name, program):
    archive(tmp_path / "a.pt", program)
    assert "pickle byte" in refusal("tensors", tmp_path / "a.pt")


def tensor_program(storage="0", elements=4, offset=0, shape=(2, 2), stride=(2, 1), storage_type="FloatStorage", name="w", times=1):
    """The opcodes of {name: tensor}, with every number free."""
    def integer(n):
        return b"\x8a\x08" + struct.pack("<q", n)

    def text(s):
        return b"X" + struct.pack("<I", len(s)) + s.encode()

    def numbers(values):
        return b"(" + b"".join(map(integer, values)) + b"t"
    one = (b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + f"ctorch\n{storage_type}\n".encode() + text(storage) + text("cpu") + integer(elements) + b"tQ" + integer(offset) +
           numbers(shape) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)RtR")
    return b"\x80\x02}(" + b"".join(text(name + (str(n) if times > 1 else "")) + one for n in range(times)) + b"u."


def test_takes_the_hand_made_tensor_that_is_right(tmp_path):
    data = np.arange(4, dtype=np.float32)
    archive(tmp_path / "a.pt", tensor_program(), {"0": data.tobytes()})
    assert ask("tensors", tmp_path / "a.pt") == {"w": {"dtype": "f32", "shape": [2, 2], "sha256": digest(data)}}


@pytest.mark.parametrize("changes,word", [
    ({"offset": 1}, "reaches element 4"), ({"offset": -1}, "negative offset"), ({"shape": (3, 2)}, "reaches element 5"), ({"stride": (3, 1)}, "reaches element 4"),
    ({"stride": (-2, 1)}, "negative stride"), ({"shape": (-2, 2)}, "negative size"), ({"shape": (2**62, 2**62)}, "overflows"), ({"stride": (2**62, 2**62)}, "overflows|reaches"),
    ({"shape": (2,)}, "in no known way"), ({"elements": 5}, "has 16 bytes, expected 5"), ({"elements": 3}, "reaches element 3|expected 3"), ({"elements": -4}, "no storage"),
    ({"elements": 2**62}, "has 16 bytes"), ({"storage": "1"}, "no entry"), ({"storage": "../../etc/passwd"}, "no entry"), ({"storage": "x" * 50}, "no storage"),
    ({"storage_type": "ComplexFloatStorage"}, "ComplexFloatStorage"), ({"shape": (10**9,), "stride": (0,)}, "four times the file"), ({"times": 2000}, "four times the file"),
    ({"shape": (0, 2**62, 2**62), "stride": (1, 1, 1)}, "overflows"),
])
def test_refuses_tensors_that_do_not_fit_their_storage(tmp_path, changes, word):
    if "times" in changes:  # much data, many small views of all of it
        archive(tmp_path / "a.pt", tensor_program(elements=10**6, shape=(10**6,), stride=(1,), **changes), {"0": bytes(4 * 10**6)})
    else:
        archive(tmp_path / "a.pt", tensor_program(**changes), {"0": np.arange(4, dtype=np.float32).tobytes()})
    line = refusal("tensors", tmp_path / "a.pt")
    assert any(w in line for w in word.split("|")), line


def test_refuses_a_name_that_is_there_twice_and_archives_that_are_odd(tmp_path):
    data = {"0": bytes(16)}
    program = tensor_program()
    twice = program[:-2] + program[4:]
    archive(tmp_path / "a.pt", twice, data)
    assert "there twice" in refusal("tensors", tmp_path / "a.pt")
    archive(tmp_path / "a.pt", program, data, extra={"other/data.pkl": b""})
    assert "two data.pkl" in refusal("tensors", tmp_path / "a.pt")
    archive(tmp_path / "a.pt", program, data, extra={"archive/constants.pkl": b""})
    assert "TorchScript" in refusal("tensors", tmp_path / "a.pt")
    archive(tmp_path / "a.pt", program, data, extra={"archive/byteorder": b"big"})
    assert "big-endian" in refusal("tensors", tmp_path / "a.pt")
    archive(tmp_path / "a.pt", program, data, extra={"../../../tmp/evil": b"x", "/etc/evil": b"x", "archive/data/0/../../x": b"x"})
    assert list(ask("tensors", tmp_path / "a.pt")) == ["w"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"], "nothing is extracted"
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", program)
    assert "is compressed" in refusal("tensors", tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        file.writestr("x.txt", "x")
    assert "without data.pkl" in refusal("tensors", tmp_path / "a.pt")


def test_refuses_legacy_files_and_says_how_to_convert(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    line = refusal("tensors", tmp_path / "a.pt")
    assert "before 1.6" in line and "torch.save(model.state_dict(), FILE)" in line
    (tmp_path / "a.pt").write_bytes(b"hello")
    assert "no PyTorch checkpoint" in refusal("tensors", tmp_path / "a.pt")
    scripted = torch.jit.script(torch.nn.Linear(2, 2))
    scripted.save(str(tmp_path / "b.pt"))
    assert "TorchScript" in refusal("tensors", tmp_path / "b.pt")


def test_names_the_keys_when_there_is_no_state_dict(tmp_path):
    torch.save({"weights": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "a.pt")
    assert "its keys are weights, epoch" in refusal("tensors", tmp_path / "a.pt")


def test_every_cut_and_many_flipped_bits_of_a_checkpoint_are_refused_or_harmless(tmp_path):
    tensors = {"a": torch.arange(50.0), "b": torch.arange(20, dtype=torch.bfloat16).reshape(4, 5)}
    torch.save(tensors, tmp_path / "good.pt")
    good = (tmp_path / "good.pt").read_bytes()
    for cut in np.linspace(0, len(good) - 1, 60).astype(int):
        (tmp_path / "a.pt").write_bytes(good[:cut])
        refusal("tensors", tmp_path / "a.pt")
    want, rng = ask("tensors", tmp_path / "good.pt"), np.random.default_rng(0)
    from probe import run
    for _ in range(100):
        bad = bytearray(good)
        bad[rng.integers(len(good))] ^= 1 << rng.integers(8)
        (tmp_path / "a.pt").write_bytes(bad)
        done = run("tensors", tmp_path / "a.pt")
        assert done.returncode == 2 and done.stderr.count("\n") == 1 or done.returncode == 0 and json.loads(done.stdout) == want, done
