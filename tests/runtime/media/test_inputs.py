from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.errors import UnreachableInput, UnreadableInput, UsageError
from deepscan.runtime.media.inputs import InputPlan, normalized_path, paths_from_list, plan_inputs

AWKWARD_NAMES = [
    b"comma, quote\" and 'more'.mp4",
    b"two\nlines\r\n.mp4",
    b"not utf-8 \xff\xc3.mp4",
    "schön 视频.mp4".encode(),
    b" spaces .mp4 ",
    b"-dash.mp4",
    b"=formula().mp4",
    b"escape\x1b[31m.mp4",
    b"[brackets]*?.mp4",
]


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")


def below(plan: InputPlan, folder: Path) -> list[str]:
    return [os.path.relpath(planned.path, folder) for planned in plan.inputs]


@pytest.mark.parametrize("order", [1, -1])
def test_a_folder_gives_its_files_before_those_of_its_folders_in_sorted_order(tmp_path: Path, order: int) -> None:
    names = ["z.mp4", "a/2.mp4", "b.mp4", "A.mp4", "a/1.mp4", "a/deep/x.mkv", "B/y.avi"]
    make(tmp_path, *names[::order])
    plan = plan_inputs([tmp_path])
    expected = ["A.mp4", "b.mp4", "z.mp4", "B/y.avi", "a/1.mp4", "a/2.mp4", "a/deep/x.mkv"]
    assert below(plan, tmp_path) == expected


def test_without_recursion_folders_inside_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "top.mp4", "inner/below.mp4")
    assert below(plan_inputs([tmp_path], recursive=False), tmp_path) == ["top.mp4"]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, ".hidden.mp4", ".trash/x.mp4", "seen.mp4", "inner/.y.mp4", "inner/z.mp4")
    assert below(plan_inputs([tmp_path]), tmp_path) == ["seen.mp4", "inner/z.mp4"]


def test_a_hidden_folder_that_is_named_is_scanned(tmp_path: Path) -> None:
    make(tmp_path, ".hidden/x.mp4")
    assert below(plan_inputs([tmp_path / ".hidden"]), tmp_path) == [".hidden/x.mp4"]


def test_links_in_folders_are_not_followed_and_counted(tmp_path: Path) -> None:
    make(tmp_path, "seen/inner/x.mp4", "secret/y.mp4")
    (tmp_path / "seen" / "inner" / "up").symlink_to(tmp_path)
    (tmp_path / "seen" / "file.mp4").symlink_to(tmp_path / "secret" / "y.mp4")
    (tmp_path / "seen" / "loop").symlink_to("loop")
    plan = plan_inputs([tmp_path / "seen"])
    assert below(plan, tmp_path) == ["seen/inner/x.mp4"]
    assert (plan.links, plan.skipped) == (3, 0)
    assert plan.passed_over() == "3 links (see --follow-links)"


@pytest.mark.parametrize(("count", "said"), [(1, "1 link was not followed"), (2, "2 links were not followed")])
def test_a_folder_of_links_says_why_nothing_in_it_is_scanned(tmp_path: Path, count: int, said: str) -> None:
    make(tmp_path, "real/x.mp4")
    (tmp_path / "links").mkdir()
    for number in range(count):
        (tmp_path / "links" / f"{number}.mp4").symlink_to(tmp_path / "real" / "x.mp4")
    plan = plan_inputs([tmp_path / "links"])
    assert plan.inputs == ()
    (warning,) = plan.warnings
    assert said in warning
    assert str(tmp_path / "links") in warning


def test_a_link_to_a_file_that_is_named_is_followed(tmp_path: Path) -> None:
    make(tmp_path, "real.mp4")
    (tmp_path / "link.mp4").symlink_to("real.mp4")
    (planned,) = plan_inputs([tmp_path / "link.mp4"]).inputs
    assert (planned.path, planned.size_bytes) == (str(tmp_path / "link.mp4"), len(b"content"))


