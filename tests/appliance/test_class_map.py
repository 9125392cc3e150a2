"""Other people's labels.csv: their columns and classes in Umbra's words, folds that divide no group, pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.class_map import ClassMap, ClassMapError
from appliance.dataset import DataSet, DataSetError
from appliance.training_sets import images_of, picture_image, read_picture, training_sets
from engines.training.data import Pictures

MAP = """
file = "images/{file}"
label = "majority"
level = "probability"
level_scale = 10.0
group = "near"
pictures = "turned"
[classes]
dot = "Spot"
line = "Diagonal"
none = "OK"
unclear = "-"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = ["file,majority,probability,near"]
    for i in range(60):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), rng.integers(0, 60, (40, 50, 3), dtype=np.uint8))
        name = ("dot", "line", "none", "none")[i % 4] if i < 56 else "unclear"
        lines.append(f"{i}.png,{name},{i % 4 / 4},{i // 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "classes.toml").write_text(MAP)
    return tmp_path


def test_columns_and_classes_are_read_by_the_map(folder: Path) -> None:
    known = DataSet.read(folder)
    assert known.pictures is Pictures.TURNED
    assert len(known.rows) == 56  # the unclear ones are left out
    first = known.rows[1]
    assert (first.file, first.class_name, first.level, first.group) == ("images/1.png", "Diagonal", 2.5, "0")


def test_folds_divide_no_group_and_cover_all(folder: Path) -> None:
    known = DataSet.read(folder)
    tested = []
    for number in range(1, 6):
        fold = known.fold(number, 5)
        splits = {split: {row.group for row in fold.of_split(split)} for split in ("train", "validation", "test")}
        assert not splits["test"] & splits["train"]
        assert not splits["validation"] & (splits["train"] | splits["test"])
        tested += [row.file for row in fold.of_split("test")]
    assert sorted(tested) == sorted(row.file for row in known.rows)
    assert known.fold(2, 5) == known.fold(2, 5)


@pytest.mark.parametrize(("number", "folds"), [(0, 5), (6, 5), (1, 1)])
def test_a_fold_that_is_none_is_refused(folder: Path, number: int, folds: int) -> None:
    with pytest.raises(DataSetError, match=f"fold {number}/{folds}"):
        DataSet.read(folder).fold(number, folds)


def test_more_folds_than_groups_are_refused(folder: Path) -> None:
    with pytest.raises(DataSetError, match="28 groups"):
        DataSet.read(folder).fold(1, 40)


def test_pictures_are_grey_resized_and_centred(folder: Path) -> None:
    images = images_of(known := DataSet.read(folder), known.rows[:3])
    assert images.images.shape == (3, 224, 224)
    assert np.median(images.images, axis=(1, 2)).tolist() == [128, 128, 128]
    grey = np.zeros((300, 260), np.uint16)
    grey[100:200, 100:200] = 65535
    image = picture_image(grey)
    assert (image.min(), image.max()) == (128, 255)
    faint = np.random.default_rng(0).normal(30000, 300, (224, 224)).astype(np.uint16)
    assert picture_image(faint).std() == pytest.approx(picture_image(20000 + (faint - 20000) // 2 * 4).std(), rel=0.05)
    deep = folder / "deep.png"
    cv2.imwrite(str(deep), grey)
    np.testing.assert_array_equal(read_picture(deep), grey)
    cv2.imwrite(str(folder / "float.tif"), grey.astype(np.float32) / 65535)
    with pytest.raises(DataSetError, match=r"float\.tif: a picture of float32 values, wanted whole numbers of 8 or 16"):
        read_picture(folder / "float.tif")
    (folder / "images" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataSetError, match="no picture that can be read"):
        images_of(known, known.rows[:1])


def test_the_splits_of_a_fold_become_training_and_validation(folder: Path) -> None:
    fold = DataSet.read(folder).fold(1, 4)
    train, check = training_sets(fold, None, cache=folder / "cache")
    assert (len(train), len(check)) == (len(fold.of_split("train")), len(fold.of_split("validation")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes = 3", "classes"),
        ("[classes]\ndot = 'Blob'", "Blob: wanted OK, Spot"),
        ("colour = 1", "colour"),
        ("level_scale = 0", "level_scale"),
        ("file = ", "Invalid value"),
        ("file = 'images/{name}'", r"file: .*'images/\{name\}': KeyError\('name'\), wanted a path with \{file\}"),
        ("file = 'images/{'", r"file: .*wanted a path with \{file\}"),
    ],
)
def test_a_wrong_map_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(ClassMapError, match=message):
        ClassMap.read(tmp_path / "map.toml")


def test_a_class_that_the_map_does_not_know_is_named(folder: Path) -> None:
    (folder / "classes.toml").write_text(MAP.replace('line = "Diagonal"\n', ""))
    with pytest.raises(DataSetError, match=r"labels\.csv line 3: class 'line', wanted one of dot, none, unclear"):
        DataSet.read(folder)


def test_a_level_out_of_range_after_scaling_is_named(folder: Path) -> None:
    (folder / "classes.toml").write_text(MAP.replace("10.0", "40.0"))
    with pytest.raises(DataSetError, match=r"line 4: level 20\.0, wanted 0\.\.10"):
        DataSet.read(folder)


def test_a_table_that_is_no_utf8_is_named(folder: Path) -> None:
    (folder / "labels.csv").write_bytes("file,kind\nü.png,dot\n".encode("latin-1"))
    with pytest.raises(DataSetError, match=r"labels\.csv: .*codec"):
        DataSet.read(folder)
    (folder / "classes.toml").write_bytes('label = "Größe"'.encode("latin-1"))
    with pytest.raises(ClassMapError, match=r"classes\.toml: .*codec"):
        ClassMap.read(folder / "classes.toml")
