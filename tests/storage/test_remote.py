"""Names in object storage: what they answer, beside pathlib on the same files."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from ndt_offline import Recorder, open_run
from ndt_offline.errors import DamagedError, UsageError
from ndt_offline.storage.faults import redacted
from ndt_offline.storage.location import files_below, is_remote, local, locate
from ndt_offline.storage.regular import opened
from ndt_offline.store.whole_file import replacing

FILES = ["a.txt", "b/1/x.json", "b/1/y.txt", "b/2/x.json", "c/deep/er/z.json"]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The same files on a disk and in memory."""
    fs = fsspec.filesystem("memory")
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        fs.pipe_file(f"/box/{name}", name.encode())
    yield tmp_path, locate("memory://box")
    fs.rm("/box", recursive=True)


def below(paths: Any, root: Path) -> list[str]:
    return sorted(str(path).removeprefix(str(root)).strip("/") for path in paths)


@pytest.mark.parametrize(
    "pattern",
    ["*", "*/*", "*/*/x.json", "b/*/x.json", "*.txt", "b/[0-9]*", "nothing/*", "b/3", "b/1"],
)
def test_globs_are_those_of_pathlib(both: tuple[Path, Path], pattern: str) -> None:
    disk, box = both
    assert below(box.glob(pattern), box) == below(disk.glob(pattern), disk)


@pytest.mark.parametrize("name", [*FILES, "b", "b/1", "no", "c/deep"])
def test_questions_are_answered_as_by_pathlib(both: tuple[Path, Path], name: str) -> None:
    disk, box = both
    mine, theirs = box / name, disk / name
    for question in ("exists", "is_file", "is_dir"):
        assert getattr(mine, question)() == getattr(theirs, question)()
    assert (mine.name, mine.stem, mine.suffix) == (theirs.name, theirs.stem, theirs.suffix)
    assert str(mine.parent / "q") == str(mine.with_name("q"))
    if theirs.is_file():
        assert mine.read_bytes() == theirs.read_bytes()
        assert mine.stat().st_size == theirs.stat().st_size
    elif theirs.is_dir():
        assert below(mine.iterdir(), mine) == below(theirs.iterdir(), theirs)
    else:
        with pytest.raises(FileNotFoundError):
            mine.read_bytes()
        with pytest.raises(FileNotFoundError):
            mine.stat()


def test_parts_of_an_object(both: tuple[Path, Path]) -> None:
    disk, box = both
    for root in (disk, box):
        with opened(root / "c/deep/er/z.json") as (file, size):
            assert size == 16
            file.seek(2)
            assert file.read(4) == b"deep"
            assert file.read() == b"/er/z.json" and file.read() == b""
        assert files_below(root / "b") == {"1/x.json", "1/y.txt", "2/x.json"}


def test_a_file_is_replaced_as_a_whole(both: tuple[Path, Path]) -> None:
    for root in both:
        with replacing(root / "a.txt") as draft:
            draft.write_text("new")
        assert (root / "a.txt").read_bytes() == b"new"
        with pytest.raises(KeyError), replacing(root / "a.txt") as draft:
            draft.write_text("half")
            raise KeyError
        assert (root / "a.txt").read_bytes() == b"new" and len(list(root.iterdir())) == 3


def test_names_travel_and_compare() -> None:
    one = locate("s3://bucket//runs/./a/")
    assert str(one) == "s3://bucket/runs/a" and is_remote(one)
    assert pickle.loads(pickle.dumps(one)) == one and hash(one) == hash(locate(str(one)))
    assert [str(up) for up in one.parents] == ["s3://bucket/runs", "s3://bucket"]
    assert locate("runs/a") == Path("runs/a") and locate(one) is one
    with pytest.raises(TypeError):
        Path(one)  # a URL is never taken for a path by accident


@pytest.mark.parametrize(
    "url",
    ["s3://key:hunter2@bucket/run", "https://user:hunter2@host/run", "s3://bucket/run?token=hunter2",
     "https://host/run#hunter2", "https://hunter2@host/run", "s3://bucket/../hunter2", "nothing://bucket/run"],
)  # fmt: skip
def test_urls_with_credentials_are_refused_without_repeating_them(url: str) -> None:
    for call in (locate, open_run):
        with pytest.raises(UsageError) as caught:
            call(url)
        said = str(caught.value)
        assert "hunter2" not in said or ".." in url


def test_messages_are_redacted() -> None:
    told = redacted("GET https://me:pw@host/a?X-Amz-Signature=abc failed at s3://b/c?token=xyz")
    assert not [word for word in ("pw", "abc", "xyz", "Signature") if word in told]
    assert "https://...@host/a?..." in told and redacted("a: b@c, why? no") == "a: b@c, why? no"


def test_what_needs_a_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="needs a folder of this machine"):
        Recorder("memory://box/run", torch.nn.Linear(2, 2))
    with pytest.raises(UsageError, match="packing needs"):
        local("memory://box", "packing")
    assert not list(tmp_path.iterdir())


def test_a_run_is_read_where_it_lies(run_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(f"{run_path}/", "/runs/small/", recursive=True)
    near, far = open_run(run_path), open_run("memory://runs/small")
    assert far.steps == near.steps and not far.problems
    np.testing.assert_array_equal(far.scalar("loss"), near.scalar("loss"))
    for step in (0, 200, 400):
        there, here = far.checkpoint(step), near.checkpoint(step)
        assert all(there[name].equal(here[name]) for name in here)
    fs.rm("/runs", recursive=True)


def test_a_damaged_object_is_told(run_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(f"{run_path}/", "/runs/small/", recursive=True)
    run = open_run("memory://runs/small")
    gone, cut = run.entry(100), run.entry(200)
    fs.rm_file(str(gone.path).removeprefix("memory:/"))
    name = str(cut.path).removeprefix("memory:/")
    fs.pipe_file(name, fs.cat_file(name)[:-1])
    with pytest.raises(DamagedError, match="the file is missing"):
        run.checkpoint(100)
    with pytest.raises(DamagedError, match="recorded were"):
        run.checkpoint(200)
    fs.rm("/runs", recursive=True)
