import hashlib
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rootstock.common.errors import (
    IntegrityError,
    LimitError,
    NotFoundError,
    SchemaError,
    StorageError,
)
from rootstock.common.protocol import Limits
from rootstock.common.weights import safetensors_io
from tests.support.forged_blobs import change, change_tensor, entry_of, field, write_raw


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "beta": torch.tensor(2.5),
        "permutation": torch.randperm(5, generator=generator),
        "half": torch.randn(3, generator=generator).bfloat16(),
        "mask": torch.tensor([True, False, True]),
        "empty": torch.zeros(0, 3),
        "transposed": torch.randn(4, 5, generator=generator).t(),
        "double": torch.randn(2, generator=generator, dtype=torch.float64),
    }


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(
        one[k].dtype == two[k].dtype and torch.equal(one[k], two[k]) for k in one
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "blob.safetensors"
    entry = safetensors_io.write(path, tensors())
    assert equal(tensors(), safetensors_io.read(path, entry))
    assert [p.name for p in tmp_path.iterdir()] == ["blob.safetensors"]


def test_the_entry_says_what_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "blob.safetensors"
    entry = safetensors_io.write(path, tensors())
    assert entry == entry_of(path)
    raw = tensors()["conv.weight"].numpy().tobytes()
    assert entry.tensors["conv.weight"].sha256 == hashlib.sha256(raw).hexdigest()


def test_the_format_is_the_packages_own(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    safetensors_io.write(ours, tensors())
    assert equal(tensors(), safetensors.torch.load_file(ours))
    safetensors.torch.save_file(
        {k: v.contiguous() for k, v in tensors().items()}, theirs, metadata={"by": "another"}
    )
    assert equal(tensors(), safetensors_io.read(theirs, entry_of(theirs)))


def test_same_tensors_same_digest_whatever_the_order(tmp_path: Path) -> None:
    shuffled = dict(reversed(tensors().items()))
    first = safetensors_io.write(tmp_path / "1", tensors())
    assert first == safetensors_io.write(tmp_path / "2", shuffled)
    other = tensors() | {"beta": torch.tensor(2.25)}
    assert first.digest != safetensors_io.write(tmp_path / "3", other).digest


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9._]{0,8}", fullmatch=True),
        st.tuples(
            st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool, torch.uint8]),
            st.lists(st.integers(0, 4), max_size=4),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_shapes_make_the_journey(
    tmp_path: Path, kinds: dict[str, tuple[torch.dtype, list[int]]]
) -> None:
    made = {k: torch.randint(0, 2, shape).to(dtype) for k, (dtype, shape) in kinds.items()}
    entry = safetensors_io.write(tmp_path / "blob", made)
    assert equal(made, safetensors_io.read(tmp_path / "blob", entry))
    assert equal(made, safetensors.torch.load_file(tmp_path / "blob"))


def test_dtypes_without_a_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"'x' is torch\.complex64"):
        safetensors_io.write(tmp_path / "blob", {"x": torch.zeros(1, dtype=torch.complex64)})
    with pytest.raises(SchemaError, match="0 tensors"):
        safetensors_io.write(tmp_path / "blob", {})
    assert list(tmp_path.iterdir()) == []


# -- headers that lie: the good one first, then one lie each --------------------------------------

GOOD = {"a": field(0, 8, [2]), "b": field(8, 24, [2, 2])}
DATA = bytes(24)


def test_an_honest_header_is_read(tmp_path: Path) -> None:
    write_raw(tmp_path / "x", {"__metadata__": {"k": "v"}, **GOOD}, DATA)
    header = safetensors_io.read_header(tmp_path / "x")
    begin = header["a"].begin
    assert header == {
        "a": ("F32", (2,), begin, begin + 8),
        "b": ("F32", (2, 2), begin + 8, begin + 24),
    }
    assert begin + 24 == (tmp_path / "x").stat().st_size


