from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from deepscan.models.checkpoints.matching import compare

Tensors = dict[str, torch.Tensor]

words = st.sampled_from(["conv", "bn", "resnet", "module", "model", "0", "1", "weight", "bias"])
paths = st.lists(words, max_size=3).map(lambda parts: "".join(f"{part}." for part in parts))
shapes = st.lists(st.integers(1, 3), max_size=3)


@st.composite
def networks(draw: st.DrawFn) -> Tensors:
    """Names, none of which is the beginning of another, and shapes."""
    names = draw(st.lists(st.tuples(paths, words), min_size=2, max_size=8, unique=True))
    return {f"{path}{word}.{number}": shaped(*draw(shapes)) for number, (path, word) in enumerate(names)}


def shaped(*sides: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(sides, dtype=dtype, device="meta")


@given(networks(), paths, paths)
def test_any_one_prefix_may_be_too_much_or_missing(wanted: Tensors, surplus: str, lack: str) -> None:
    places = {f"{lack}{name}": value for name, value in wanted.items()}
    comparison = compare({f"{surplus}{name}": value for name, value in wanted.items()}, places)
    assert comparison.fits
    assert comparison.sources == {f"{lack}{name}": f"{surplus}{name}" for name in wanted}
    assert comparison.dropped == ()
    assert bool(comparison.renaming) == (surplus != lack)


@given(networks(), paths, st.data())
def test_one_tensor_too_few_too_many_or_of_another_shape_never_fits(
    wanted: Tensors, surplus: str, data: st.DataObject
) -> None:
    given_ = {f"{surplus}{name}": value for name, value in wanted.items()}
    spoilt = data.draw(st.sampled_from(sorted(wanted)))
    fewer = compare({name: value for name, value in given_.items() if name != surplus + spoilt}, wanted)
    assert not fewer.fits
    more = compare(given_ | {"stray": shaped(1)}, wanted)
    assert not more.fits
    assert "stray" in more.unknown
    other = compare(given_ | {surplus + spoilt: shaped(9, 9, 9, 9)}, wanted)
    assert not other.fits
    assert any(misfit.startswith(f"{spoilt} is [9, 9, 9, 9], not ") for misfit in other.misfits)


def test_a_prefix_that_only_some_names_have_is_not_left_out() -> None:
    wanted = {"a.w": shaped(1), "b.w": shaped(2), "c.w": shaped(3)}
    comparison = compare({"module.a.w": shaped(1), "module.b.w": shaped(2), "c.w": shaped(3)}, wanted)
    assert not comparison.fits
    assert (comparison.missing, comparison.unknown) == (("c.w",), ("c.w",))
    assert comparison.differences() == "1 missing (c.w); 1 unknown (c.w)"


def test_step_counters_may_be_missing_or_left_over_and_averages_are_counted() -> None:
    number = shaped(dtype=torch.int64)
    wanted = {"a.running_mean": shaped(1), "a.num_batches_tracked": number, "b.running_mean": shaped(1)}
    given_ = {"module.a.running_mean": shaped(1), "module.b.running_mean": shaped(1), "n_averaged": number}
    assert compare(given_, wanted).fits
    comparison = compare(given_ | {"module.b.num_batches_tracked": number}, wanted)
    assert comparison.fits
    assert comparison.sources == {"a.running_mean": "module.a.running_mean", "b.running_mean": "module.b.running_mean"}
    assert comparison.dropped == ("n_averaged", "module.b.num_batches_tracked")


def test_step_counters_of_nothing_or_of_another_shape_are_errors() -> None:
    number, several = shaped(dtype=torch.int64), shaped(7, dtype=torch.int64)
    wanted = {"a.running_mean": shaped(1), "a.num_batches_tracked": number, "b.running_mean": shaped(1)}
    given_ = {"a.running_mean": shaped(1), "b.running_mean": shaped(1)}
    assert compare(given_ | {"c.num_batches_tracked": number}, wanted).unknown == ("c.num_batches_tracked",)
    assert compare(given_ | {"b.num_batches_tracked": several}, wanted).unknown == ("b.num_batches_tracked",)
    assert compare(given_ | {"a.num_batches_tracked": several}, wanted).misfits == (
        "a.num_batches_tracked is [7], not []",
    )


def test_names_go_through_the_renaming_without_their_prefix() -> None:
    def rename(name: str) -> str | None:
        return None if name.startswith("unused.") else name.replace("theirs.", "ours.")

    wanted = {"ours.a": shaped(1), "ours.b": shaped(2)}
    theirs = {"theirs.a": shaped(1), "theirs.b": shaped(2), "unused.c": shaped(3)}
    for prefix in ("", "module."):
        comparison = compare({f"{prefix}{name}": value for name, value in theirs.items()}, wanted, rename)
        assert comparison.fits
        assert comparison.sources == {"ours.a": f"{prefix}theirs.a", "ours.b": f"{prefix}theirs.b"}
        assert comparison.dropped == (f"{prefix}unused.c",)
    assert not compare(theirs, wanted).fits


def test_two_names_for_one_parameter_do_not_fit() -> None:
    def rename(name: str) -> str | None:
        return name.removeprefix("again.")

    comparison = compare(
        {"a": shaped(1), "again.a": shaped(1), "b": shaped(1)}, {"a": shaped(1), "b": shaped(1)}, rename
    )
    assert not comparison.fits
    assert comparison.unknown == ("again.a",)


def test_precision_may_differ_but_not_the_kind_of_number() -> None:
    wanted = {"real": shaped(1), "whole": shaped(1, dtype=torch.int64)}
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert compare({"real": shaped(1, dtype=dtype), "whole": shaped(1, dtype=torch.int64)}, wanted).fits
    for dtype in (torch.int8, torch.bool, torch.complex64, torch.float8_e5m2):
        comparison = compare({"real": shaped(1, dtype=dtype), "whole": shaped(1)}, wanted)
        kind = str(dtype).removeprefix("torch.")
        assert comparison.misfits == (f"real is {kind}, not float32", "whole is float32, not int64")


def test_sparse_numbers_do_not_fit() -> None:
    comparison = compare({"a": torch.ones(1).to_sparse()}, {"a": shaped(1)})
    assert comparison.misfits == ("a is sparse_coo, not strided",)


def test_nothing_fits_nothing() -> None:
    assert not compare({}, {}).fits
    assert compare({}, {"a": shaped(1)}).missing == ("a",)
