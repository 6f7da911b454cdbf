from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscan.errors import UsageError
from deepscan.results import SUCCEEDED
from deepscan.runtime.store import journal as journal_module
from deepscan.runtime.store.identity import DetectorId
from deepscan.runtime.store.journal import Journal, decoded, encoded, entry_of, line_of, read_journal
from tests.runtime.result_rows import LITE, PEAK, TRACK, row, scanned
from tests.runtime.watchdog import deepscan_threads, wait_until

ROOT = Path(__file__).parents[3]


def lines(count: int) -> list[bytes]:
    return [line_of(scanned(index, f"{index}.mp4", content=f"fast:1:{index}")) for index in range(count)]


def opened(path: Path, *, fresh: bool = False) -> tuple[list[str | None], int, Path | None]:
    """Return the contents that a journal knows after it was opened, its damaged lines, and what was set aside."""
    journal = Journal(path, fresh=fresh)
    journal.close()
    return [entry.content for entry in journal.entries], journal.damaged, journal.set_aside


def known(*numbers: int) -> list[str]:
    return [f"fast:1:{number}" for number in numbers]


def test_a_line_holds_the_record_and_what_a_later_run_needs() -> None:
    path = os.fsdecode(b'=a,", "track_details": \n\xff.mp4')
    line = line_of(row(path=path, status="scored", score=0.5, peak=PEAK, details=(TRACK,), content="fast:1:a"))
    record = json.loads(line.decode("ascii"))
    assert (record["path"], record["content"], record["peak_clips"]) == (path, "fast:1:a", 7)
    assert list(record)[-4:] == ["content", "peak_clips", "track_details", "check"]
    assert decoded(line) == {name: value for name, value in record.items() if name != "check"}
    assert encoded(decoded(line)) == line
    entry = entry_of(line, 5)
    assert entry is not None
    assert (entry.content, entry.detector) == ("fast:1:a", DetectorId("lite", "ab", "cd"))
    assert (entry.place.offset, entry.place.length, entry.status) == (5, len(line), "scored")


@given(st.data())
def test_any_flipped_bit_is_noticed(data: st.DataObject) -> None:
    (line,) = lines(1)
    position = data.draw(st.integers(0, len(line) - 1))
    flipped = bytearray(line)
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    assert entry_of(bytes(flipped), 0) is None
    assert entry_of(line, 0) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"status": "fine"},
        {"score": "0.5"},
        {"faces": None},
        {"content": 5},
        {"peak_clips": None},
        {"model": ["lite"]},
    ],
)
def test_a_line_whose_checksum_fits_but_that_is_no_record_is_damaged(change: dict[str, object]) -> None:
    (line,) = lines(1)
    assert entry_of(encoded(decoded(line) | change), 0) is None


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_a_checksum_over_anything_else_makes_no_record(value: object) -> None:
    assert entry_of(encoded({"track_details": value}), 0) is None
    assert entry_of(encoded({"path": value, "track_details": []}), 0) is None


def test_records_are_there_again_in_their_order(tmp_path: Path) -> None:
    first = Journal(tmp_path / "r.jsonl")
    places = first.append(lines(3)[:2]) + first.append(lines(3)[2:])
    assert [first.line(place) for place in places] == lines(3)
    assert first.head(*places[1][:2])["path"] == "1.mp4"
    assert (tmp_path / "r.jsonl").read_bytes() == b"".join(lines(3))  # before it is closed
    first.close()
    second = Journal(tmp_path / "r.jsonl")
    assert [entry.place for entry in second.entries] == places
    (added,) = second.append(lines(4)[3:])
    assert second.line(added) == lines(4)[3]
    second.close()
    assert opened(tmp_path / "r.jsonl") == (known(0, 1, 2, 3), 0, None)
    assert os.listdir(tmp_path) == ["r.jsonl"]


def test_any_torn_end_is_cut_off(tmp_path: Path) -> None:
    path, data = tmp_path / "r.jsonl", b"".join(lines(3))
    two = len(b"".join(lines(2)))
    for length in [0, 1, 9, 10, two - 1, two, two + 1, two + 300, len(data) - 1, len(data)]:
        path.write_bytes(data[:length])
        whole = data[:length].count(b"\n")
        assert opened(path) == (known(*range(whole)), 0, None)
        assert path.read_bytes() == b"".join(lines(whole))
    assert os.listdir(tmp_path) == ["r.jsonl"]


