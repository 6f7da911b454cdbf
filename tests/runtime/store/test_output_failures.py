from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from deepscan.errors import OutputError, UsageError
from deepscan.runtime.store.result_files import plan_without_writing
from deepscan.runtime.store.writers import CSV_HEADER
from deepscan.runtime.system.files import atomic_write
from tests.runtime.result_rows import LITE, files_of, paths, row, scanned, write

ROOT = Path(__file__).parents[3]


HOLD = """
import sys
from pathlib import Path
from tests.runtime.result_rows import files_of
with files_of(Path(sys.argv[1]), ["a"]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("second", ["r.csv", "r.CSV", "r", "../{0}/r.csv"])
def test_a_second_scan_onto_the_same_output_says_so_and_stops(tmp_path: Path, second: str) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "r.csv")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=r"r\.jsonl is being written by another scan: wait"):
            files_of(tmp_path / second.format(tmp_path.name), ["b"])
        with files_of(tmp_path / "free.csv", ["b"]):
            pass
        holder.send_signal(signal.SIGKILL)
    for name in (second.format(tmp_path.name), "r.csv"):
        with files_of(tmp_path / name, ["b"]):
            pass  # what the killed process left is no obstacle


def test_the_lock_is_free_again_when_opening_fails(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").symlink_to("r.jsonl")
    for _ in range(2):
        with pytest.raises(OutputError, match="Too many levels"):
            files_of(tmp_path / "r.csv", ["a"])
    (tmp_path / "r.jsonl").unlink()
    with files_of(tmp_path / "r.csv", ["a"]):
        pass


FILL = """
import resource, sys
from pathlib import Path
from tests.runtime.result_rows import files_of, paths, scanned
with files_of(Path(sys.argv[1]), paths(100)) as files:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
    try:
        for index in sorted(set(range(100)) - files.done):
            files.add(scanned(index, f"{index}.mp4"))
        files.commit()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


