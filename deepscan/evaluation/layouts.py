"""Layouts of known data sets: what their folders and lists say about each video.

The names, lists and meanings are those of the data sets' own pages: FaceForensics++ (Rössler et al., 2019), Celeb-DF
(Li et al., 2020; in its list of testing videos 1 means real), DFDC (Dolhansky et al., 2020), DeepfakeBench (Yan et al.,
2023).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from deepscan.errors import UsageError
from deepscan.evaluation.truth import Truth, TruthRow
from deepscan.runtime.media.inputs import plan_inputs
from deepscan.wording import counted

SPLITS: Final = ("train", "val", "test")
FF_VIDEO: Final = re.compile(r"(?P<kind>original|manipulated)_sequences/(?P<name>[^/]+)/(?P<rate>raw|c\d+)/videos/")
FF_PAIR: Final = re.compile(r"(\d{3})(?:_(\d{3}))?")
DFD_ACTOR: Final = re.compile(r"(\d{2})_")
CELEB_FOLDERS: Final = {"celeb-real": "real", "youtube-real": "real", "celeb-synthesis": "fake"}
CELEB_LIST: Final = "List_of_testing_videos.txt"
CELEB_V1_TESTED: Final = 100  # videos in the list of version 1; version 2 has 518
CELEB_NAME: Final = re.compile(r"(id\d+)_")
BENCH_FAKE: Final = re.compile(r"(?i).*fake\w?|FF-(DF|F2F|FS|NT|FH)")
BENCH_REAL: Final = re.compile(r"(?i).*real")


def truth_from_folder(folder: str) -> Truth:
    """Return the labels of a folder that has the layout of a known data set, or `real/` and `fake/`.

    Raises:
        UsageError: the folder cannot be read or has no known layout.
    """
    try:
        names = set(os.listdir(folder))
    except OSError as error:
        raise UsageError(f"{folder} cannot be read ({error.strerror}): give a folder of videos with labels.") from error
    lowered = {name.lower() for name in names}
    if names & {"original_sequences", "manipulated_sequences"}:
        return _faceforensics(folder)
    if lowered & set(CELEB_FOLDERS):
        return _celeb_df(folder)
    metadata = [os.path.join(folder, part, "metadata.json") for part in ("", *sorted(names))]
    if metadata := [path for path in metadata if os.path.isfile(path)]:
        parts = [_dfdc_rows(path, folder) for path in metadata]
        return Truth(source=folder, layout="DFDC", folder=folder, rows=tuple(row for part in parts for row in part))
    if {"real", "fake"} <= names:
        return truth_from_folders([os.path.join(folder, "real")], [os.path.join(folder, "fake")])
    raise UsageError(
        f"{folder} has no known layout: give a CSV file of path,label, a JSON file of DeepfakeBench, or a folder with "
        "real/ and fake/METHOD/, or with FaceForensics++, Celeb-DF or DFDC."
    )


def truth_from_folders(real: Sequence[str], fake: Sequence[str]) -> Truth:
    """Return the labels of folders of genuine and folders of forged videos.

    The method of a fake is the first folder below the given one; without one, the name of the given folder, unless that
    is `fake`.

    Raises:
        UsageError: there is no video in them.
    """
    rows = []
    for folder in fake:
        name = os.path.basename(os.path.normpath(folder))
        for path in _videos(folder):
            below, _, rest = os.path.relpath(path, folder).partition("/")
            rows.append(TruthRow(path=path, label="fake", method=below if rest else None if name == "fake" else name))
    rows += [TruthRow(path=path, label="real") for folder in real for path in _videos(folder)]
    source = ", ".join([*real, *fake])
    return Truth(source=source, layout="real/ and fake/METHOD/", folder=".", rows=tuple(rows))


def truth_from_json(path: str) -> Truth:
    """Return the labels of DFDC's `metadata.json` or of a JSON file of DeepfakeBench.

    Raises:
        UsageError: the file cannot be read, or is neither.
    """
    folder = os.path.dirname(path) or "."
    content = _json(path)
    if isinstance(content, dict) and content:
        if all(isinstance(entry, dict) and "label" in entry for entry in content.values()):
            return Truth(source=path, layout="DFDC", folder=folder, rows=tuple(_dfdc_rows(path, folder)))
        if all(isinstance(entry, dict) for entry in content.values()):
            return _deepfakebench(path, folder, content)
    raise UsageError(
        f"{path} holds no labels that are known: give DFDC's metadata.json or a JSON file of DeepfakeBench."
    )


def _faceforensics(folder: str) -> Truth:
    pairs: list[tuple[str, str]] = []
    splits: dict[str, str] = {}
    for split in SPLITS:
        for place in (folder, os.path.join(folder, "splits")):
            if os.path.isfile(path := os.path.join(place, f"{split}.json")):
                listed = _ff_pairs(path)
                pairs += listed
                splits |= {identity: split for pair in listed for identity in pair}
    rows = []
    for path in _videos(folder):
        found = FF_VIDEO.search(path)
        if found is None:
            continue
        name = os.path.splitext(os.path.basename(path))[0]
        actors = found["name"] in ("actors", "DeepFakeDetection")
        dataset = "DFD" if actors else "FF++"
        row = TruthRow(
            path=path,
            label="real" if found["kind"] == "original" else "fake",
            method=None if found["kind"] == "original" else found["name"],
            dataset=f"{dataset} {found['rate']}",
            group=name,
            split=None if actors else splits.get(name[:3]),
        )
        rows.append(row)
    unlisted = sum(row.split is None for row in rows) if splits else 0
    notes = (f"{counted(unlisted, 'video')} not in the official splits.",) if unlisted else ()
    rows = with_identity_groups(rows, pairs)
    return Truth(source=folder, layout="FaceForensics++", folder=folder, rows=tuple(rows), notes=notes)


def _ff_pairs(path: str) -> list[tuple[str, str]]:
    pairs = _json(path)
    try:
        return [(str(one), str(other)) for one, other in pairs]
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path} is no split of FaceForensics++: a list of pairs such as [183, 253].") from error


def with_identity_groups(rows: Iterable[TruthRow], pairs: Iterable[tuple[str, str]] = ()) -> list[TruthRow]:
    """Return rows of FaceForensics++, whose `group` is the name of the video, with groups of persons.

    The fake `183_253` shows the video 183 with the face of 253: it belongs together with both, with `253_183`, and with
    the genuine videos 183 and 253, in every method. Videos of actors (`01_02__walking`) are grouped by the actor whose
    video it was, as each of them was swapped with most others.
    """
    rows = list(rows)
    leader: dict[str, str] = {}

    def find(identity: str) -> str:
        while (above := leader.setdefault(identity, identity)) != identity:
            leader[identity] = leader[above]
            identity = above
        return identity

    known = [FF_PAIR.fullmatch(row.group or "") for row in rows]
    for one, other in [*pairs, *(found.groups() for found in known if found is not None and found[2])]:
        low, high = sorted((find(one), find(other)))
        leader[high] = low
    members: dict[str, list[str]] = {}
    for identity in list(leader):
        members.setdefault(find(identity), []).append(identity)
    grouped = []
    for row, pair in zip(rows, known, strict=True):
        actor = DFD_ACTOR.match(row.group or "")
        group = row.group if actor is None else f"dfd-{actor[1]}"
        if pair is not None:
            group = "ff-" + "-".join(sorted(members.get(find(pair[1]), [pair[1]])))
        grouped.append(msgspec.structs.replace(row, group=group))
    return grouped


def _celeb_df(folder: str) -> Truth:
    tested: dict[str, str] = {}
    if os.path.isfile(listed := os.path.join(folder, CELEB_LIST)):
        for line in _text(listed).splitlines():
            number, _, name = line.strip().partition(" ")
            if name and number in ("0", "1"):
                tested[_celeb_key(name)] = "real" if number == "1" else "fake"
            elif line.strip():
                raise UsageError(f"{listed} has a line {line!r}: expected 1 (real) or 0 (fake), a space, and a path.")
    name = os.path.basename(os.path.abspath(folder)).lower()
    version = next((version for version in ("v1", "v2") if version in name), "")
    if not version and tested:
        version = "v1" if len(tested) <= CELEB_V1_TESTED else "v2"
    dataset = f"Celeb-DF {version}".strip()
    rows = []
    for path in _videos(folder):
        key = _celeb_key(os.path.relpath(path, folder))
        if (parent := key.partition("/")[0]) not in CELEB_FOLDERS:
            continue
        label = CELEB_FOLDERS[parent]
        if tested.get(key, label) != label:
            raise UsageError(f"{listed} calls {key} {tested[key]}, but its folder says {label}: correct one of them.")
        person = CELEB_NAME.match(os.path.basename(path))
        rows.append(
            TruthRow(
                path=path,
                label="real" if label == "real" else "fake",
                method=None if label == "real" else "Celeb-synthesis",
                dataset=dataset,
                group=f"celeb-{person[1] if person else os.path.splitext(key)[0]}",
                split=("test" if key in tested else "train") if tested else None,
            )
        )
    absent = len(set(tested) - {_celeb_key(os.path.relpath(row.path, folder)) for row in rows})
    notes = (f"{counted(absent, 'video')} of {CELEB_LIST} not in {folder}.",) if absent else ()
    return Truth(source=folder, layout=dataset, folder=folder, rows=tuple(rows), notes=notes)


def _celeb_key(path: str) -> str:
    """Return `celeb-real/NAME`: some copies have a folder `videos` between, or another spelling of YouTube."""
    first, *_, last = path.split("/") if "/" in path else ("", path)
    return f"{first.lower()}/{last}"


def _dfdc_rows(path: str, folder: str) -> list[TruthRow]:
    rows = []
    content = _json(path)
    for name, entry in content.items() if isinstance(content, dict) else ():
        label = str(entry.get("label", "")).lower() if isinstance(entry, dict) else ""
        if label not in ("fake", "real"):
            raise UsageError(f"{path} gives {name} no label that is known: FAKE or REAL.")
        place = os.path.normpath(os.path.join(os.path.relpath(os.path.dirname(path) or ".", folder), name))
        rows.append(
            TruthRow(
                path=place,
                label="fake" if label == "fake" else "real",
                dataset="DFDC",
                group=f"dfdc-{entry.get('original') or name}",
                split=entry.get("split"),
            )
        )
    return rows


def _deepfakebench(path: str, folder: str, content: dict[str, Any]) -> Truth:
    found: dict[str, tuple[TruthRow, set[str]]] = {}
    for dataset, labels in content.items():
        for split, name, entry in _bench_videos(labels):
            row = _bench_row(path, dataset, name, entry)
            found.setdefault(row.path, (row, set()))[1].add(split)
    several = sum(len(splits) > 1 for _, splits in found.values())
    notes = []
    if several:
        notes.append(f"{counted(several, 'video')} of {path} in several splits: test counts first, then val.")
    rows = []
    for row, splits in found.values():
        counting = next((split for split in reversed(SPLITS) if split in splits), None)
        rows.append(msgspec.structs.replace(row, split=counting))
    grouped = with_identity_groups(rows)
    return Truth(source=path, layout="DeepfakeBench", folder=folder, rows=tuple(grouped), notes=tuple(notes))


def _bench_videos(tree: Any, split: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield split, name and entry of each video; below the split there may be a level for the compression."""
    if not isinstance(tree, dict):
        return
    for name, below in tree.items():
        if isinstance(below, dict) and isinstance(below.get("label"), str):
            yield split, name, below
        else:
            yield from _bench_videos(below, name if name in SPLITS else split)