def test_links_that_are_followed_end_in_no_loop_and_give_each_file_once(tmp_path: Path) -> None:
    make(tmp_path, "a/x.mp4", "a/deep/y.mp4", "outside/z.mp4")
    (tmp_path / "a" / "deep" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "other").symlink_to(tmp_path / "outside")
    (tmp_path / "a" / "same.mp4").symlink_to("x.mp4")
    (tmp_path / "outside" / "back").symlink_to(tmp_path / "a" / "deep")
    plan = plan_inputs([tmp_path / "a"], follow_links=True)
    assert below(plan, tmp_path / "a") == ["same.mp4", "deep/y.mp4", "other/z.mp4"]
    assert (plan.links, plan.twice) == (0, 1)
    assert plan.passed_over() == "1 file that links lead to as well"


def test_a_folder_that_is_given_twice_gives_its_files_once_though_links_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "a/x.mp4")
    (tmp_path / "b").symlink_to("a")
    plan = plan_inputs([tmp_path / "a", tmp_path / "b", tmp_path / "a"], follow_links=True)
    assert [(os.path.relpath(found.path, tmp_path), found.problem) for found in plan.inputs] == [("a/x.mp4", None)]


def test_pipes_sockets_and_devices_in_folders_are_passed_over_and_counted(tmp_path: Path) -> None:
    make(tmp_path, "x.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.mp4"))
        plan = plan_inputs([tmp_path])
    assert below(plan, tmp_path) == ["x.mp4"]
    assert plan.passed_over() == "2 devices, pipes or sockets"


def test_a_link_to_a_device_is_passed_over_though_links_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "x.mp4")
    (tmp_path / "zeros.mp4").symlink_to("/dev/zero")
    assert below(plan_inputs([tmp_path], follow_links=True), tmp_path) == ["x.mp4"]


def test_a_link_to_itself_is_an_input_like_any_broken_link_where_links_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "x.mp4")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("missing")
    plan = plan_inputs([tmp_path], follow_links=True)
    assert below(plan, tmp_path) == ["loop", "nowhere", "x.mp4"]
    assert [planned.size_bytes for planned in plan.inputs] == [0, 0, len(b"content")]


def test_a_linked_folder_that_is_named_is_scanned(tmp_path: Path) -> None:
    make(tmp_path, "real/x.mp4")
    (tmp_path / "link").symlink_to("real")
    assert below(plan_inputs([tmp_path / "link"]), tmp_path) == ["link/x.mp4"]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["*.mp4"], [], ["a.mp4", "in/b.mp4", "in/deep/c.mp4"]),
        (["in/*"], [], ["in/b.mp4", "in/note.txt", "in/deep/c.mp4"]),
        (["in/?.mp4"], [], ["in/b.mp4"]),
        (["*.txt", "a.*"], [], ["a.mp4", "in/note.txt"]),
        ([], ["b*"], ["a.mp4", "in/deep/c.mp4"]),
        ([], ["deep"], ["a.mp4", "in/b.mp4"]),
        ([], ["in/deep"], ["a.mp4", "in/b.mp4"]),
        ([], ["deep/*"], ["a.mp4", "in/b.mp4", "in/deep/c.mp4"]),
        ([], ["in"], ["a.mp4"]),
        (["*.mp4"], ["*/c.mp4"], ["a.mp4", "in/b.mp4"]),
    ],
)
def test_patterns_match_the_name_or_with_a_slash_the_path_below_the_folder(
    tmp_path: Path, include: list[str], exclude: list[str], expected: list[str]
) -> None:
    make(tmp_path, "a.mp4", "in/b.mp4", "in/note.txt", "in/deep/c.mp4")
    assert below(plan_inputs([tmp_path], include=include, exclude=exclude), tmp_path) == expected