@pytest.mark.parametrize(
    ("header", "rule"),
    [
        ({**GOOD, "b": field(8, 24, [2, 3])}, "claims 16 bytes, F32 .* needs 24"),
        ({**GOOD, "b": field(8, 24, [2, 2], "F64")}, "claims 16 bytes, F64 .* needs 32"),
        ({**GOOD, "b": field(8, 24, [2, 2], "F8")}, "b.dtype: Input should be 'F64'.*got 'F8'"),
        ({**GOOD, "b": field(8, 24, [2, 2], ["F32"])}, "b.dtype: .*got"),
        ({**GOOD, "b": field(8, 24, [2, -2])}, "b.shape.1: .*got -2"),
        ({**GOOD, "b": field(8, 24, [2.0, 2])}, "b.shape.0: .*valid integer"),
        ({**GOOD, "b": field(8, 24, [True, 4])}, "b.shape.0: .*valid integer"),
        ({**GOOD, "b": field(8, 24, "22")}, "b.shape: .*array"),
        ({**GOOD, "b": field(8, 24, [1 << 60])}, "b.shape.0: .*less than 9007199254740992"),
        ({**GOOD, "b": field(24, 8, [2, 2])}, "claims -16 bytes"),
        ({**GOOD, "b": field(4, 20, [2, 2])}, "begins at byte .* end to end"),  # overlap
        ({"a": field(0, 8, [2]), "b": field(12, 28, [2, 2])}, "begins at byte"),  # gap
        ({"a": field(0, 8, [2])}, "the tensors end at byte"),  # bytes that no tensor owns
        ({**GOOD, "c": field(24, 28, [1])}, "the tensors end at byte"),  # beyond the file
        ({**GOOD, "b": {"dtype": "F32", "shape": [4]}}, "b.data_offsets: Field required"),
        ({**GOOD, "b": {**field(8, 24, [4]), "x": 1}}, "b.x: Extra inputs are not"),
        ({**GOOD, "b": []}, "b: Input should be an object"),
        ([GOOD], "Input should be an object"),
        (b"{", "not a JSON object"),
        (b'{"a": NaN}', "a: Input should be an object"),
        (b"\xff\xfe", "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not a JSON object"),
        ({**GOOD, "b\n": field(24, 24, [0])}, r"'b\\n\.\[key\]': String should match"),
        ({**GOOD, 5000 * "b": field(24, 24, [0])}, r"b{77}\.\.\.: String should match"),
        (json.dumps(GOOD).replace('"b"', '"a"').encode(), "a key stands twice"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: object, rule: str) -> None:
    write_raw(tmp_path / "x", header, DATA)
    with pytest.raises(SchemaError, match=rule):
        safetensors_io.read_header(tmp_path / "x")


def test_a_header_is_capped_before_it_is_read(tmp_path: Path) -> None:
    write_raw(tmp_path / "x", GOOD, DATA, length=(1 << 20) + 1)
    with pytest.raises(LimitError, match="claims 1048577 bytes, the limit is 1048576"):
        safetensors_io.read_header(tmp_path / "x")
    write_raw(tmp_path / "x", GOOD, DATA, length=(1 << 64) - 1)
    with pytest.raises(LimitError, match="claims 18446744073709551615 bytes"):
        safetensors_io.read_header(tmp_path / "x")
    write_raw(tmp_path / "x", GOOD, DATA, length=1000)
    with pytest.raises(SchemaError, match="claims 1000 bytes, the file has"):
        safetensors_io.read_header(tmp_path / "x")


@pytest.mark.parametrize("size", [0, 7])
def test_a_file_too_short_for_a_header_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "x").write_bytes(bytes(size))
    with pytest.raises(SchemaError, match=f"has {size} bytes"):
        safetensors_io.read_header(tmp_path / "x")


def test_numbers_of_tensors_and_dimensions_are_capped(tmp_path: Path) -> None:
    write_raw(tmp_path / "x", {f"t{i}": field(0, 0, [0]) for i in range(4097)})
    with pytest.raises(LimitError, match="4097 tensors, the limit is 4096"):
        safetensors_io.read_header(tmp_path / "x")
    write_raw(tmp_path / "x", {"a": field(0, 4, [1] * 9)}, bytes(4))
    with pytest.raises(LimitError, match="9 dimensions, the limit is 8"):
        safetensors_io.read_header(tmp_path / "x")


def test_files_are_capped_by_the_plan(tmp_path: Path) -> None:
    safetensors_io.write(tmp_path / "x", {"a": torch.zeros(1000)})
    size = (tmp_path / "x").stat().st_size
    safetensors_io.read_header(tmp_path / "x", limits=Limits(max_blob_bytes=size))
    with pytest.raises(LimitError, match=f"has {size} bytes, the limit is {size - 1}"):
        safetensors_io.read_header(tmp_path / "x", limits=Limits(max_blob_bytes=size - 1))


def test_a_header_that_claims_a_terabyte_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_raw(path, {"a": field(0, 1 << 40, [1 << 38])}, DATA)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SchemaError, match="the tensors end at byte"):
        safetensors_io.read_header(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # KiB


# -- entries that lie -----------------------------------------------------------------------------


def test_every_claim_of_an_entry_is_held_against_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    entry = safetensors_io.write(path, {"a": torch.randn(4), "b": torch.randn(2, 3)})
    safetensors_io.read(path, entry)
    no_b = entry.model_dump()["tensors"]
    del no_b["b"]
    more = {**entry.model_dump()["tensors"], "c": entry.tensors["a"].model_dump()}
    lies = [
        (change(entry, size=entry.size + 1), SchemaError, f"has {entry.size} bytes"),
        (change(entry, digest="0" * 64), IntegrityError, "the manifest says 0000"),
        (change(entry, tensors=no_b), SchemaError, "'b' is only in the file"),
        (change(entry, tensors=more), SchemaError, "'c' is only in the manifest"),
        (change_tensor(entry, "b", shape=[3, 2]), SchemaError, r"\[2, 3\] in the file"),
        (change_tensor(entry, "b", dtype="I32"), SchemaError, r"I32 \[2, 3\] in the manifest"),
        (change_tensor(entry, "b", sha256="1" * 64), IntegrityError, "'b' has SHA-256"),
    ]
    for lie, kind, rule in lies:
        with pytest.raises(kind, match=rule):
            safetensors_io.read(path, lie)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x"
    entry = safetensors_io.write(path, {"a": torch.randn(4), "b": torch.randn(2, 3)})
    good = path.read_bytes()
    for position in (len(good) - 1, len(good) - 30):
        bad = bytearray(good)
        bad[position] ^= 1
        path.write_bytes(bad)
        with pytest.raises(IntegrityError, match="has SHA-256"):
            safetensors_io.read(path, entry)
    path.write_bytes(good)
    safetensors_io.read(path, entry)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    entry = safetensors_io.write(path, {"a": torch.randn(400)})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SchemaError, match="end at byte"):
        safetensors_io.read(path, entry)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    entry = safetensors_io.write(tmp_path / "x", {"a": torch.randn(4)})
    with pytest.raises(NotFoundError, match="gone"):
        safetensors_io.read(tmp_path / "gone", entry)


