# SPDX-License-Identifier: Apache-2.0
"""Stores in files: round trips, files that don't fit or are broken, and crashes while saving."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401
import numpy as np
import pytest
from conftest import Python
from numpy.testing import assert_array_equal

import backstride
from backstride import VariableStore, get_variable, layers, variable_scope

X = np.random.default_rng(0).standard_normal((2, 3, 4, 3), np.float32)
SUFFIXES = [".npz", ".safetensors"]


def network(x: Any) -> Any:
    with variable_scope("net"):
        return layers.conv2d_transpose(layers.conv2d_transpose(x, 4, 3, name="one"), 2, 3, name="two")


@pytest.fixture
def store() -> VariableStore:
    store = VariableStore(seed=0)
    store.run(network, X)
    return store


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("built", [True, False])
def test_round_trip(store: VariableStore, tmp_path: Path, suffix: str, built: bool) -> None:
    """Into a store that has the variables already, or makes them later."""
    expected = store.run(network, X).result
    store.save(tmp_path / f"weights{suffix}")
    other = VariableStore(seed=1)
    if built:
        assert (other.run(network, X).result != expected).any()
    other.load(str(tmp_path / f"weights{suffix}"))
    assert_array_equal(other.run(network, X).result, expected)
    assert list(other.trainable()) == list(store.trainable())
    assert os.listdir(tmp_path) == [f"weights{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bfloat16"])
def test_dtypes(tmp_path: Path, suffix: str, dtype: str) -> None:
    path = tmp_path / f"weights{suffix}"
    with VariableStore() as store:
        get_variable("w", initializer=np.arange(6).reshape(2, 3).astype(dtype))
        get_variable("scalar", initializer=np.array(3, dtype))
        get_variable("empty", initializer=np.zeros((0, 2), dtype))
    if (suffix, dtype) == (".npz", "bfloat16"):
        with pytest.raises(ValueError, match=r"\.npz files don't know the dtype of w, scalar, empty; save as"):
            store.save(path)
        assert not os.listdir(tmp_path)
        return
    store.save(path)
    other = VariableStore()
    other.load(path)
    assert sorted(other.values()) == sorted(store.values())
    for name, value in store.values().items():
        assert other.values()[name].dtype == value.dtype
        assert_array_equal(other.values()[name], value)


def test_names_may_end_as_tensorflows_do(store: VariableStore, tmp_path: Path) -> None:
    """As in a file made of the variables of a session, {v.name: session.run(v)}."""
    values = {f"{name}:0": value + 1 for name, value in store.values().items()}
    np.savez(tmp_path / "tf.npz", **values)  # type: ignore[arg-type]
    store.load(tmp_path / "tf.npz")
    for name, value in store.values().items():
        assert_array_equal(value, values[f"{name}:0"])
    np.savez(tmp_path / "both.npz", **values, **{"net/one/bias": np.zeros(4)})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"both\.npz holds 'net/one/bias' twice, with and without ':0'"):
        store.load(tmp_path / "both.npz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_misfits_are_one_error_and_nothing_is_loaded(store: VariableStore, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    with VariableStore() as other:
        get_variable("net/one/kernel", [3, 3, 4, 3], initializer=np.ones)
        get_variable("net/one/bias", [5])
        get_variable("global_step", [], "int64")
    other.save(path)
    before = store.values()
    with pytest.raises(ValueError, match="does not hold this store's variables") as error:
        store.load(path)
    for part in [
        "net/one/bias has shape (5,) in the file and (4,) in the store",
        "net/two/kernel is missing",
        "net/two/bias is missing",
        "global_step is unexpected",
    ]:
        assert part in str(error.value)
    with pytest.raises(ValueError, match="has shape") as error:
        store.load(path, strict=False)
    assert "missing" not in str(error.value)
    assert all(value is before[name] for name, value in store.values().items())


def test_without_strict_what_fits_is_loaded(store: VariableStore, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **{"net/one/bias": np.ones(4), "global_step": np.array(3)})  # type: ignore[arg-type]
    before = store.values()
    store.load(tmp_path / "some.npz", strict=False)
    after = store.values()
    assert_array_equal(after["net/one/bias"], np.ones(4, np.float32))
    assert [name for name in before if after[name] is not before[name]] == ["net/one/bias"]
    assert "global_step" not in after


def test_a_loaded_value_of_another_shape_is_told_when_its_variable_is_made(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{"net/one/kernel": np.zeros((3, 3, 4, 2), np.float32)})  # type: ignore[arg-type]
    store = VariableStore()
    store.load(tmp_path / "w.npz")
    with pytest.raises(ValueError, match=r"'net/one/kernel' exists with shape \(3, 3, 4, 2\); this call needs"):
        store.run(network, X)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("broken", ["empty", "cut", "noise", "directory", "missing"])
def test_broken_files_are_told(store: VariableStore, tmp_path: Path, suffix: str, broken: str) -> None:
    path = tmp_path / f"weights{suffix}"
    store.save(path)
    data = path.read_bytes()
    if broken in ("directory", "missing"):
        path.unlink()
        if broken == "directory":
            path.mkdir()
        with pytest.raises(OSError, match="weights"):
            store.load(path)
        return
    path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "noise": b"\xff" * 100}[broken])
    before = store.values()
    with pytest.raises(ValueError, match=rf"weights\{suffix} can't be read as a \{suffix} file: "):
        store.load(path)
    assert all(value is before[name] for name, value in store.values().items())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_any_name_is_kept(tmp_path: Path, suffix: str) -> None:
    """Also those of np.savez's own arguments."""
    names = ["file", "allow_pickle", "arr_0", "a/b.c", "kwds"]
    with VariableStore() as store:
        for name in names:
            get_variable(name, [2], initializer=np.ones)
    store.save(tmp_path / f"w{suffix}")
    other = VariableStore()
    other.load(tmp_path / f"w{suffix}")
    assert sorted(other.values()) == sorted(names)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_any_damage_is_a_value_error_or_none(store: VariableStore, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, **store.values())  # type: ignore[arg-type]
    else:
        store.save(path)
    data, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(400):
        broken = bytearray(data)
        for place in random.integers(len(data), size=3):
            broken[place] = random.integers(256)
        path.write_bytes(broken)
        try:
            VariableStore().load(path)
        except ValueError as error:
            assert str(path) in str(error)