def test_a_file_that_is_named_is_an_input_whatever_it_is_called(tmp_path: Path) -> None:
    make(tmp_path, "note.txt", ".hidden")
    given = [tmp_path / "note.txt", tmp_path / ".hidden"]
    plan = plan_inputs(given, include=["*.mp4"], exclude=["*"])
    assert [planned.path for planned in plan.inputs] == [str(path) for path in given]
    assert [(planned.size_bytes, planned.problem) for planned in plan.inputs] == [(len(b"content"), None)] * 2


def test_a_path_that_is_given_twice_is_one_input_at_its_first_place(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "b.mp4")
    plan = plan_inputs([tmp_path / "b.mp4", tmp_path, str(tmp_path / "b.mp4")])
    assert below(plan, tmp_path) == ["b.mp4", "a.mp4"]


def test_a_missing_path_is_an_input_with_a_problem(tmp_path: Path) -> None:
    (planned,) = plan_inputs([tmp_path / "missing.mp4"]).inputs
    assert planned.path == str(tmp_path / "missing.mp4")
    assert isinstance(planned.problem, UnreadableInput)
    assert "No such file" in str(planned.problem)


@pytest.mark.parametrize("names", [[], ["readme.txt", "photo.psd", "in/raw.NEF"]])
def test_a_folder_without_videos_and_pictures_gives_a_warning_and_no_input(tmp_path: Path, names: list[str]) -> None:
    make(tmp_path, *names)
    plan = plan_inputs([tmp_path])
    assert plan.inputs == ()
    assert [str(tmp_path) in warning for warning in plan.warnings] == [True]
    assert plan.skipped == len(names)


def test_an_empty_folder_among_others_costs_no_row(tmp_path: Path) -> None:
    make(tmp_path, "full/a.mp4")
    (tmp_path / "empty").mkdir()
    plan = plan_inputs([tmp_path / "empty", tmp_path / "full"])
    assert below(plan, tmp_path) == ["full/a.mp4"]
    assert len(plan.warnings) == 1
    assert plan_inputs([tmp_path]).warnings == ()  # which has a video, though a folder in it is empty


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_an_input_with_a_problem(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "locked/b.mp4")
    (tmp_path / "locked").chmod(0)
    first, second = plan_inputs([tmp_path]).inputs
    (tmp_path / "locked").chmod(0o700)
    assert (first.problem, second.path) == (None, str(tmp_path / "locked"))
    assert isinstance(second.problem, UnreadableInput)


def nested(folder: Path, name: str, depth: int) -> None:
    """Make a chain of folders by steps, so that its whole path may be longer than the system allows."""
    script = 'cd "$1"; for i in $(seq "$3"); do mkdir "$2"; cd -P "$2"; done; : > x.mp4'
    subprocess.run(["sh", "-c", script, "sh", str(folder), name, str(depth)], check=True)


@pytest.fixture
def removed() -> Callable[[Path], None]:
    """Remove a tree that pytest, which recurses, could not."""

    def remove(folder: Path) -> None:
        subprocess.run(["rm", "-rf", str(folder)], check=True)

    return remove


def test_a_folder_whose_path_is_too_long_to_list_is_an_input_with_a_problem(
    tmp_path: Path, removed: Callable[[Path], None]
) -> None:
    make(tmp_path, "a.mp4", "deep/b.mp4")
    nested(tmp_path / "deep", "d" * 200, 25)
    first, second, last = plan_inputs([tmp_path]).inputs
    removed(tmp_path / "deep")
    assert (first.problem, second.problem) == (None, None)
    assert isinstance(last.problem, UnreadableInput)
    assert "cannot be listed" in str(last.problem)


@pytest.mark.parametrize("name", ["b.mp4", "b.jpg"])
def test_a_folder_with_a_problem_stays_an_input_among_videos_and_among_pictures(
    tmp_path: Path, removed: Callable[[Path], None], name: str
) -> None:
    make(tmp_path, f"deep/{name}")
    nested(tmp_path / "deep", "d" * 200, 25)
    plan = plan_inputs([tmp_path / "deep"])
    removed(tmp_path / "deep")
    assert [type(planned.problem) for planned in plan.inputs] == [type(None), UnreachableInput]