def test_zeros_behind_the_last_line_as_a_power_failure_leaves_them_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"".join(lines(2)) + bytes(4096))
    assert opened(path) == (known(0, 1), 0, None)
    assert path.read_bytes() == b"".join(lines(2))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped bit": lambda line: line.replace(b'"score": 0.33', b'"score": 0.32', 1),
    "zeros": lambda line: bytes(len(line) - 1) + b"\n",
    "cut": lambda line: line[:100] + b"\n",
    "no JSON": lambda _: b"hello\n",
    "earlier version": lambda line: (
        json.dumps({k: v for k, v in json.loads(line).items() if k != "check"}).encode() + b"\n"
    ),
    "not ASCII": lambda line: line.replace(b"mp4", b"\xff\xfe4"),
    "empty": lambda _: b"\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_in_the_middle_costs_that_line_and_is_counted(tmp_path: Path, damage: str) -> None:
    path, whole = tmp_path / "r.jsonl", lines(4)
    damaged = DAMAGE[damage](whole[1])
    assert damaged != whole[1]
    path.write_bytes(b"".join([whole[0], damaged, *whole[2:]]) + whole[0][:50])
    journal = Journal(path)
    assert ([entry.content for entry in journal.entries], journal.damaged) == (known(0, 2, 3), 1)
    assert [journal.line(entry.place) for entry in journal.entries] == [whole[0], *whole[2:]]
    journal.append(lines(5)[4:])
    journal.close()
    assert opened(path) == (known(0, 2, 3, 4), 1, None)
    assert path.read_bytes() == b"".join([whole[0], damaged, *whole[2:], *lines(5)[4:]])  # nothing is taken away


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=40)), max_size=4), st.integers(0, 5))
def test_whatever_lies_between_records_they_are_found(
    tmp_path_factory: pytest.TempPathFactory, junk: list[tuple[int, bytes]], cut: int
) -> None:
    path, parts = tmp_path_factory.getbasetemp() / "fuzzed.jsonl", lines(5)
    for place, data in sorted(junk, reverse=True):
        parts.insert(place, data + b"\n")
    data = b"".join(parts)[: -cut or None]
    path.write_bytes(data)
    expected = known(*(number for number, line in enumerate(lines(5)) if line in data))
    assert [entry.content for entry in read_journal(path).entries] == expected
    if expected:
        assert opened(path)[0] == expected
        assert path.read_bytes() == data[: data.rfind(b"\n") + 1]  # but for a torn last line


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        b"old",
        b"old\n",
        b'{"path": "a.mp4", "status": "scored"}\n',
        b'{"path": "a.mp4", "size": 5}',
        b'{"path": 5',
        b'{"name": "a.mp4"}\n{"path": "a.mp4',
        bytes(100),
    ],
)
def test_a_file_that_is_no_journal_is_refused_and_stays(tmp_path: Path, data: bytes, fresh: bool) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"r\.jsonl.* is not a journal"):
        Journal(path, fresh=fresh)
    assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["r.jsonl"]


def test_a_fresh_start_keeps_one_earlier_journal_under_another_name(tmp_path: Path) -> None:
    path, old = tmp_path / "r.jsonl", tmp_path / "r.old.jsonl"
    assert opened(path, fresh=True) == ([], 0, None)
    for number in (2, 3):
        path.write_bytes(b"".join(lines(number)))
        assert opened(path, fresh=True) == ([], 0, old)
        assert old.read_bytes() == b"".join(lines(number))
        assert opened(path, fresh=True) == ([], 0, None)  # an empty one is no reason to replace the one before
    assert sorted(os.listdir(tmp_path)) == ["r.jsonl", "r.old.jsonl"]


