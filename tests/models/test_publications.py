from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from importlib import resources
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest

from deepscan.models.deepfakebench import VARIANT as DEEPFAKEBENCH
from deepscan.models.detector import Detector, FaceDetector, Publication
from deepscan.models.registry import BUILTIN, FACE_DETECTORS

MODELS: list[Detector | FaceDetector] = [*BUILTIN.values(), *FACE_DETECTORS.values()]
PUBLICATIONS = {model.name: model.publication for model in MODELS}
each = pytest.mark.parametrize(("name", "publication"), PUBLICATIONS.items(), ids=list(PUBLICATIONS))


def values(name: str) -> dict[str, float]:
    return {figure.test_set: figure.value for figure in PUBLICATIONS[name].figures if figure.value is not None}


def texts(publication: Publication) -> list[str]:
    own = [getattr(publication, field.name) for field in fields(publication)]
    figures = [text for figure in publication.figures for text in (figure.test_set, figure.metric, figure.source)]
    return [text for text in own if isinstance(text, str)] + figures


def test_every_detector_and_the_other_face_detector_have_one() -> None:
    assert set(PUBLICATIONS) == set(BUILTIN) | {"retinaface"}


def test_they_can_be_listed_where_torch_is_not_installed() -> None:
    listing = "import sys; sys.modules['torch'] = None; from deepscan.models.registry import detectors; detectors()"
    subprocess.run([sys.executable, "-c", listing], check=True)


@each
def test_addresses_are_whole_and_https(name: str, publication: Publication) -> None:
    given = [url for url in (publication.paper_url, publication.code_url) if url is not None]
    assert len(given) == (0 if name == "lite" else 2)
    in_texts = [word.strip("(),;") for text in texts(publication) for word in text.split() if "://" in word]
    for url in given + in_texts:
        parts = urlsplit(url)
        assert parts.scheme == "https"
        assert re.fullmatch(r"[a-z]+(\.[a-z]+)+", parts.netloc), url
        assert re.fullmatch(r"(/[\w.%-]+)+", parts.path), url


@each
def test_nothing_is_left_blank_and_each_text_is_one_line(name: str, publication: Publication) -> None:
    for text in texts(publication):
        assert text == " ".join(text.split())
        assert text


@each
def test_figures_are_percentages_that_may_beat_chance_and_given_once(name: str, publication: Publication) -> None:
    assert publication.figures
    for figure in publication.figures:
        if figure.value is not None:
            low, high = figure.interval or (figure.value, figure.value)  # published ones have none
            assert 0 < low <= figure.value <= high <= 100
            assert high > 50
    assert len({(figure.test_set, figure.metric) for figure in publication.figures}) == len(publication.figures)


@each
def test_weights_are_files_that_their_place_can_hold(name: str, publication: Publication) -> None:
    for file in publication.weights_files:
        assert PurePosixPath(file).name == file
        assert PurePosixPath(file).suffix in {".onnx", ".pth", ".pkl", ".bin"}
    downloads = re.findall(r"/releases/download/[\w.]+/(\S+)", publication.weights_at)
    assert tuple(downloads) in {(), publication.weights_files}


def test_trainings_by_deepfakebench_carry_its_license() -> None:
    licenses = {
        name: publication.code_license
        for name, publication in PUBLICATIONS.items()
        if "BY-NC" in publication.code_license
    }
    assert set(licenses) == {name for name in BUILTIN if name.endswith(f"-{DEEPFAKEBENCH}")}


@pytest.mark.parametrize(
    ("name", "own_data", "mean"),
    [  # the means that stand in the tables themselves, over the data not in training: they would show a slip of the pen
        ("altfreezing", (), 96.7),
        ("ftcn", (), 89.6),
        ("hff-deepfakebench", ("FaceForensics++ c23", "FaceForensics++ c40"), 77.60),
        ("recce-deepfakebench", ("FaceForensics++ c23", "FaceForensics++ c40"), 76.49),
    ],
)
def test_figures_have_the_mean_that_their_table_states(name: str, own_data: tuple[str, ...], mean: float) -> None:
    others = [value for test_set, value in values(name).items() if test_set not in own_data]
    assert sum(others) / len(others) == pytest.approx(mean, abs=0.051 if mean in (96.7, 89.6) else 0.0051)


def test_figures_of_the_embedded_detector_are_those_of_its_card() -> None:
    card = resources.files("deepscan.assets").joinpath("lite.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in card.splitlines() if "| AUC per" in row]
    stated = {row[0].split(", 2,000")[0]: re.findall(r"\d\.\d+", row[-1])[:3] for row in rows}
    del stated["all of them"]  # pooled over sources: no test set of its own
    ours = {figure.test_set: figure for figure in PUBLICATIONS["lite"].figures}
    assert ours.keys() == stated.keys()
    for name, figure in ours.items():
        assert figure.value is not None
        assert figure.interval is not None  # no figure of ours without one
        assert [figure.value, *figure.interval] == pytest.approx([100 * float(number) for number in stated[name]])