def test_folders_in_folders_a_thousand_deep_are_found(tmp_path: Path, removed: Callable[[Path], None]) -> None:
    nested(tmp_path, "d", 1200)
    (planned,) = plan_inputs([tmp_path / "d"]).inputs
    removed(tmp_path / "d")
    assert planned.path == f"{tmp_path}/{'d/' * 1200}x.mp4"


@pytest.mark.parametrize("name", AWKWARD_NAMES)
def test_any_name_comes_through_a_folder_and_opens_again(tmp_path: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        file.write(b"12345")
    (planned,) = plan_inputs([tmp_path]).inputs
    assert os.fsencode(planned.path) == path
    assert (planned.size_bytes, planned.problem) == (5, None)


def test_nothing_to_scan_is_wrong_usage_unless_a_list_may_be_empty() -> None:
    with pytest.raises(UsageError, match="nothing to scan"):
        plan_inputs([])
    assert plan_inputs([], allow_empty=True).inputs == ()


@pytest.mark.parametrize(
    ("data", "paths"),
    [
        (b"", []),
        (b"a.mp4", ["a.mp4"]),
        (b"a.mp4\nb c.mp4\n", ["a.mp4", "b c.mp4"]),
        (b"a.mp4\r\n\r\nb.mp4\r\n", ["a.mp4", "b.mp4"]),
        (b"a\nb\r\n.mp4\0c.mp4\r\0\0", ["a\nb\r\n.mp4", "c.mp4\r"]),
        (b" a \n", [" a "]),
        (b"\xff\xc3.mp4\n", [os.fsdecode(b"\xff\xc3.mp4")]),
    ],
)
def test_a_list_is_separated_by_nul_bytes_or_line_ends(data: bytes, paths: list[str]) -> None:
    assert paths_from_list(data) == paths


@given(st.lists(st.binary(min_size=1).map(lambda name: name.replace(b"\0", b"0"))))
def test_a_nul_separated_list_gives_back_every_name(names: list[bytes]) -> None:
    assert [os.fsencode(path) for path in paths_from_list(b"".join(name + b"\0" for name in names))] == names


@given(st.lists(st.binary(min_size=1).map(lambda name: name.translate(None, b"\0\n\r") or b"x")), st.booleans())
def test_a_list_of_lines_gives_back_every_name(names: list[bytes], dos: bool) -> None:
    data = b"".join(name + (b"\r\n" if dos else b"\n") for name in names)
    assert [os.fsencode(path) for path in paths_from_list(data)] == names


@pytest.mark.parametrize(
    ("path", "normalized"),
    [
        ("a.mp4", "a.mp4"),
        ("./a.mp4", "a.mp4"),
        ("v//a.mp4", "v/a.mp4"),
        ("v/./a.mp4", "v/a.mp4"),
        (".//v/./a.mp4", "v/a.mp4"),
        ("/v/a.mp4", "/v/a.mp4"),
        ("//v/a.mp4", "/v/a.mp4"),
        ("v/", "v"),
        ("./", "."),
        ("/", "/"),
        ("../a.mp4", "../a.mp4"),
        ("link/../a.mp4", "link/../a.mp4"),
        (".a.mp4", ".a.mp4"),
        ("v/.a/...mp4", "v/.a/...mp4"),
    ],
)
def test_what_makes_no_difference_in_a_path_is_left_out(path: str, normalized: str) -> None:
    assert normalized_path(path) == normalized


def test_one_file_named_in_two_ways_is_one_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.mp4", "v/b.mp4")
    monkeypatch.chdir(tmp_path)
    assert [planned.path for planned in plan_inputs(["./a.mp4", "a.mp4", "v", "./v/", "v//b.mp4"]).inputs] == [
        "./a.mp4",
        "v/b.mp4",
    ]
