"""Layouts of known data sets, laid out here as their authors do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deepscan.errors import UsageError
from deepscan.evaluation.labels import match_labels, read_truth
from deepscan.evaluation.layouts import truth_from_folders
from deepscan.evaluation.truth import Truth
from tests.runtime.result_rows import row


def lay_out(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def facts(truth: Truth, *fields: str) -> dict[str, Any]:
    """Return the fields of each row, by the end of its path."""
    return {"/".join(row.path.split("/")[-2:]): tuple(getattr(row, field) for field in fields) for row in truth.rows}


def test_folders_called_real_and_fake_give_labels_and_methods(tmp_path: Path) -> None:
    lay_out(tmp_path, "real/a.mp4", "real/x/b.mp4", "fake/swap/c.mp4", "fake/d.mp4")
    truth = read_truth(tmp_path)
    assert truth.layout == "real/ and fake/METHOD/"
    assert facts(truth, "label", "method") == {
        "real/a.mp4": ("real", None),
        "x/b.mp4": ("real", None),
        "swap/c.mp4": ("fake", "swap"),
        "fake/d.mp4": ("fake", None),
    }
    assert len(match_labels([row(path=str(tmp_path / "fake/swap/c.mp4"))], truth).labeled) == 1


def test_folders_of_any_name_are_given_as_real_or_fake(tmp_path: Path) -> None:
    lay_out(tmp_path, "good/a.mp4", "wav2lip/b.mp4", "other/m/c.mp4")
    truth = truth_from_folders([str(tmp_path / "good")], [str(tmp_path / "wav2lip"), str(tmp_path / "other")])
    assert facts(truth, "label", "method") == {
        "good/a.mp4": ("real", None),
        "wav2lip/b.mp4": ("fake", "wav2lip"),
        "m/c.mp4": ("fake", "m"),
    }
    with pytest.raises(UsageError, match="nothing does not exist"):
        truth_from_folders([str(tmp_path / "nothing")], [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no labels"):
        truth_from_folders([str(tmp_path / "empty")], [])


def test_faceforensics_groups_both_identities_in_all_methods(tmp_path: Path) -> None:
    def video(kind: str, name: str) -> str:
        return f"{kind}/c23/videos/{name}.mp4"

    original, manipulated = "original_sequences", "manipulated_sequences"
    lay_out(
        tmp_path,
        *(video(f"{original}/youtube", name) for name in ("000", "003", "183", "253", "500", "600")),
        *(video(f"{manipulated}/{method}", "000_003") for method in ("Deepfakes", "FaceSwap")),
        video(f"{manipulated}/Deepfakes", "003_000"),
        video(f"{manipulated}/DeepFakeDetection", "01_02__walking__ABC"),
        video(f"{original}/actors", "01__walking"),
        f"{manipulated}/Deepfakes/c23/masks/000_003.mp4",
    )
    (tmp_path / "train.json").write_text(json.dumps([["183", "253"]]))
    (tmp_path / "test.json").write_text(json.dumps([["003", "000"]]))
    truth = read_truth(tmp_path)
    assert truth.layout == "FaceForensics++"
    assert len(truth.rows) == 11
    assert facts(truth, "label", "dataset", "group", "split") == {
        "videos/000.mp4": ("real", "FF++ c23", "ff-000-003", "test"),
        "videos/003.mp4": ("real", "FF++ c23", "ff-000-003", "test"),
        "videos/183.mp4": ("real", "FF++ c23", "ff-183-253", "train"),
        "videos/253.mp4": ("real", "FF++ c23", "ff-183-253", "train"),
        "videos/500.mp4": ("real", "FF++ c23", "ff-500", None),
        "videos/600.mp4": ("real", "FF++ c23", "ff-600", None),
        "videos/000_003.mp4": ("fake", "FF++ c23", "ff-000-003", "test"),
        "videos/003_000.mp4": ("fake", "FF++ c23", "ff-000-003", "test"),
        "videos/01_02__walking__ABC.mp4": ("fake", "DFD c23", "dfd-01", None),
        "videos/01__walking.mp4": ("real", "DFD c23", "dfd-01", None),
    }
    methods = {each.method for each in truth.rows if each.label == "fake"}
    assert methods == {"Deepfakes", "FaceSwap", "DeepFakeDetection"}
    assert truth.notes == ("4 videos not in the official splits.",)
    assert match_labels([row(path=each.path) for each in truth.rows], truth).leaks == ()


@pytest.mark.parametrize("between", ["", "videos/"])
@pytest.mark.parametrize(("name", "version"), [("Celeb-DF-v2", "v2"), ("celeb", "v1")])
def test_in_celeb_df_one_means_real(tmp_path: Path, between: str, name: str, version: str) -> None:
    root = lay_out(
        tmp_path / name,
        *(f"Celeb-real/{between}{video}.mp4" for video in ("id0_0000", "id1_0003")),
        f"YouTube-real/{between}00170.mp4",
        *(f"Celeb-synthesis/{between}{video}.mp4" for video in ("id0_id1_0000", "id1_id0_0007")),
    )
    tested = "1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n1 Celeb-real/id0_0000.mp4\n"
    (root / "List_of_testing_videos.txt").write_text(tested + "1 Celeb-real/id9_0001.mp4\n")
    truth = read_truth(root)
    assert truth.layout == f"Celeb-DF {version}"
    assert {
        key.rpartition("/")[2]: value for key, value in facts(truth, "label", "method", "group", "split").items()
    } == {
        "id0_0000.mp4": ("real", None, "celeb-id0", "test"),
        "id1_0003.mp4": ("real", None, "celeb-id1", "train"),
        "00170.mp4": ("real", None, "celeb-youtube-real/00170", "test"),
        "id0_id1_0000.mp4": ("fake", "Celeb-synthesis", "celeb-id0", "test"),
        "id1_id0_0007.mp4": ("fake", "Celeb-synthesis", "celeb-id1", "train"),
    }
    assert truth.notes == (f"1 video of List_of_testing_videos.txt not in {root}.",)
    (root / "List_of_testing_videos.txt").write_text("0 Celeb-real/id0_0000.mp4\n")
    with pytest.raises(UsageError, match="its folder says real"):
        read_truth(root)
    (root / "List_of_testing_videos.txt").write_text("Celeb-real/id0_0000.mp4\n")
    with pytest.raises(UsageError, match="expected 1"):
        read_truth(root)


def test_dfdc_groups_fakes_with_their_originals(tmp_path: Path) -> None:
    for part, videos in (("dfdc_train_part_0", ("a", "b")), ("dfdc_train_part_1", ("c",))):
        lay_out(tmp_path / part, *(f"{video}.mp4" for video in videos))
        entries = {
            f"{video}.mp4": {"label": "FAKE", "split": "train", "original": "c.mp4"}
            if video == "a"
            else {"label": "REAL"}
            for video in videos
        }
        (tmp_path / part / "metadata.json").write_text(json.dumps(entries))
    truth = read_truth(tmp_path)
    assert truth.layout == "DFDC"
    assert facts(truth, "label", "group", "split") == {
        "dfdc_train_part_0/a.mp4": ("fake", "dfdc-c.mp4", "train"),
        "dfdc_train_part_0/b.mp4": ("real", "dfdc-b.mp4", None),
        "dfdc_train_part_1/c.mp4": ("real", "dfdc-c.mp4", None),
    }
    one = read_truth(tmp_path / "dfdc_train_part_0" / "metadata.json")
    assert (one.layout, [each.path for each in one.rows]) == ("DFDC", ["a.mp4", "b.mp4"])


def test_a_json_of_deepfakebench_is_read_with_splits_and_compressions(tmp_path: Path) -> None:
    def frames(folder: str, name: str) -> list[str]:
        return [f"datasets\\rgb\\FaceForensics++\\{folder}\\c23\\frames\\{name}\\000.png".replace("\\", "/")]

    real = {"000": {"label": "FF-real", "frames": frames("original_sequences/youtube", "000")}}
    fake = {"000_003": {"label": "FF-DF", "frames": frames("manipulated_sequences/Deepfakes", "000_003")}}
    content = {
        "FF-DF": {
            "FF-real": {"train": {"c23": {}}, "test": {"c23": real}, "val": {"c23": real}},
            "FF-DF": {"train": {"c23": {}}, "test": {"c23": fake}, "val": {"c23": {}}},
        }
    }
    path = tmp_path / "FF-DF.json"
    path.write_text(json.dumps(content))
    truth = read_truth(path)
    assert truth.layout == "DeepfakeBench"
    assert facts(truth, "label", "method", "dataset", "group", "split") == {
        "videos/000.mp4": ("real", None, "FF-DF c23", "ff-000-003", "test"),
        "videos/000_003.mp4": ("fake", "FF-DF", "FF-DF c23", "ff-000-003", "test"),
    }
    assert truth.notes == (f"1 video of {path} in several splits: test counts first, then val.",)
    scanned = row(path="/data/FaceForensics++/manipulated_sequences/Deepfakes/c23/videos/000_003.mp4")
    assert match_labels([scanned], truth).labeled[0].truth.method == "FF-DF"
    path.write_text(json.dumps(content).replace('FF-DF", "frames', 'FF-?", "frames'))
    with pytest.raises(UsageError, match="the label 'FF-\\?'"):
        read_truth(path)


@pytest.mark.parametrize("text", ["[", "[]", "{}", '{"a": 1}', '{"a.mp4": {"label": "PERHAPS"}}'])
def test_other_json_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"labels\.json"):
        read_truth(path)


def test_a_folder_without_a_known_layout_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="FaceForensics"):
        read_truth(lay_out(tmp_path, "videos/a.mp4"))
