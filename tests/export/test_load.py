"""Reading an exported file without trust."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from stopctl import DamagedError, load_exported
from stopctl.export import export
from support.given import leaf, saved, torch_like


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    tree = torch_like(
        weight=leaf(np.linspace(-1, 1, 12).reshape(3, 4), key="t"),
        bias=leaf([0.5, 1.5]),
        wave=leaf([[1.0, 2.0]], note="complex"),
        tied=leaf(np.linspace(-1, 1, 12).reshape(3, 4), key="t"),
    )
    export(saved(folder / "run", {"model": tree}), folder / "m.safetensors", dtype="int8")
    return (folder / "m.safetensors").read_bytes()


def rebuilt(data, change):
    """The file with its header changed; the tensors stay."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    told = json.loads(header["__metadata__"]["stopctl"])
    change(header, told)
    if "stopctl" in header.get("__metadata__", {}):
        header["__metadata__"]["stopctl"] = json.dumps(told)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def test_the_unchanged_file_is_read(good, tmp_path):
    (tmp_path / "m").write_bytes(rebuilt(good, lambda header, told: None))
    arrays = load_exported(tmp_path / "m")
    assert list(arrays) == ["weight", "bias", "wave", "tied"]
    assert arrays["bias"].tolist() == [0.5, 1.5]


def entry(name, **fields):
    """Change the metadata of one tensor; None takes a field away."""

    def change(header, told):
        (found,) = [one for one in told["tensors"] if one["name"] == name]
        for key, value in fields.items():
            found[key] = value
            if value is None:
                del found[key]

    return change


HOSTILE = {
    "no metadata": (lambda header, told: header.pop("__metadata__"), "not written by `stopctl export`"),
    "not ours": (lambda header, told: header["__metadata__"].pop("stopctl"), "not written by `stopctl export`"),
    "no JSON": (lambda header, told: header.update(__metadata__={"stopctl": "{"}) or told.clear(), "lists no tensors"),
    "newer": (lambda header, told: told.update(version=2), "format 2, this stopctl reads 1"),
    "no version": (lambda header, told: told.pop("version"), "lists no tensors"),
    "no list": (lambda header, told: told.update(tensors={}), "lists no tensors"),
    "unlisted": (lambda header, told: told["tensors"].pop(1), "does not list 'bias'"),
    "listed twice": (lambda header, told: told["tensors"].append({"name": "bias"}), "twice"),
    "not there": (lambda header, told: told["tensors"].append({"name": "b"}), "lists 'b', which is not there"),
    "no object": (lambda header, told: told["tensors"].append([]), "describes no tensor"),
    "unknown field": (entry("bias", cast="float64"), "describes no tensor"),
    "tied to a later one": (entry("tied", same_as="tied"), "ties 'tied' to no tensor"),
    "tied and there": (entry("bias", same_as="weight"), "ties 'bias' to no tensor"),
    "tied to a list": (entry("tied", same_as=["weight"]), "ties 'tied' to no tensor"),
    "axis of a float": (entry("bias", axis=0, scales=[1.0, 1.0]), "along no axis of an int8 tensor"),
    "axis beyond": (entry("weight", axis=2), "along no axis"),
    "axis negative": (entry("weight", axis=-1), "along no axis"),
    "axis true": (entry("weight", axis=True), "along no axis"),
    "axis alone": (entry("weight", scales=None), "no 3 scales for 'weight'"),
    "scales alone": (entry("weight", axis=None), "along no axis"),
    "too few scales": (entry("weight", scales=[1.0, 1.0]), "no 3 scales"),
    "text scales": (entry("weight", scales="abc"), "no 3 scales"),
    "negative scale": (entry("weight", scales=[1.0, -1.0, 1.0]), "no 3 scales"),
    "overflowing scale": (entry("weight", scales=[1.0, 1.0, 3.4e38]), "no 3 scales"),
    "scale of text": (entry("weight", scales=[1.0, 1.0, "1"]), "no 3 scales"),
    "complex of three": (entry("weight", complex=True), "no complex numbers"),
    "complex maybe": (entry("bias", complex=1), "wrongly"),
    "long shape": (lambda header, told: header["bias"].update(shape=[2**40]), "does not fit its shape"),
    "beyond the end": (lambda header, told: header["bias"].update(data_offsets=[0, 2**40]), "does not fit"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_one_clear_error(good, tmp_path, case):
    change, message = HOSTILE[case]
    path = tmp_path / "m.safetensors"
    path.write_bytes(rebuilt(good, change))
    with pytest.raises(DamagedError, match=message) as error:
        load_exported(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_metadata_that_is_no_json_is_an_error(good, tmp_path):
    path = tmp_path / "m"
    path.write_bytes(good.replace(b'{\\"version\\":1', b'{\\"version\\",1'))
    with pytest.raises(DamagedError, match="its metadata: Expecting"):
        load_exported(path)


@given(st.data())
def test_no_flipped_byte_of_the_header_raises_anything_else(good, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "flipped"
    at = data.draw(st.integers(0, 8 + int.from_bytes(good[:8], "little") - 1))
    changed = bytearray(good)
    changed[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    try:
        arrays = load_exported(path)
    except DamagedError:
        return
    assert sum(array.size for array in arrays.values()) == 27


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, b"\x10" + bytes(7), b"PK\x03\x04 a zip of weights"])
def test_no_safetensors_file_at_all(tmp_path, data):
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(DamagedError, match="safetensors header"):
        load_exported(tmp_path / "m")


def test_other_peoples_files_are_named_as_such(tmp_path):
    save_file({"w": np.ones(2, "f4")}, tmp_path / "m")
    with pytest.raises(DamagedError, match="the safetensors library may open it"):
        load_exported(tmp_path / "m")


def test_a_link_is_followed_and_a_missing_file_is_an_oserror(good, tmp_path):
    (tmp_path / "m").write_bytes(good)
    (tmp_path / "link").symlink_to(tmp_path / "m")
    assert load_exported(tmp_path / "link").keys() == load_exported(str(tmp_path / "m")).keys()
    with pytest.raises(FileNotFoundError):
        load_exported(tmp_path / "none")