def test_dtypes_that_no_variable_has_are_told(store: VariableStore, tmp_path: Path) -> None:
    values = store.values()
    np.savez(tmp_path / "complex.npz", **(values | {"net/one/bias": np.zeros(4, complex)}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"complex\.npz holds 'net/one/bias' of dtype complex128, which no var"):
        store.load(tmp_path / "complex.npz")
    np.savez(tmp_path / "int.npz", **(values | {"net/one/bias": np.zeros(4, int)}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="net/one/bias is int64 in the file and float32 in the store"):
        store.load(tmp_path / "int.npz")


def test_a_second_load_into_an_empty_store_takes_the_place_of_the_first(tmp_path: Path) -> None:
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", **{name: np.zeros(2)})  # type: ignore[arg-type]
    store = VariableStore()
    store.load(tmp_path / "a.npz")
    store.load(tmp_path / "b.npz")
    assert list(store.values()) == ["b"]


def test_long_names_and_links(store: VariableStore, tmp_path: Path) -> None:
    long = tmp_path / ("w" * 240 + ".npz")
    store.save(long)
    (tmp_path / "link.npz").symlink_to(long)
    before = long.stat().st_ino
    store.save(tmp_path / "link.npz")
    assert (tmp_path / "link.npz").is_symlink() and long.stat().st_ino != before


def test_damaged_bytes_are_told(store: VariableStore, tmp_path: Path) -> None:
    """A zip archive has checksums."""
    path = tmp_path / "weights.npz"
    store.save(path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.infolist()[0]
    data[entry.header_offset + 300] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"can't be read as a \.npz file"):
        store.load(path)


def test_files_of_objects_and_nameless_arrays_are_refused(store: VariableStore, tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", w=np.array([{}], object))
    with pytest.raises(ValueError, match=r"objects\.npz can't be read"):
        store.load(tmp_path / "objects.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(ValueError, match="it is not a zip archive"):
        store.load(tmp_path / "one.npz")


@pytest.mark.parametrize("method", ["save", "load"])
def test_other_suffixes_are_refused(store: VariableStore, tmp_path: Path, method: str) -> None:
    with pytest.raises(ValueError, match=r"`path` must end in .safetensors or .npz; got '.*weights.h5'"):
        getattr(store, method)(tmp_path / "weights.h5")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_crash_while_saving_leaves_the_old_file(python: Python, tmp_path: Path, suffix: str) -> None:
    """Killed as the last bytes go to the disk; then failing there."""
    path = tmp_path / f"weights{suffix}"
    code = f"""
import os, signal, numpy as np, backstride
with backstride.VariableStore() as store:
    backstride.get_variable("w", initializer=np.zeros(1000))
store.save({str(path)!r})
store.assign({{"w": np.ones(1000)}})
def stop(file):
    {{stop}}
os.fsync = stop
store.save({str(path)!r})
"""
    for stop in ("os._exit(3)", "raise OSError('disk full')"):
        python(code.replace("{stop}", stop), fails=True)
        store = VariableStore()
        store.load(path)
        assert not store.values()["w"].any()
    assert len(os.listdir(tmp_path)) == 2  # the killed process could not remove its own


def test_permissions_are_kept(store: VariableStore, tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    store.save(path)
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    path.chmod(0o640)
    store.save(path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_safetensors_may_be_missing(python: Python, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["safetensors"] = None
import backstride
store = backstride.VariableStore()
store.save({str(tmp_path / "w.npz")!r})
store.save({str(tmp_path / "w.safetensors")!r})
"""
    assert "need the extra `layers`: pip install 'backstride[layers]'" in python(code, fails=True)
    assert os.listdir(tmp_path) == ["w.npz"]


def test_backstride_is_exported_once() -> None:
    assert backstride.compat.v1.get_variable is backstride.get_variable
