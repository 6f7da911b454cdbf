"""What `deepscan show` prints: rows of a JSONL as a table, or one video with the course of its tracks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from rich.cells import cell_len
from rich.text import Text

from deepscan.cli.result_table import (
    LABEL,
    SCORE,
    UNTRAINED,
    Column,
    ResultTable,
    common_folder,
    line_width,
    model_cell,
    print_lines,
    result_row,
    wrapped,
)
from deepscan.cli.screen import STYLES, legend, statuses_in_words, stretch, thresholds_in_words
from deepscan.results import SUCCEEDED
from deepscan.wording import counted, plural, printable

if TYPE_CHECKING:
    from rich.console import Console

    from deepscan.results import TrackResult, VideoResult

BLOCKS = "▁▂▃▄▅▆▇█"
Order: TypeAlias = Literal["score", "path", "status", "time", "duration", "elapsed"]
NAME_WIDTH = 12
BESIDE_NAMES = 20  # cells that score and label take, about
NARROWEST_VALUE = 30
CAPTIONS = ("probability of fake, ▁ 0 to █ 1", "fake, ▁ 0 to █ 1", "▁ 0 to █ 1")
NARROWEST_PLOT = 10
MODEL = Column("model", 7, right=False, below="model ")


def show_rows(rows: Sequence[VideoResult], most: int, console: Console) -> None:
    """Print a table of the first rows, what labels mean, how many rows have each status, and how to see more."""
    shown = rows[:most]
    if shown:
        _show_table(shown, console)
    labels: Counter[str] = Counter(row.label for row in rows if row.label is not None)
    statuses = statuses_in_words(Counter(row.status for row in rows), labels)
    _say_sentence(console, f"{counted(len(rows), 'row')}{': ' if rows else ''}{statuses}.")
    if len(shown) < len(rows):
        first = "row is" if len(shown) == 1 else f"{len(shown)} are"
        _say_sentence(
            console, f"The first {first} shown: --rows {len(rows)} shows all; --label, --status and --find show some."
        )


def show_video(row: VideoResult, tracks: Sequence[TrackResult], console: Console) -> None:
    """Print all that is known of one video from one detector."""
    _say(console, Text(printable(row.path), style="bold"))
    for name, value in _facts(row):
        for fact in _fact_lines(name, value, line_width(console)):
            _say(console, fact)
    if tracks:
        console.print()
        for line in plot(tracks, row.duration_seconds, console.width):
            console.print(Text(line), soft_wrap=True)
    for sentence in track_lines(row, tracks):
        _say(console, f"  {sentence}")
    if row.tracks > len(tracks):
        others = row.tracks - len(tracks)
        _say(console, f"  {counted(others, 'more track')} {plural(others, 'was', 'were')} not kept one by one.")
    console.print()


def plot(tracks: Sequence[TrackResult], duration_seconds: float | None, columns: int) -> Iterator[str]:
    """Yield one line of so many columns for each of at least one track, and one with the times below them."""
    ends = [segment.end_seconds for track in tracks for segment in track.timeline]
    # A stated length may be made up: an axis of years would show a film in one column.
    length = max([*ends, 1e-3])
    if duration_seconds is not None and length < duration_seconds < 2 * length:
        length = duration_seconds
    labels = [
        (f"  {track.track:>3}  {stretch(track.start_seconds, track.end_seconds, 1)}", f"{track.score:.3f}")
        for track in tracks
    ]
    before = max(len(label) for label, _ in labels) + 2
    width = max(NARROWEST_PLOT, columns - before - len("  0.000 "))
    caption = next((caption for caption in CAPTIONS if len(caption) <= width), CAPTIONS[-1])
    yield f"{'  track':<{before}}{caption:<{width}}  score"
    for track, (label, score) in zip(tracks, labels, strict=True):
        yield f"{label:<{before}}{_bar(track, length, width)}  {score}"
    middle, end = f"{length / 2:.1f} s", f"{length:.1f} s"
    axis = f"{'0 s':<{width // 2}}{middle}"
    yield " " * before + (f"{axis}{end:>{width - len(axis)}}" if len(axis) + len(end) < width else f"0 s to {end}")


def _bar(track: TrackResult, length: float, width: int) -> str:
    """Draw a track: each column shows the highest score in it, so that no short forgery disappears."""
    highest: list[float | None] = [None] * width
    for segment in track.timeline:
        first = min(width - 1, max(0, math.floor(segment.start_seconds / length * width)))
        last = min(width - 1, max(first, math.ceil(segment.end_seconds / length * width) - 1))
        for column in range(first, last + 1):
            highest[column] = max(segment.score, highest[column] or 0.0)
    return "".join(" " if score is None else _block(score) for score in highest)


def _block(score: float) -> str:
    return BLOCKS[min(len(BLOCKS) - 1, max(0, int(score * len(BLOCKS))))]


def _show_table(rows: Sequence[VideoResult], console: Console) -> None:
    """Print the table, and below it what the labels in it mean."""
    names_models = len({row.model for row in rows}) > 1 or any(UNTRAINED in row.model for row in rows)
    table = ResultTable([SCORE, LABEL, *([MODEL] if names_models else [])])
    folder = _folder_apart([row.path for row in rows], console)
    if folder:
        _say(console, Text(f"In {printable(folder)}:", style="italic"))
    table.rows += [result_row(row, folder, *([model_cell(row.model)] if names_models else [])) for row in rows]
    print_lines(console, table)
    for line in legend(rows):
        _say_sentence(console, printable(line))


def _folder_apart(paths: Sequence[str], console: Console) -> str:
    """Return the folder to name above the table, where whole paths would be folded in it."""
    width = line_width(console)
    folded = width is not None and max(cell_len(printable(path)) for path in paths) + BESIDE_NAMES > width
    return common_folder(paths) if folded else ""


def _facts(row: VideoResult) -> Iterator[tuple[str, Text]]:
    label = Text(row.label or "", style=STYLES.get(row.label or "", ""))
    yield "status", Text.assemble(row.status, *(() if row.score is None else (f", {row.score:.4f}, ", label)))
    if row.real_below is not None and row.fake_from is not None:
        yield "label", Text(thresholds_in_words(row.real_below, row.fake_from))
    if row.quality is not None:
        yield "quality", Text(", ".join([row.quality, *_quality_in_words(row)]))
    if row.reason:
        yield "reason", Text(printable(row.reason))
    if row.peak is not None:
        when = stretch(row.peak.start_seconds, row.peak.end_seconds, 1)
        yield "peak", Text(f"{row.peak.score:.4f} at {when}" if row.duration_seconds else f"{row.peak.score:.4f}")
    if row.width is not None and row.height is not None:
        size = f"{row.width} x {row.height} pixels, {printable(row.codec or 'unknown codec')}"
        yield "video", Text(size if row.duration_seconds is None else f"{size}, {row.duration_seconds:.1f} s")
    looked = f"frames {row.frames}, faces at once {row.faces}, tracks {row.tracks}, crops or clips {row.clips}"
    yield "looked at", Text(looked)
    ran = ", ".join(part for part in (row.model, row.backend, row.precision) if part)
    yield "ran", Text(printable(f"{ran}, {row.elapsed_seconds:.1f} s"))
    yield "weights", Text(printable(row.weights_sha256))
    yield "settings", Text(printable(row.settings_sha256))


def _quality_in_words(row: VideoResult) -> Iterator[str]:
    found = row.quality_details
    if found is None:
        return
    yield f"faces of {found.face_pixels:.0f} pixels"
    yield f"sharpness {found.sharpness:.2f}"
    yield f"blockiness {found.blockiness:.2f}"
    if found.bits_per_pixel is not None:
        yield f"{found.bits_per_pixel:.3g} bits per pixel"


def _fact_lines(name: str, value: Text, width: int | None) -> Iterator[Text]:
    """Yield a fact in lines of so many cells: beside its name, or below it where that would leave too little room."""
    head = f"  {name:<{NAME_WIDTH}}"
    if width is None or len(head) + cell_len(value.plain) <= width:
        yield Text.assemble(head, value)
    elif width - len(head) >= NARROWEST_VALUE:
        for number, line in enumerate(wrapped(value.plain, width - len(head))):
            yield Text((" " * len(head) if number else head) + line)
    else:
        yield Text(head.rstrip())
        for line in wrapped(value.plain, max(1, width - 4)):
            yield Text(f"    {line}")


def _say_sentence(console: Console, line: str) -> None:
    """Print a line, broken between words."""
    for part in wrapped(line, line_width(console)):
        _say(console, part)


def _say(console: Console, line: str | Text) -> None:
    """Print a line whole, to be copied: a terminal folds it by itself, and so loses nothing of it."""
    console.print(Text(line) if isinstance(line, str) else line, soft_wrap=True)


NUMBERS_SHOWN = 12


def track_lines(row: VideoResult, tracks: Sequence[TrackResult]) -> Iterator[str]:
    """Yield sentences about the tracks of a scored video, of which some are kept one by one."""
    if row.score is None or not tracks or any(track.pooled is None or track.decided is None for track in tracks):
        return
    pooled = [track for track in tracks if track.pooled]
    deciding = [track for track in tracks if track.decided]
    by_mean = any(not track.pooled for track in deciding) and len(deciding) > 1
    if by_mean:
        yield "The score is the mean over all crops or clips of all tracks."
    elif deciding and deciding[0].pooled:
        yield from _pool_decided(row, tracks, pooled)
    else:
        yield from _track_decided(deciding, pooled)
    highest = max(tracks, key=lambda track: track.score)
    if highest.score > row.score and (not highest.decided or len(deciding) > 1):
        yield f"Track {highest.track} is higher, {highest.score:.3f}, {_why_not(highest, by_mean=by_mean)}."


def _pool_decided(row: VideoResult, tracks: Sequence[TrackResult], pooled: Sequence[TrackResult]) -> Iterator[str]:
    if row.tracks == 1:
        yield f"{_named(pooled)} decided the score, though it is short: there is no longer one."
        return
    kept = " of which not all are kept," if row.tracks > len(tracks) else ""
    yield f"The score is that of the short tracks pooled,{kept} as if they were one: {_named(pooled).lower()}."


def _track_decided(deciding: Sequence[TrackResult], pooled: Sequence[TrackResult]) -> Iterator[str]:
    for track in deciding:
        found = "" if track.sightings is None else f" (its face was found in {counted(track.sightings, 'frame')})"
        yield f"Track {track.track} decided the score{found}."
    if pooled:
        yield f"Too short to decide alone, and pooled: {_named(pooled).lower()}."


def _why_not(track: TrackResult, *, by_mean: bool) -> str:
    if by_mean:
        return "but the mean counts"
    if track.decided:
        return "but it is too short to decide alone, and counts together with the others that are pooled"
    return "but it is too short to decide alone"


def _named(tracks: Sequence[TrackResult]) -> str:
    numbers = sorted(track.track for track in tracks)
    listed = ", ".join(map(str, numbers[:NUMBERS_SHOWN]))
    more = f" and {len(numbers) - NUMBERS_SHOWN} more" if len(numbers) > NUMBERS_SHOWN else ""
    return f"{plural(len(numbers), 'Track')} {listed}{more}"


def in_order(rows: Sequence[tuple[VideoResult, int]], order: Order) -> list[tuple[VideoResult, int]]:
    """Sort rows, each with the place of its record, which grows with time; equal rows keep their order.

    `score` puts the highest first, then inputs that were scanned but have no score, then failures by status; in each
    `status` the highest score comes first; `time`, `duration` and `elapsed` put the latest or longest first.
    """
    match order:
        case "score":
            return sorted(rows, key=lambda found: _by_score(found[0]))
        case "path":
            return sorted(rows, key=lambda found: found[0].path)
        case "status":
            return sorted(rows, key=lambda found: (found[0].status, _by_score(found[0])))
        case "time":
            return sorted(rows, key=lambda found: -found[1])
        case "duration":
            return sorted(rows, key=lambda found: -(found[0].duration_seconds or 0.0))
        case "elapsed":
            return sorted(rows, key=lambda found: -found[0].elapsed_seconds)


def _by_score(row: VideoResult) -> tuple[int, float, str]:
    if row.score is not None:
        return 0, -row.score, ""
    return (1 if row.status in SUCCEEDED else 2), 0.0, row.status
