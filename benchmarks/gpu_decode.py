"""Decoding and nothing else: PyAV on processors, on NVDEC, or on both, in processes of their own.

Frames are dropped as they come. On NVDEC they stay in the GPU's memory.
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


@dataclass(frozen=True)
class DecoderGroup:
    """Processes with the same kind of decoders.

    Attributes:
        kind: where.
        processes: how many.
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
    if group.kind == "nvdec":
        _frames(names[0], group, most=1)  # makes the context
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


def _frames(name: str, group: DecoderGroup, most: int | None = None) -> int:
    hardware = HWAccel("cuda", allow_software_fallback=False, is_hw_owned=True) if group.kind == "nvdec" else None
    count = 0
    with av.open(name, hwaccel=hardware) as container:
        stream = container.streams.video[0]
        if hardware is None:
            stream.codec_context.thread_count = group.codec_threads
            stream.thread_type = "AUTO"
        for _ in container.decode(stream):
            count += 1
            if count == most:
                break
    return count