def test_a_full_disk_is_an_output_error_and_what_was_finished_is_kept(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    write(whole / "r.csv", *(scanned(index, f"{index}.mp4") for index in range(100)))
    data = (whole / "r.jsonl").read_bytes()
    (tmp_path / "r.csv").write_text(CSV_HEADER)
    # In the first line; in the middle; and when there is just enough.
    for room in (100, len(data) // 2, len(data), 1 << 30):
        arguments = [sys.executable, "-c", FILL, str(tmp_path / "r.csv"), str(room)]
        child = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
        if room < len(data):
            assert re.fullmatch(r"OutputError: .*r\.csv .*cannot be written \(File too large\): .*\n", child.stdout)
            assert (tmp_path / "r.jsonl").read_bytes() == data[:room].rpartition(b"\n")[0] + b"\n" * (room > 100)
            assert (tmp_path / "r.csv").read_text() == CSV_HEADER
        else:
            assert child.stdout == ""
    assert (tmp_path / "r.jsonl").read_bytes() == data
    assert (tmp_path / "r.csv").read_bytes() == (whole / "r.csv").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["r.csv", "r.jsonl", "whole"]


READ_ONLY = """
import os, sys
from pathlib import Path
from tests.runtime.result_rows import files_of, scanned
out = Path(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    if sys.argv[2] == "before":
        out.parent.chmod(0o500)
    with files_of(out, ["a", "b"]) as files:
        files.add(scanned(0, "a"))
        out.parent.chmod(0o500)
        files.add(scanned(1, "b"))
        files.commit()
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_folder_that_is_or_becomes_read_only_is_an_output_error(when: str) -> None:
    with tempfile.TemporaryDirectory() as outer:  # pytest's own folders are closed to other users
        folder = Path(outer) / "out"
        folder.mkdir()
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
            Path(outer).chmod(0o755)
        arguments = [sys.executable, "-c", READ_ONLY, str(folder / "r.csv"), when]
        child = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
        assert re.fullmatch(r"OutputError: .*r\.csv .*cannot be written \(Permission denied\): .*\n", child.stdout)
        folder.chmod(0o700)
        if when == "before":
            assert os.listdir(folder) == []
        else:
            with files_of(folder / "r.csv", ["a", "b"]) as files:
                assert files.done == {0, 1}


@pytest.mark.parametrize("place", ["file/r.csv", "file/missing/r.csv"])
def test_a_place_where_nothing_can_be_written_is_an_output_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=r"r\.csv .*cannot be written"):
        files_of(tmp_path / place, ["a"])


@pytest.mark.parametrize("length", [243, 251, 255, 300])
def test_a_name_that_is_too_long_for_what_stands_beside_it_is_an_output_error(tmp_path: Path, length: int) -> None:
    with pytest.raises(OutputError, match="name too long"):
        files_of(tmp_path / f"{'r' * length}.csv", ["a"])
    assert os.listdir(tmp_path) == []


def test_missing_folders_are_made_when_something_is_written(tmp_path: Path) -> None:
    out = tmp_path / "new" / "newer" / "r.csv"
    plan_without_writing(out, inputs=["a"], contents=["fast:1:a"], detectors=[LITE])
    assert os.listdir(tmp_path) == []
    write(out, row())
    assert sorted(os.listdir(out.parent)) == ["r.csv", "r.jsonl"]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("r.jsonl", "not the name of a CSV"),
        ("r.xlsx", "let it end in .csv"),
        ("r.csv.gz", "let it end in .csv"),
        ("r.JSON", "let it end in .csv"),
        ("folder", "is a folder"),
        ("d.csv", "d.jsonl is a folder"),
        ("pipe", "a device or a pipe"),
    ],
)
def test_a_name_that_is_none_of_a_csv_is_refused(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "d.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=what):
        files_of(tmp_path / name, ["a"])


def test_a_link_stays_a_link_to_the_new_results(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for ending in ("csv", "jsonl"):
        (tmp_path / f"r.{ending}").symlink_to(f"elsewhere/real.{ending}")
    write(tmp_path / "r.csv", row())
    for ending in ("csv", "jsonl"):
        assert (tmp_path / f"r.{ending}").is_symlink()
        assert row().path in (tmp_path / "elsewhere" / f"real.{ending}").read_text()


@pytest.mark.parametrize(
    "taken",
    ["r.csv", "r.jsonl", "link", "folder/../r.csv", ".r.csv.123.partial"],
)
def test_an_input_is_never_written_to(tmp_path: Path, taken: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("r.jsonl")
    (tmp_path / taken).write_text("old")
    with pytest.raises(UsageError, match="one of the inputs"):
        files_of(tmp_path / "r.csv", ["other.mp4", str(tmp_path / taken)])
    assert (tmp_path / taken).read_text() == "old"


def test_what_killed_processes_left_is_removed_and_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_text("precious")
    (tmp_path / f".r.csv.{os.getpid()}.partial").symlink_to("video.mp4")
    (tmp_path / ".r.jsonl.99.partial").write_text("left")
    (tmp_path / ".r.jsonl.mine.partial").write_text("not ours")
    write(tmp_path / "r.csv", row())
    assert (tmp_path / "video.mp4").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == [".r.jsonl.mine.partial", "r.csv", "r.jsonl", "video.mp4"]


def test_replacing_a_file_writes_to_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_text("precious")
    (tmp_path / f".r.csv.{os.getpid()}.partial").symlink_to("video.mp4")
    atomic_write({tmp_path / "r.csv": [b"new"]})
    assert {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)} == {
        "r.csv": "new",
        "video.mp4": "precious",
    }


@pytest.mark.parametrize("first", [KeyError, None])
def test_a_failed_flush_at_the_end_hides_nothing_that_went_wrong_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: type[Exception] | None
) -> None:
    def fail(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def scan() -> None:
        with files_of(tmp_path / "r.csv", paths(2)):
            monkeypatch.setattr(os, "fsync", fail)
            if first is not None:
                raise first

    with pytest.raises(first or OutputError):
        scan()
    monkeypatch.undo()
    with files_of(tmp_path / "r.csv", paths(2)):
        pass  # what failed holds no lock any more


OTHERS = {
    "r.csv": "name,amount\nrent,700\n",
    "r.jsonl": '{"name": "rent"}\n',
    "r.old.jsonl": '{"name": "rent"}\n',
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_that_deepscan_has_not_written_is_never_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(OTHERS[name])
    with pytest.raises(UsageError, match=rf"{re.escape(name)}.* choose another --out"):
        files_of(tmp_path / "r.csv", ["a"], fresh=True)
    assert {name: OTHERS[name]} == {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)}


@pytest.mark.parametrize(
    "text", ["", CSV_HEADER, "\ufeff" + CSV_HEADER, CSV_HEADER.replace("\n", "\r\n") + "a.mp4,,,\r\n", CSV_HEADER[:-1]]
)
def test_a_csv_of_deepscan_is_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.csv").write_text(text, newline="")
    assert len(write(tmp_path / "r.csv", row())) == 2


@pytest.mark.parametrize(
    "text",
    [" ", "\n" + CSV_HEADER, CSV_HEADER.replace(",", ";"), CSV_HEADER[:-1] + ",note\n", "\ufeff", "path\n"],
)
def test_a_csv_with_other_columns_is_not(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(
        UsageError, match="was not written by deepscan, or another program has saved it since: move it away"
    ):
        files_of(tmp_path / "r.csv", ["a"])
    with pytest.raises(UsageError, match="was not written by deepscan"):
        plan_without_writing(tmp_path / "r.csv", inputs=["a"], contents=[None], detectors=[LITE])
    assert (tmp_path / "r.csv").read_text() == text
