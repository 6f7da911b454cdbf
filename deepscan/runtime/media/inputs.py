"""The inputs of a scan, found from paths, folders and lists in an order independent of the file system."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from deepscan.errors import InputError, UnreachableInput, UsageError
from deepscan.runtime.system.regular_files import refuse_irregular
from deepscan.wording import counted, plural

# Endings of still pictures. GIF is not among them, as most GIF files are videos.
PICTURES = frozenset("avif bmp heic heif hif jfif jpe jpeg jpg mpo pbm pgm png pnm ppm tif tiff webp".split(" "))
# Endings of files in folders that are no videos; files with any other ending, or none, are scanned.
NOT_VIDEO = PICTURES | frozenset(
    "7z aac ac3 ass bak bin bz2 c cfg conf cpp cr2 css csv db dll dng doc docx exe flac gz h htm html ico "
    "idx ini ipynb iso js json jsonl lock log lrc m3u m3u8 m4a md md5 mid mp3 nef nfo npy npz odp ods odt onnx opus "
    "pdf pkl plan ppt pptx psd pt pth py rar raw rst safetensors sh sha256 sqlite srt ssa sub svg tar tex tgz toml "
    "torrent tsv ttf txt url vtt wav whl woff woff2 xls xlsx xml xz yaml yml zip zst".split(" ")
)


@dataclass(frozen=True, slots=True)
class PlannedInput:
    """One input, which gives one row, as given or found below a given folder; its size is 0 if unknown.

    `problem` is why it cannot be scanned, if that is already known.
    """

    path: str
    size_bytes: int
    problem: InputError | None = None


@dataclass(frozen=True, slots=True)
class InputPlan:
    """The inputs of a scan in order, each path once, and numbers of what was left out of folders.

    Attributes:
        skipped: files left out because of their names.
        links: links that were not followed.
        special: devices, pipes and sockets.
        twice: files left out because a link had led to them before.
        warnings: sentences about folders in which nothing can be scanned.
    """

    inputs: tuple[PlannedInput, ...]
    skipped: int
    links: int = 0
    special: int = 0
    twice: int = 0
    warnings: tuple[str, ...] = ()

    def passed_over(self) -> str:
        """Return counts of what was left out of folders, in words; empty if nothing was."""
        counts = (
            (self.skipped, counted(self.skipped, "other file")),
            (self.links, f"{counted(self.links, 'link')} (see --follow-links)"),
            (self.special, counted(self.special, "device, pipe or socket", "devices, pipes or sockets")),
            (self.twice, f"{counted(self.twice, 'file')} that links lead to as well"),
        )
        return ", ".join(said for count, said in counts if count)


def plan_inputs(
    paths: Iterable[str | os.PathLike[str]],
    *,
    recursive: bool = True,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    follow_links: bool = False,
    allow_empty: bool = False,
) -> InputPlan:
    """Find the inputs of a scan.

    A path that is given itself is always an input, even a link. In folders, hidden files and folders, links, devices,
    pipes, sockets and files with an ending of other formats are left out. Names are sorted; files come before folders.
    If a given folder and those below it have pictures but no possible video with an ending, the pictures are the
    inputs. A folder without inputs gives a warning.

    Args:
        paths: files and folders.
        recursive: whether to descend into folders inside the given folders.
        include: patterns; in folders only files that match one are inputs, whatever their ending.
        exclude: patterns; in folders files and folders that match one are left out. A pattern with a slash is matched
            against the path below the given folder, one without against the name; upper and lower case are the same,
            and * matches slashes too.
        follow_links: whether links in folders are followed; each file and folder is then taken once, by the first path.
        allow_empty: whether no path at all gives an empty plan instead of an error.

    Raises:
        UsageError: there is no path at all.
    """
    planned: dict[str, PlannedInput] = {}
    given_any = allow_empty
    finder = _Finder(recursive, include, exclude, follow_links)
    for given in paths:
        given_any = True
        for found in finder.find(os.fspath(given)):
            planned.setdefault(normalized_path(found.path), _with_problem(found))
    if not given_any:
        raise UsageError("There is nothing to scan: give at least one video, folder or list of videos.")
    counts = finder.counts
    return InputPlan(
        tuple(planned.values()),
        counts["name"],
        counts["link"],
        counts["special"],
        counts["twice"],
        tuple(finder.warnings),
    )


def _with_problem(planned: PlannedInput) -> PlannedInput:
    """Add the reason why an input without bytes cannot be scanned: an empty file, a device, a pipe."""
    if planned.size_bytes == 0 and planned.problem is None:
        try:
            with suppress(OSError, ValueError):  # opening it will report that
                refuse_irregular(os.stat(planned.path))
        except InputError as problem:
            return replace(planned, problem=problem)
    return planned


def normalized_path(path: str) -> str:
    """Return a path without `./` and doubled slashes, so that `./a.mp4` is `a.mp4`.

    Nothing is looked up, and `..` stays, as it may lead elsewhere after a link.
    """
    if "//" not in path and not path.startswith("./") and "/./" not in path and not path.endswith(("/", "/.")):
        return path
    root = "/" if path.startswith("/") else ""
    return root + "/".join(part for part in path.split("/") if part not in ("", ".")) or "."


def paths_from_list(data: bytes) -> list[str]:
    """Parse a list of paths, separated by NUL bytes if it has any, otherwise by lines; empty paths are left out."""
    separator = b"\0" if b"\0" in data else b"\n"
    lines = (line.removesuffix(b"\r") if separator == b"\n" else line for line in data.split(separator))
    return [os.fsdecode(line) for line in lines if line]


class _Finder:
    def __init__(self, recursive: bool, include: Sequence[str], exclude: Sequence[str], follow_links: bool) -> None:
        self._recursive = recursive
        self._include = include
        self._exclude = exclude
        self._follow_links = follow_links
        self._files_seen: set[tuple[int, int]] = set()
        self.counts: Counter[str] = Counter()
        self.warnings: list[str] = []

    def find(self, path: str) -> Iterator[PlannedInput]:
        try:
            found = os.stat(path)
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            problem = UnreachableInput(
                f"The file cannot be found ({getattr(error, 'strerror', error)}): check the path."
            )
            yield PlannedInput(path, 0, problem)
            return
        if not stat.S_ISDIR(found.st_mode):
            yield PlannedInput(path, found.st_size)
            return
        before = self.counts.copy()
        listed = list(self._walk(path, found))
        # A file without an ending, such as LICENSE, does not make a folder of pictures one of videos.
        named = any(as_video and (self._include or _ending(planned.path)) for planned, as_video in listed)
        videos = named or all(as_video or planned.problem for planned, as_video in listed)
        inputs = [planned for planned, as_video in listed if as_video == videos or planned.problem]
        self.counts["name"] += len(listed) - len(inputs)
        yield from inputs
        passed_over = self.counts - before
        if not inputs and not passed_over["twice"]:
            wanted = "matches --include" if self._include else "could be a video or picture by its name: see --include"
            links = passed_over["link"]
            followed = f"{counted(links, 'link')} {plural(links, 'was', 'were')} not followed: see --follow-links"
            self.warnings.append(f"No file in the folder {path} {wanted}{f'; {followed}' if links else ''}.")

    def _walk(self, root: str, found: os.stat_result) -> Iterator[tuple[PlannedInput, bool]]:
        """Yield pictures, possible videos, and folders with a problem, each with whether it may be a video."""
        waiting = [(root, "")]
        folders_seen = {_identity(found)}
        while waiting:
            folder, below = waiting.pop()
            try:
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
            except OSError as error:
                problem = UnreachableInput(f"The folder cannot be listed ({error.strerror}): check its permissions.")
                yield PlannedInput(folder, 0, problem), False
                continue
            folders = []
            for entry in entries:
                inside = f"{below}{entry.name}"
                if entry.name.startswith(".") or _matches(self._exclude, inside):
                    continue
                if entry.is_symlink() and not self._follow_links:
                    self.counts["link"] += 1
                    continue
                status = _status(entry)
                if _is_folder(entry):  # its status may be unknown, at too long a path
                    if self._recursive and self._is_new(status, folders_seen):
                        folders.append((entry.path, f"{inside}/"))
                    continue
                if status is not None and not stat.S_ISREG(status.st_mode):
                    self.counts["special"] += 1
                    continue
                ending = _ending(entry.name)
                as_video = _matches(self._include, inside) if self._include else ending not in NOT_VIDEO
                if not as_video and (self._include or ending not in PICTURES):
                    self.counts["name"] += 1
                elif self._is_new(status, self._files_seen):
                    yield PlannedInput(entry.path, status.st_size if status is not None else 0), as_video
                else:
                    self.counts["twice"] += 1
            waiting += reversed(folders)

    def _is_new(self, status: os.stat_result | None, seen: set[tuple[int, int]]) -> bool:
        """Tell whether no other path has led to this file or folder, which only links can do."""
        if not self._follow_links or status is None:
            return True
        known = _identity(status) in seen
        seen.add(_identity(status))
        return not known


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower().removeprefix(".")


def _matches(patterns: Sequence[str], inside: str) -> bool:
    whole = inside.lower()
    name = whole.rpartition("/")[2]
    return any(fnmatchcase(whole if "/" in pattern else name, pattern.lower()) for pattern in patterns)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return the status of an entry, or of what it links to; None if it cannot be read."""
    try:
        return entry.stat()
    except OSError:  # a broken or circular link, or a file just removed
        return None