# -- modules ---------------------------------------------------------------------------------------


def test_a_module_is_loaded_as_it_was(tmp_path: Path) -> None:
    source, target = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    entry = safetensors_io.write(tmp_path / "x", source.state_dict())
    assert not torch.equal(source.weight, target.weight)
    safetensors_io.load_module(target, tmp_path / "x", entry)
    assert torch.equal(source.weight, target.weight)
    assert torch.equal(source.get_parameter("bias"), target.get_parameter("bias"))


@pytest.mark.parametrize(
    ("other", "rule"),
    [
        (nn.Conv2d(3, 4, 3, bias=False), "'bias' has no place there"),
        (nn.BatchNorm2d(4), "'running_mean' is missing|'num_batches_tracked' is missing"),
        (nn.Conv2d(3, 4, 1), r"'weight' has shape \[4, 3, 3, 3\], it must be \[4, 3, 1, 1\]"),
        (nn.Conv2d(3, 4, 3).double(), "'weight' is F32, it must be F64"),
    ],
)
def test_a_module_of_another_kind_is_left_alone(
    tmp_path: Path, other: nn.Module, rule: str
) -> None:
    entry = safetensors_io.write(tmp_path / "x", nn.Conv2d(3, 4, 3).state_dict())
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(SchemaError, match=rule):
        safetensors_io.load_module(other, tmp_path / "x", entry)
    assert equal(before, dict(other.state_dict()))


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    entry = safetensors_io.write(path, {"a": torch.randn(4)})
    program = """
import resource, sys
from pathlib import Path
import torch
from rootstock.common.errors import StorageError
from rootstock.common.weights import safetensors_io
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
safetensors_io.write(Path(sys.argv[1]).with_name("small"), {"a": torch.randn(4)})
try:
    safetensors_io.write(Path(sys.argv[1]), {"a": torch.zeros(1 << 20)})
except StorageError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{path}: File too large; raise the file size limit" in done.stdout
    safetensors_io.read(path, entry)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small", "x"]
    assert StorageError.exit_code == 5
