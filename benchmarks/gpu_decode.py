"""Decoding and nothing else: PyAV on processors, on NVDEC, or on both, in processes of their own.

Frames are dropped as they come. On NVDEC they stay in the GPU's memory. There every process keeps one file open from
before the start to the end: it holds the GPU's primary context, which all decoders of the process share, so that
making contexts is not measured.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer


@dataclass(frozen=True)
class DecoderGroup:
    """Processes with the same kind of decoders.

    Attributes:
        threads: of each process; each decodes a file of its own.
        codec_threads: with which FFmpeg decodes one file, on processors.
    """

    kind: Literal["cpu", "nvdec"]
    processes: int
    threads: int
    codec_threads: int = 1


def decoder_groups(variant: str, *, processors: int, files: int) -> list[DecoderGroup]:
    """Return the groups of decoders for `cpu`, `nvdec` or `both`.

    On an H200 with 16 processors 4 processes of 4 threads came nearest to NVDEC's limit, and with software decoders
    beside them 8 processes of 2 threads and 12 decoders were the fastest.
    """
    codec_threads = max(1, processors // files)
    alone = DecoderGroup("cpu", 1, min(processors, files), codec_threads)
    beside = DecoderGroup("cpu", 1, max(1, min(processors * 3 // 4, files)), codec_threads)
    return {"cpu": [alone], "nvdec": [DecoderGroup("nvdec", 4, 4)], "both": [DecoderGroup("nvdec", 8, 2), beside]}[
        variant
    ]


def decoded(paths: Sequence[Path], chosen: Sequence[DecoderGroup]) -> tuple[int, float]:
    """Decode files, handed out as decoders become free.

    Returns:
        How many frames, and the seconds from the common start to the last frame. Starting the processes, and on NVDEC
        making the GPU's context, came before.
    """
    context = multiprocessing.get_context("spawn")
    taken = context.Value("i", 0)
    names = [str(path) for path in paths]
    running = []
    for group in chosen:
        for _ in range(group.processes):
            pipe, other = context.Pipe()
            process = context.Process(target=_serve, args=(group, names, taken, other), daemon=True)
            process.start()
            other.close()
            running.append((process, pipe))
    for _, pipe in running:
        _heard(pipe)
    for _, pipe in running:
        pipe.send("go")
    answers: list[tuple[int, float, float]] = [_heard(pipe) for _, pipe in running]
    for process, _ in running:
        process.join()
    frames = sum(count for count, _, _ in answers)
    return frames, max(end for _, _, end in answers) - min(start for _, start, _ in answers)


def _heard(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        raise SystemExit("A decoding process died; what it said is above.") from None


def _serve(group: DecoderGroup, names: list[str], taken: Any, pipe: Connection) -> None:
    with _opened(names[0], group) as container:
        next(container.decode(video=0))
        _decode_in_turn(group, names, taken, pipe)


def _decode_in_turn(group: DecoderGroup, names: list[str], taken: Any, pipe: Connection) -> None:
    pipe.send("ready")
    pipe.recv()
    counts: list[int] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while (name := _next(names, taken)) is not None:
                counts.append(_frames(name, group))
        except BaseException as error:
            failures.append(error)

    start = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(group.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    pipe.send((sum(counts), start, time.perf_counter()))


def _next(names: list[str], taken: Any) -> str | None:
    with taken.get_lock():
        number: int = taken.value
        taken.value += 1
    return names[number] if number < len(names) else None


def _frames(name: str, group: DecoderGroup) -> int:
    with _opened(name, group) as container:
        return sum(1 for _ in container.decode(video=0))


def _opened(name: str, group: DecoderGroup) -> InputContainer:
    if group.kind == "nvdec":
        shared: dict[str, object] = {"primary_ctx": "1"}
        hardware = HWAccel("cuda", allow_software_fallback=False, is_hw_owned=True, options=shared)
        return av.open(name, hwaccel=hardware)
    container = av.open(name)
    container.streams.video[0].codec_context.thread_count = group.codec_threads
    container.streams.video[0].thread_type = "AUTO"
    return container
