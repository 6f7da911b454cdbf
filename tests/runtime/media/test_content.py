from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.errors import InputError, UnreadableInput, UnsupportedInput
from deepscan.runtime.media.content import SAMPLE_BYTES, PlannedContent, content_id, planned_content, planned_contents
from deepscan.runtime.system.regular_files import open_regular_file
from tests.runtime.watchdog import deepscan_threads

LARGE = 5 * SAMPLE_BYTES + 7


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("content") / "large.mp4"
    path.write_bytes(bytes(LARGE))
    return path


def changed(large: Path, offset: int, *, full: bool) -> tuple[str, str]:
    """Return the content ids without and with one byte at `offset` that is another one."""
    before = content_id(str(large), full=full)
    with open(large, "r+b") as file:
        file.seek(offset)
        file.write(b"x")
    after = content_id(str(large), full=full)
    with open(large, "r+b") as file:
        file.seek(offset)
        file.write(b"\0")
    assert content_id(str(large), full=full) == before
    return before, after


MIDDLE = (LARGE - SAMPLE_BYTES) // 2


@pytest.mark.parametrize(
    "offset",
    [0, SAMPLE_BYTES - 1, MIDDLE, MIDDLE + SAMPLE_BYTES - 1, LARGE - SAMPLE_BYTES, LARGE - 1],
)
def test_a_change_in_head_middle_or_tail_is_another_content(large: Path, offset: int) -> None:
    before, after = changed(large, offset, full=False)
    assert before != after


@pytest.mark.parametrize("offset", [SAMPLE_BYTES, MIDDLE - 1, MIDDLE + SAMPLE_BYTES, LARGE - SAMPLE_BYTES - 1])
def test_a_change_elsewhere_is_seen_by_the_full_hash_only(large: Path, offset: int) -> None:
    before, after = changed(large, offset, full=False)
    assert before == after
    before, after = changed(large, offset, full=True)
    assert before != after


@pytest.mark.parametrize("size", [1, SAMPLE_BYTES, 3 * SAMPLE_BYTES])
def test_all_of_a_small_file_counts(tmp_path: Path, size: int) -> None:
    data = bytearray(size)
    (tmp_path / "a").write_bytes(data)
    data[size * 2 // 5] = 1
    (tmp_path / "b").write_bytes(data)
    assert content_id(str(tmp_path / "a"), full=False) != content_id(str(tmp_path / "b"), full=False)


def test_the_id_tells_kind_and_size_and_not_the_name(tmp_path: Path) -> None:
    for name in (b"a", b"\xff"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"abc")
    fast, moved = (content_id(str(tmp_path / os.fsdecode(name)), full=False) for name in (b"a", b"\xff"))
    full = content_id(str(tmp_path / "a"), full=True)
    assert fast == moved
    # The digest of RFC 7693's "abc" shortened to 16 bytes, from `b2sum --length 128`.
    assert (fast, full) == tuple(f"{kind}:3:cf4ab791c62b8d2b2109c90275287816" for kind in ("fast", "full"))


def test_files_of_other_lengths_differ_even_if_the_samples_are_the_same(tmp_path: Path) -> None:
    for size in (LARGE, LARGE + 1):
        (tmp_path / str(size)).write_bytes(bytes(size))
    fast = {content_id(str(tmp_path / str(size)), full=False) for size in (LARGE, LARGE + 1)}
    assert len(fast) == 2


@pytest.mark.parametrize(
    ("name", "problem", "what"),
    [
        ("missing", UnreadableInput, "No such file"),
        ("empty", UnreadableInput, "is empty"),
        ("folder", UnsupportedInput, "is a folder"),
        ("pipe", UnsupportedInput, "device, pipe or socket"),
        ("socket", UnsupportedInput, "device, pipe or socket"),
        ("loop", UnreadableInput, "Too many levels"),
        ("nul\0", UnreadableInput, "No file can have this name"),
        ("n" * 300, UnreadableInput, "name too long"),
    ],
)
def test_what_is_no_readable_file_is_that_inputs_problem_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, problem: type[InputError], what: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo("pipe")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        with pytest.raises(problem, match=what):
            content_id(name, full=False)


def test_a_pipe_that_takes_a_files_place_while_it_is_opened_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, looked = tmp_path / "a.mp4", os.stat
    path.write_bytes(b"abc")

    def swap(name: str) -> os.stat_result:
        found = looked(name)
        path.unlink()
        os.mkfifo(path)
        return found

    monkeypatch.setattr(os, "stat", swap)
    with pytest.raises(UnsupportedInput, match="pipe"):
        open_regular_file(str(path))


def test_files_that_cannot_be_read_have_no_id_and_progress_is_told(tmp_path: Path) -> None:
    names = [str(tmp_path / f"{number}") for number in range(20)]
    for number in range(0, 20, 2):
        Path(names[number]).write_bytes(b"x" * (number + 1))
    seen: list[int] = []
    found = planned_contents(names, full=False, threads=3, progress=seen.append)
    for number, (name, content) in enumerate(zip(names, found, strict=True)):
        assert content == (planned_content(name, full=False) if number % 2 == 0 else PlannedContent(None, None, False))
    assert seen == list(range(1, 21))


def test_an_interrupt_ends_the_reading_without_reading_on(tmp_path: Path) -> None:
    small, huge = tmp_path / "small", tmp_path / "huge"
    small.write_bytes(b"x")
    with open(huge, "wb") as file:
        file.truncate(1 << 42)  # a hole: reading all of it would take an hour

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        planned_contents([str(small), str(huge), *[str(huge)] * 5], full=True, threads=2, progress=interrupt)
    assert not deepscan_threads()


@given(st.binary(min_size=1, max_size=200), st.binary(min_size=1, max_size=200))
def test_two_files_have_one_id_exactly_if_they_hold_the_same(
    tmp_path_factory: pytest.TempPathFactory, one: bytes, other: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    ids = []
    for data in (one, other):
        (folder / "content").write_bytes(data)
        ids.append(content_id(str(folder / "content"), full=False))
    assert (ids[0] == ids[1]) == (one == other)