def test_a_fresh_start_replaces_nothing_but_a_journal(tmp_path: Path) -> None:
    path, old = tmp_path / "r.jsonl", tmp_path / "r.old.jsonl"
    path.write_bytes(b"".join(lines(2)))
    old.write_text('{"mine": 1}\n')
    with pytest.raises(UsageError, match=r"r\.old\.jsonl.* is not a journal"):
        Journal(path, fresh=True)
    assert (path.read_bytes(), old.read_text()) == (b"".join(lines(2)), '{"mine": 1}\n')


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "r.jsonl").symlink_to("elsewhere/real.jsonl")
    (tmp_path / "elsewhere" / "real.jsonl").write_bytes(b"".join(lines(2)) + b"torn")
    journal = Journal(tmp_path / "r.jsonl")
    journal.append(lines(3)[2:])
    journal.close()
    assert (tmp_path / "r.jsonl").is_symlink()
    assert opened(tmp_path / "elsewhere" / "real.jsonl") == (known(0, 1, 2), 0, None)


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what fills with the files that are flushed to the disk."""
    files: list[int] = []
    flush = os.fsync

    def noting(file: int) -> None:
        flush(file)
        files.append(os.fstat(file).st_ino)

    monkeypatch.setattr(os, "fsync", noting)
    return files


def test_lines_are_flushed_after_a_moment_though_no_more_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed: list[int]
) -> None:
    monkeypatch.setattr(journal_module, "SYNC_SECONDS", 0.01)
    journal = Journal(tmp_path / "r.jsonl")
    flushed.clear()
    journal.append(lines(1))
    wait_until(lambda: (tmp_path / "r.jsonl").stat().st_ino in flushed, "the line is flushed")
    journal.close()
    assert not deepscan_threads()


def test_lines_are_flushed_together_and_at_the_end_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed: list[int]
) -> None:
    monkeypatch.setattr(journal_module, "SYNC_SECONDS", 3600.0)
    journal = Journal(tmp_path / "r.jsonl")
    flushed.clear()
    for line in lines(3):
        journal.append([line])
    assert flushed == []
    journal.close()
    assert flushed == [(tmp_path / "r.jsonl").stat().st_ino]
    assert not deepscan_threads()


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError("Input/output")], ids=["disk", "any"])
def test_a_failed_flush_is_not_kept_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    journal = Journal(tmp_path / "r.jsonl")

    def fail(file: int) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        journal.append(lines(1))
        wait_until(lambda: not journal._thread.is_alive(), "the flush has failed")
    for call in (lambda: journal.append(lines(1)), journal.sync, journal.close):
        with pytest.raises(type(error), match="Input/output"):
            call()


APPEND = """
import sys
from pathlib import Path
from deepscan.runtime.store.journal import Journal, line_of
from tests.runtime.result_rows import scanned
journal = Journal(Path(sys.argv[1]))
start = len(journal.entries)
print("ready", flush=True)
for number in range(start, start + 1_000_000):
    journal.append([line_of(scanned(number, f"{number}.mp4", content=f"fast:1:{number}"))])
    print(number, flush=True)
"""


def test_whenever_the_process_is_killed_all_that_was_written_is_there(tmp_path: Path) -> None:
    path, chance = tmp_path / "r.jsonl", random.Random(6)
    expected = 0
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", APPEND, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            before = "".join(child.stdout.readline() for _ in range(chance.randrange(30)))
            child.send_signal(signal.SIGKILL)
            told = (before + child.stdout.read()).split("\n")[:-1]
        contents, damaged, _ = opened(path)
        assert damaged == 0
        assert contents == known(*range(len(contents)))
        # At most one more than the process could tell of.
        assert 0 <= len(contents) - (int(told[-1]) + 1 if told else expected) <= 1
        expected = len(contents)
    assert expected > 20


FILL = """
import resource, sys
from pathlib import Path
from deepscan.runtime.store.journal import Journal
from tests.runtime.store.test_journal import lines
journal = Journal(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
for number, line in enumerate(lines(100)):
    try:
        journal.append([line])
    except OSError as error:
        print(number, error.strerror)
        break
journal.close()
"""


def test_on_a_full_disk_all_that_fitted_is_kept_and_no_half_line(tmp_path: Path) -> None:
    path, room = tmp_path / "r.jsonl", 5000
    arguments = [sys.executable, "-c", FILL, str(path), str(room)]
    child = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
    fitting = _fitting(lines(100), room)
    assert 0 < fitting < 100
    assert child.stdout == f"{fitting} File too large\n"
    assert path.read_bytes() == b"".join(lines(fitting))


def _fitting(written: Sequence[bytes], room: int) -> int:
    return next(count for count in range(len(written)) if sum(map(len, written[: count + 1])) > room)


def test_retried_files_have_several_records(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "r.jsonl")
    crashed = row(status="crashed", reason="signal 11", content="fast:1:a")
    journal.append([line_of(crashed), line_of(scanned(0, "0.mp4", LITE, content="fast:1:a"))])
    journal.close()
    found = read_journal(tmp_path / "r.jsonl").entries
    assert [(entry.content, entry.status in SUCCEEDED) for entry in found] == [("fast:1:a", False), ("fast:1:a", True)]
