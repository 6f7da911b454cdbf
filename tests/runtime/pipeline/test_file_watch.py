"""Bytes that a video was decoded from: those that were planned, others, or unknown ones."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from deepscan.errors import UnreachableInput, UnreadableInput
from deepscan.runtime.faces.face_detectors import DETECTION_SIDE
from deepscan.runtime.media.content import planned_content, planned_contents
from deepscan.runtime.media.file_bytes import FileBytes, masked
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.media.open_input import open_input
from deepscan.runtime.media.sampling import Sampling
from deepscan.runtime.pipeline.file_watch import CHANGED
from deepscan.runtime.pipeline.messages import VideoDecoded
from deepscan.runtime.pipeline.stages import DecodeStage
from deepscan.runtime.system import regular_files
from deepscan.runtime.system.regular_files import RegularFile, open_regular_file, opened_files
from tests.footage import flat, portrait, write_video

TWICE = Sampling("first", count=6, twice=True)
FULL = Sampling("all", detect_every=5)
Change = Callable[[Path], None]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "v.mp4", [portrait(320, 240)] * 12)


def planned(path: Path, *, full: bool = False) -> VideoJob:
    job = VideoJob(0, str(path))
    job.planned = planned_contents([str(path)], full=full, threads=1)[0]
    return job


def decoded(job: VideoJob, *, during: Change | None = None, sampling: Sampling = FULL) -> VideoDecoded:
    """Decode to the end, and change the file after its first frame."""
    end = None
    for number, message in enumerate(
        DecodeStage(partial(open_input, threads=1), sampling, detection_side=DETECTION_SIDE)(job)
    ):
        if number == 0 and during is not None:
            during(Path(job.path))
        end = message
    assert isinstance(end, VideoDecoded)
    return end


def grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"\0\0\0\x0efree123456")


def edit(path: Path) -> None:
    """Change a byte and keep the size and the time."""
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    write_video(path.with_name("new.mp4"), [flat((90, 140, 60), 320, 240)] * 12).replace(path)


def touch(path: Path) -> None:
    os.utime(path, ns=(5, 5))


def move(path: Path) -> None:
    path.rename(path.with_name("moved.mp4"))


def protect(path: Path) -> None:
    path.chmod(0o400)


def truncate(path: Path) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


@pytest.mark.parametrize("full", [False, True])
def test_what_was_planned_was_read(video: Path, full: bool) -> None:
    job = planned(video, full=full)
    end = decoded(job)
    assert (end.failure, end.damage) == (None, None)
    assert job.content == planned_content(str(video), full=full).content


def test_nobody_asks_and_nobody_is_told(video: Path) -> None:
    job = VideoJob(0, str(video))
    assert decoded(job).damage is None
    assert job.content is None


@pytest.mark.parametrize("change", [grow, edit, replace, touch, protect])
def test_what_changed_before_its_turn_is_known_by_what_it_holds_then(video: Path, change: Change) -> None:
    job = planned(video)
    before = planned_content(str(video), full=False).content
    change(video)
    end = decoded(job)
    assert (end.failure, end.damage) == (None, None)
    assert job.content == planned_content(str(video), full=False).content
    assert (job.content == before) == (change in (touch, protect))


def test_looking_at_a_large_file_anew_is_movement(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", [portrait(320, 240)] * 2)
    job = planned(path, full=True)
    with open(path, "ab") as file:
        file.write(b"\0\x60\0\0free" + bytes((6 << 20) - 8))
    moves = list[int]()
    stage = DecodeStage(
        partial(open_input, threads=1), FULL, detection_side=DETECTION_SIDE, moved=lambda: moves.append(1)
    )
    *_, before_the_end, _ = ((message, len(moves)) for message in stage(job))
    assert job.content == planned_content(str(path), full=True).content
    assert len(moves) - before_the_end[1] >= 6


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("change", [grow, truncate, touch])
def test_what_changes_while_it_is_read_is_said_and_belongs_to_nothing(video: Path, change: Change, asked: bool) -> None:
    job = planned(video) if asked else VideoJob(0, str(video))
    end = decoded(job, during=change)
    assert CHANGED in (end.damage or str(end.failure))
    assert job.content is None


def test_what_is_edited_while_it_is_read_is_noticed_by_its_content(video: Path) -> None:
    job = planned(video)
    assert decoded(job, during=edit).damage == CHANGED
    assert job.content is None


@pytest.mark.parametrize("change", [move, Path.unlink, protect, replace])
def test_a_name_that_leads_elsewhere_meanwhile_makes_no_difference(video: Path, change: Change) -> None:
    job = planned(video)
    before = planned_content(str(video), full=False).content
    end = decoded(job, during=change)
    assert (end.failure, end.damage, job.content) == (None, None, before)


@pytest.mark.parametrize(("change", "content"), [(replace, None), (None, "same"), (protect, "same")])
def test_a_video_that_is_read_twice_must_be_the_same_both_times(
    video: Path, change: Change | None, content: str | None
) -> None:
    job = planned(video)
    before = planned_content(str(video), full=False).content
    end = decoded(job, during=change, sampling=TWICE)
    assert job.content == (before if content else None)
    assert end.damage == (None if content else CHANGED)


@pytest.mark.parametrize("change", [move, Path.unlink])
def test_what_is_gone_in_its_turn_cannot_be_reached(video: Path, change: Change) -> None:
    job = planned(video)
    change(video)
    end = decoded(job)
    assert isinstance(end.failure, UnreachableInput)
    assert "No such file" in str(end.failure)
    assert job.content is None


def test_what_is_gone_before_its_second_pass_cannot_be_reached(video: Path) -> None:
    job = planned(video)
    assert isinstance(decoded(job, during=move, sampling=TWICE).failure, UnreachableInput)
    assert job.content is None


def test_damage_is_a_fact_about_the_content(video: Path) -> None:
    truncate(video)
    job = planned(video)
    end = decoded(job)
    assert isinstance(end.failure, UnreadableInput)
    assert not isinstance(end.failure, UnreachableInput)
    assert job.content == planned_content(str(video), full=False).content


def test_what_could_not_be_read_when_the_scan_was_planned_is_known_once_it_can_be(video: Path) -> None:
    shutil.move(video, video.with_name("away.mp4"))
    job = planned(video)
    shutil.move(video.with_name("away.mp4"), video)
    assert decoded(job).failure is None
    assert job.content == planned_content(str(video), full=False).content


def failing_from(offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make reading beyond an offset fail as it does on a bad disk: with an error of the system."""
    unreadable = os.open(os.devnull, os.O_WRONLY)

    class OnBadDisk(RegularFile):
        def readinto(self, buffer: bytearray, /) -> int | None:  # type: ignore[override]
            if self.tell() >= offset:
                os.dup2(unreadable, self.fileno())
            return super().readinto(buffer)

        def readall(self) -> bytes:
            os.dup2(unreadable, self.fileno())
            return super().readall()

    monkeypatch.setattr(regular_files, "RegularFile", OnBadDisk)


