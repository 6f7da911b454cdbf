"""Folders of pictures and of videos: which files of a folder are scanned."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deepscan.runtime.media.inputs import PICTURES, plan_inputs
from tests.runtime.media.test_inputs import below, make


def test_files_that_are_passed_over_are_counted_and_unknown_endings_are_tried(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "none", "b.xyz", "c.TXT", "in/d.jpg", "in/e.csv", ".hidden.txt")
    plan = plan_inputs([tmp_path])
    assert below(plan, tmp_path) == ["a.mp4", "b.xyz", "none"]
    assert plan.skipped == 3


def test_beside_videos_pictures_are_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.txt", "in/c.png", "in/deep/video.mp4", "live.HEIC", "z.webp")
    plan = plan_inputs([tmp_path])
    assert below(plan, tmp_path) == ["in/deep/video.mp4"]
    assert plan.skipped == 5


def test_of_a_folder_of_pictures_the_pictures_are_the_inputs_in_sorted_order(tmp_path: Path) -> None:
    names = [f"picture.{ending}" for ending in sorted(PICTURES)]
    make(tmp_path, *names, "list.csv", "in/B.PNG", "in/a.Jpeg", "in/deep/c.tif", "in/photo.psd", ".hidden.jpg")
    plan = plan_inputs([tmp_path])
    assert below(plan, tmp_path) == [*names, "in/B.PNG", "in/a.Jpeg", "in/deep/c.tif"]
    assert [planned.size_bytes for planned in plan.inputs] == [len(b"content")] * len(plan.inputs)
    assert plan.skipped == 2


@pytest.mark.parametrize("name", ["film.mp4", "animated.gif", "unknown.xyz"])
def test_one_file_that_could_be_a_video_makes_a_folder_one_of_videos(tmp_path: Path, name: str) -> None:
    make(tmp_path, "a.jpg", name)
    plan = plan_inputs([tmp_path])
    assert (below(plan, tmp_path), plan.skipped) == ([name], 1)


def test_each_given_folder_is_one_of_videos_or_of_pictures_by_itself(tmp_path: Path) -> None:
    make(tmp_path, "films/a.mp4", "films/cover.jpg", "photos/b.jpg")
    plan = plan_inputs([tmp_path / "photos", tmp_path / "films"])
    assert below(plan, tmp_path) == ["photos/b.jpg", "films/a.mp4"]
    assert plan.skipped == 1
    assert below(plan_inputs([tmp_path]), tmp_path) == ["films/a.mp4"]


def test_videos_that_are_not_taken_do_not_make_a_folder_one_of_videos(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "in/video.mp4", ".hidden.mp4")
    assert below(plan_inputs([tmp_path], recursive=False), tmp_path) == ["a.jpg"]
    assert below(plan_inputs([tmp_path], exclude=["*.mp4"]), tmp_path) == ["a.jpg"]
    assert below(plan_inputs([tmp_path]), tmp_path) == ["in/video.mp4"]


def test_patterns_to_include_take_pictures_only_where_they_match(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.png", "video.mp4")
    assert below(plan_inputs([tmp_path], include=["*.jpg", "*.mp4"]), tmp_path) == ["a.jpg", "video.mp4"]
    plan = plan_inputs([tmp_path], include=["*.mkv"])
    assert plan.inputs == ()
    assert "matches --include" in plan.warnings[0]
    assert plan.skipped == 3


def test_a_picture_that_is_named_is_an_input_whatever_is_beside_it(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "video.mp4")
    plan = plan_inputs([tmp_path, tmp_path / "a.jpg"])
    assert below(plan, tmp_path) == ["video.mp4", "a.jpg"]


def test_a_file_without_an_ending_does_not_make_an_image_folder_one_of_videos(tmp_path: Path) -> None:
    for name in ("LICENSE", "a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    plan = plan_inputs([tmp_path])
    assert [os.path.basename(planned.path) for planned in plan.inputs] == ["a.png", "b.jpg"]
    assert plan.skipped == 1
    (tmp_path / "c.mp4").write_bytes(b"x")
    plan = plan_inputs([tmp_path])
    assert [os.path.basename(planned.path) for planned in plan.inputs] == ["LICENSE", "c.mp4"]
    assert plan.skipped == 2
