from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from deepscan.options import DecoderChoice
from deepscan.runtime.workers.plan import GPU_BYTES_PER_PROCESS, WorkerPlan, cpu_worker, gpu_workers, needed_for

GIB = 1 << 30
MANY = 10_000


def counted(plans: list[WorkerPlan]) -> dict[bool, tuple[int, int]]:
    """Processes and decoders, of NVDEC and of software."""
    return {
        nvdec: (
            sum(plan.nvdec == nvdec for plan in plans),
            sum(plan.decoders for plan in plans if plan.nvdec == nvdec),
        )
        for nvdec in (True, False)
    }


def test_one_large_gpu_with_sixteen_cores_gets_what_was_measured_to_be_fastest() -> None:
    plans = gpu_workers([(0, 139 * GIB)], cores=16, decoder="auto", jobs=None, inputs=MANY)
    assert counted(plans) == {True: (8, 16), False: (2, 12)}
    assert [plan.nvdec for plan in plans[:3]] == [True, False, True]


def test_one_kind_of_decoder_gets_the_whole_machine() -> None:
    nvdec = gpu_workers([(0, 139 * GIB)], cores=16, decoder="nvdec", jobs=None, inputs=MANY)
    software = gpu_workers([(0, 139 * GIB)], cores=16, decoder="cpu", jobs=None, inputs=MANY)
    assert counted(nvdec) == {True: (8, 16), False: (0, 0)}
    assert counted(software) == {True: (0, 0), False: (3, 16)}


def test_a_small_gpu_has_room_for_few() -> None:
    assert counted(gpu_workers([(0, 4 * GIB)], cores=8, decoder="auto", jobs=None, inputs=MANY))[True] == (1, 2)
    assert counted(gpu_workers([(0, 8 * GIB)], cores=8, decoder="auto", jobs=None, inputs=MANY)) == {
        True: (1, 2),
        False: (1, 6),
    }


def test_few_files_need_few_processes() -> None:
    assert len(gpu_workers([(0, 139 * GIB)], cores=16, decoder="auto", jobs=None, inputs=1)) == 1
    assert len(gpu_workers([(0, 139 * GIB)], cores=16, decoder="auto", jobs=None, inputs=3)) == 2


def test_several_gpus_share_the_cores_and_the_first_files_go_to_all_of_them() -> None:
    plans = gpu_workers([(1, 139 * GIB), (3, 139 * GIB)], cores=16, decoder="auto", jobs=None, inputs=MANY)
    assert [plan.gpu for plan in plans[:4]] == [1, 3, 1, 3]
    assert Counter(plan.gpu for plan in plans) == {1: 5, 3: 5}


@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=8),
    st.integers(1, 256),
    st.sampled_from(["auto", "cpu", "nvdec"]),
    st.none() | st.integers(1, 40),
    st.integers(1, 200),
)
def test_every_gpu_is_served_within_its_memory_as_far_as_there_are_files(
    gibibytes: list[int], cores: int, decoder: DecoderChoice, jobs: int | None, inputs: int
) -> None:
    gpus = [(number, size * GIB) for number, size in enumerate(gibibytes)]
    plans = gpu_workers(gpus, cores=cores, decoder=decoder, jobs=jobs, inputs=inputs)
    assert plans
    assert len(plans) <= inputs
    served = Counter(plan.gpu for plan in plans)
    for number, memory_bytes in gpus:
        assert served[number] <= max(1, memory_bytes // GPU_BYTES_PER_PROCESS)
    if inputs >= sum(plan.decoders for plan in plans) + max(plan.decoders for plan in plans):
        assert set(served) == {number for number, _ in gpus}
    for plan in plans:
        assert plan.decoders == (jobs or plan.decoders) >= 1
        assert plan.threads >= 1
        assert plan.nvdec is (decoder == "nvdec" or (decoder == "auto" and plan.nvdec))


def test_on_a_cpu_there_is_one_process() -> None:
    assert cpu_worker(jobs=None, cores=16, most=8, inputs=MANY) == WorkerPlan("cpu", None, False, 8, 16)
    assert cpu_worker(jobs=3, cores=2, most=8, inputs=MANY).decoders == 3
    assert cpu_worker(jobs=3, cores=2, most=8, inputs=2).decoders == 2


def test_a_gpu_with_one_engine_gets_few_processes_that_use_it() -> None:
    plans = gpu_workers([(0, 139 * GIB), (1, 139 * GIB)], cores=32, decoder="auto", jobs=None, inputs=MANY)
    assert needed_for(7, plans) == needed_for(None, plans) == [True] * len(plans)
    kept = [plan for plan, needed in zip(plans, needed_for(1, plans), strict=True) if needed]
    assert Counter((plan.gpu, plan.nvdec) for plan in kept) == {
        (0, True): 2,
        (0, False): 2,
        (1, True): 2,
        (1, False): 2,
    }