@pytest.mark.parametrize("offset", [0, 5000])
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts", "v.avi"])
def test_a_disk_that_fails_says_nothing_about_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, offset: int
) -> None:
    path = write_video(tmp_path / name, [portrait(320, 240)] * 12)
    assert path.stat().st_size > 2 * offset
    job = planned(path)
    failing_from(offset, monkeypatch)
    end = decoded(job)
    assert isinstance(end.failure, UnreachableInput)
    assert "Bad file descriptor" in str(end.failure)
    assert job.content is None


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi"])
def test_a_disk_that_fails_where_only_the_end_is_looked_at_makes_no_file_a_cut_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write_video(tmp_path / name, [portrait(320, 240)] * 12)
    job = planned(path)
    monkeypatch.setattr(os, "pread", failing_pread)
    end = decoded(job)
    assert isinstance(end.failure, UnreachableInput)
    assert "Input/output error" in str(end.failure)
    assert job.content is None


def failing_pread(_descriptor: int, _count: int, _place: int) -> bytes:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_masked_file_remembers_too(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pread", failing_pread)
    with opened_files() as opened, closing(masked(open_regular_file(str(video)), ())) as file:
        assert FileBytes(file).at(0, 4) == b""
    opened[0].close()
    assert opened[0].file.failure is not None


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tiff", "bmp", "gif"])
def test_a_disk_that_fails_makes_no_picture_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    path = tmp_path / f"p.{ending}"
    Image.effect_noise((600, 600), 80).convert("RGB").save(path)
    job = planned(path)
    failing_from(8192, monkeypatch)
    assert isinstance(decoded(job).failure, UnreachableInput)
    assert job.content is None
