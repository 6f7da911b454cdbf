from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from deepscan.results import Status
from deepscan.runtime.store.identity import DetectorKey
from deepscan.runtime.store.journal import Entry, Place
from deepscan.runtime.store.resume import plan_resume
from tests.runtime.result_rows import LITE, ORT, OTHER

keys = st.sampled_from([LITE, OTHER, replace(LITE, settings_sha256="x"), replace(LITE, weights_sha256="x")])
OPENVINO = ("openvino-cpu", "bf16")
contents = st.one_of(st.none(), st.sampled_from(["a", "b", "c", "d"]))


def entry(content: str | None, key: DetectorKey = LITE, *, number: int = 0, succeeded: bool = True) -> Entry:
    status: Status = "scored" if succeeded else "unreadable"
    return Entry(
        place=Place(number, 1, 2),
        path="a.mp4",
        content=content,
        detector=key.id,
        computation=ORT,
        status=status,
    )


def place(number: int) -> tuple[Place]:
    return (Place(number, 1, 2),)


@st.composite
def journals(draw: st.DrawFn) -> list[Entry]:
    drawn = draw(st.lists(st.tuples(contents, keys, st.booleans()), max_size=20))
    return [entry(content, key, number=n, succeeded=fine) for n, (content, key, fine) in enumerate(drawn)]


@given(st.lists(contents, max_size=12), st.lists(keys, min_size=1, max_size=3, unique=True), journals(), st.booleans())
def test_every_input_is_done_or_scanned_or_the_same_as_one_that_is_scanned(
    inputs: list[str | None], detectors: list[DetectorKey], entries: list[Entry], retry_failed: bool
) -> None:
    plan = plan_resume(inputs, detectors, entries, retry_failed=retry_failed)
    copies = [index for others in plan.copies.values() for index in others]
    assert sorted([*plan.done, *plan.to_scan, *copies]) == list(range(len(inputs)))
    assert list(plan.to_scan) == sorted(plan.to_scan)
    by_number = {one.place.offset: one for one in entries}
    for index, places in plan.done.items():
        used = [by_number[found.offset] for found in places]
        assert [one.detector for one in used] == [detector.id for detector in detectors]
        assert {one.content for one in used} == {inputs[index]} != {None}
        for one in used:  # the last of its kind
            assert not any(
                replace(later, place=one.place, status=one.status) == one for later in entries[one.place.offset + 1 :]
            )
        assert not retry_failed or all(one.status == "scored" for one in used)
    for first, others in plan.copies.items():
        assert first in plan.to_scan
        assert all(inputs[other] == inputs[first] is not None and other > first for other in others)
    # Nothing is scanned that has a result, or twice.
    scanned = [inputs[index] for index in plan.to_scan if inputs[index] is not None]
    assert len(set(scanned)) == len(scanned)
    for content in scanned:
        latest = {e.detector: e for e in entries if e.content == content}
        found = [latest[key.id] for key in detectors if key.id in latest]
        assert len(found) < len(detectors) or (retry_failed and not all(one.status == "scored" for one in found))


def test_without_a_journal_all_are_scanned_and_duplicates_once() -> None:
    plan = plan_resume(["a", "b", "a", None, None, "a"], [LITE], [])
    assert (plan.done, plan.to_scan, plan.copies) == ({}, (0, 1, 3, 4), {0: (2, 5)})


def test_a_moved_file_is_done_wherever_it_is_now_and_so_are_its_duplicates() -> None:
    plan = plan_resume(["new", "a", "a"], [LITE], [entry("a", number=7)])
    assert (plan.done, plan.to_scan) == ({1: place(7), 2: place(7)}, (0,))


def test_a_file_is_done_only_when_all_detectors_are() -> None:
    one, other = entry("a", LITE, number=3), entry("a", OTHER, number=1)
    assert plan_resume(["a"], [LITE, OTHER], [one]).to_scan == (0,)
    assert plan_resume(["a"], [LITE, OTHER], [other, one]).done == {0: (*place(3), *place(1))}
    assert plan_resume(["a"], [OTHER], [other, one]).done == {0: place(1)}


def test_other_weights_or_settings_are_another_result() -> None:
    for changed in (replace(LITE, weights_sha256="x"), replace(LITE, settings_sha256="x"), replace(LITE, model="x")):
        assert plan_resume(["a"], [changed], [entry("a")]).to_scan == (0,)


def test_the_last_record_counts() -> None:
    entries = [entry("a", number=0, succeeded=False), entry("a", number=1)]
    assert plan_resume(["a"], [LITE], entries, retry_failed=True).done == {0: place(1)}
    assert plan_resume(["a"], [LITE], entries[::-1], retry_failed=True).to_scan == (0,)


def test_a_failure_is_tried_again_only_if_asked() -> None:
    failed = entry("a", succeeded=False)
    assert plan_resume(["a", "a"], [LITE], [failed]).to_scan == ()
    retried = plan_resume(["a", "a"], [LITE], [failed], retry_failed=True)
    assert (retried.to_scan, retried.copies) == ((0,), {0: (1,)})


def test_a_file_without_content_id_is_always_scanned() -> None:
    assert plan_resume([None, None], [LITE], [entry(None)]).to_scan == (0, 1)


def test_what_was_over_a_limit_is_always_tried_again() -> None:
    too_long = replace(entry("a"), status="over_limit")
    assert plan_resume(["a", "b"], [LITE], [too_long, entry("b", number=1)]).to_scan == (0,)


def test_what_something_else_has_computed_counts_only_if_this_scan_may_take_it() -> None:
    by_ort, by_openvino = entry("a", number=0), replace(entry("a", number=1), computation=OPENVINO)
    cases: list[tuple[set[tuple[str, str]], dict[int, tuple[Place]]]] = [
        ({ORT}, {0: place(0)}),
        ({OPENVINO}, {0: place(1)}),
        ({ORT, OPENVINO}, {0: place(1)}),
        ({("onnxruntime-cuda", "fp32"), ("openvino-cpu", "fp32")}, {}),
    ]
    for accepted, done in cases:
        key = replace(LITE, computations=frozenset(accepted))
        assert plan_resume(["a"], [key], [by_ort, by_openvino]).done == done