def _bench_row(source: str, dataset: str, name: str, entry: dict[str, Any]) -> TruthRow:
    label = entry["label"]
    if not (real := BENCH_REAL.fullmatch(label)) and not BENCH_FAKE.fullmatch(label):
        raise UsageError(
            f"{source} gives {name} the label {label!r}, which is not known: use a CSV file with path,label."
        )
    frames = entry.get("frames") or [f"{name}/0.png"]
    parts = str(frames[0]).replace("\\", "/").split("/")[:-1]
    roots = [place for place, part in enumerate(parts) if part in (dataset, "FaceForensics++")]
    below = parts[roots[-1] + 1 :] if roots else parts
    place = "/".join("videos" if part == "frames" else part for part in below)
    rate = next((part for part in below if re.fullmatch(r"raw|c\d+", part)), "")
    person = CELEB_NAME.match(name)
    return TruthRow(
        path=f"{place}.mp4",
        label="real" if real else "fake",
        method=None if real else label,
        dataset=f"{dataset} {rate}".strip(),
        group=f"celeb-{person[1]}" if person else name,
    )


def _videos(folder: str) -> list[str]:
    """Return the paths of the videos in a folder, as a scan of it finds them."""
    if not os.path.exists(folder):
        raise UsageError(f"{folder} does not exist: give a folder of videos with labels.")
    return [planned.path for planned in plan_inputs([folder]).inputs]


def _json(path: str) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: give a file of labels.") from error


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): give a file of labels.") from error
