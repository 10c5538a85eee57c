"""A folder that nobody prepared becomes a study that is read and whose data load, without a question."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ablate.commands import tools
from ablate.commands.init import write_study
from ablate.data.files.layout import find_group, find_layout
from ablate.data.files.survey import LabelValues, find_bits, survey
from ablate.errors import AblateError, StudyError
from ablate.run.plan.dry import load_data
from ablate.study.reader import read_study
from tests.data.pictures import cells, save, save_shapes


def drawing(seed: int, size: tuple[int, int] = (48, 32)) -> tuple[Image.Image, Image.Image]:
    """A noisy picture of red and blue discs, and its mask in the same pure colours."""
    draw = np.random.default_rng(seed)
    image, mask = Image.new("RGB", size, (40, 90, 40)), Image.new("RGB", size)
    for colour, label in (((200, 60, 50), "red"), ((60, 60, 210), "blue")):
        x, y = (int(draw.integers(0, side - 14)) for side in size)
        for picture, fill in ((image, colour), (mask, label)):
            ImageDraw.Draw(picture).ellipse((x, y, x + 12, y + 12), fill=fill)
    noisy = np.asarray(image).astype(int) + draw.integers(-25, 26, (size[1], size[0], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), mask


def put(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def study_of(folder: Path, out: Path) -> tuple[str, list[str]]:
    """The study that `init` writes, once it was read and its data were loaded; and the notes."""
    (path, *_), notes = write_study(folder, out)
    load_data(read_study(path))
    assert (path.parent / "study.schema.json").exists()
    return path.read_text(), notes


def test_grey_membranes(membrane: Path, tmp_path: Path) -> None:
    text, notes = study_of(membrane, tmp_path / "s.yaml")
    assert 'images: "image/*.png"  # 12 images, grey, 8 bit' in text
    assert 'masks: "label/*.png"  # they store 0, 255' in text
    assert "    background: 0  # " in text and "    foreground: 255  # " in text
    assert "size: [24, 32]  # height, width; all images have 24 × 32" in text
    assert len(read_study(tmp_path / "s.yaml").variants) == 4
    assert notes == ["no patient or sequence is seen in the names: set data.group if images belong together"]


def test_odd_names_colours_sizes_and_groups(tmp_path: Path) -> None:
    for number in range(12):
        image, mask = drawing(number, (48 + 8 * (number % 2), 32))
        stem = f"field{number // 3:02d}-frame{number % 3:03d}"
        put(tmp_path / "odd" / "Data [v2]" / f"{stem}-rgb.png", image)
        put(tmp_path / "odd" / "Data [v2]" / f"{stem}-gt.png", mask)
    text, _ = study_of(tmp_path / "odd", tmp_path / "s.yaml")
    assert 'images: "Data [[]v2]/*-rgb.png"' in text
    assert all(line in text for line in ('background: "#000000"', 'blue: "#0000ff"', 'red: "#ff0000"'))
    study = read_study(tmp_path / "s.yaml")
    assert set(load_data(study).splits["test"].groups or ()) <= {f"field{number:02d}" for number in range(4)}


def test_splits_by_folder_and_a_label_that_is_not_scored(tmp_path: Path) -> None:
    for number in range(9):
        image, mask = drawing(number)
        part = ("training", "val", "testing")[number // 3]
        label = np.asarray(mask.convert("L")) > 0
        put(tmp_path / "voc" / part / f"{number}.jpg", image)
        save(
            tmp_path / "voc" / f"{part}annot" / f"{number}.png", np.where(label, 1, [[2] * 47 + [255]]).astype(np.uint8)
        )
    (tmp_path / "voc" / "classes.txt").write_text("sky\nball\nground\n")
    text, _ = study_of(tmp_path / "voc", tmp_path / "s.yaml")
    assert 'images: "{split}/*.jpg"' in text and 'masks: "{split}annot/*.png"' in text
    assert "split: {train: training, val: val, test: testing}" in text
    assert "ball: 1" in text and "ground: 2" in text and "ignore: [255]" in text


def test_one_folder_a_patient(tmp_path: Path) -> None:
    for number in range(12):
        image, mask = drawing(number)
        place = tmp_path / "study" / f"p{number // 3}" / f"slice{number % 3}"
        put(place / "scan.png", image)
        put(place / "truth.png", mask)
    text, _ = study_of(tmp_path / "study", tmp_path / "s.yaml")
    assert 'group: "^([^/]+)/"' in text


def test_masks_of_several_classes_a_pixel_become_a_study_of_such(tmp_path: Path) -> None:
    save_shapes(tmp_path, 12)
    (tmp_path / "image").rename(tmp_path / "a")
    for masks, lines, said in (
        (
            "files",
            ['masks: "files/*_{class}.png"', "box: box  # ", "disc: disc  # "],
            "2 masks of 0 and another value go",
        ),
        (
            "bits",
            ['masks: "bits/*.png"', "class_2: {bit: 1}  # ", "class_8: {bit: 3}  # "],
            "the values are sums of bits",
        ),
    ):
        (tmp_path / masks).rename(tmp_path / "a" / masks)
        text, notes = study_of(tmp_path / "a", tmp_path / f"{masks}.yaml")
        assert notes[0].startswith(said)
        assert all(line in text for line in (*lines, "a pixel may bear several, or none"))
        data = load_data(read_study(tmp_path / f"{masks}.yaml"))
        assert data.multilabel and set(np.unique(data.splits["train"].masks)) == {0, 1, 2, 3}
        share = float((data.splits["train"].masks & 1).mean())
        assert float(text.split(lines[1])[1].split(" %")[0]) == pytest.approx(100 * share, abs=5)
        (tmp_path / "a" / masks).rename(tmp_path / masks)


@pytest.mark.parametrize("kinds", [("cell",), ("cell", "nucleus")])
def test_a_mask_may_be_named_as_its_image_and_a_word(kinds: tuple[str, ...], tmp_path: Path) -> None:
    for number in range(12):
        image, mask = cells(number)
        save(tmp_path / "a" / "image" / f"im{number:02d}.png", image)
        for kind in kinds:
            save(tmp_path / "a" / "label" / f"im{number:02d}_{kind}.png", mask)
    layout = find_layout(tmp_path / "a")
    assert (layout.images, layout.masks, layout.unpaired) == ("image/*.png", "label/*_cell.png", ())
    assert layout.all_pairs()[3] == ("image/im03.png", "label/im03_cell.png")
    assert layout.rivals == tuple(f"label/*_{kind}.png" for kind in kinds[1:])


@pytest.mark.parametrize(
    ("values", "names", "bits"),
    [
        ([0, 2, 8, 10], {}, [2, 8]),
        ([0, 1, 4, 16, 17, 255], {}, [1, 4, 16]),
        ([0, 1, 2, 4, 5, 255], {}, []),
        ([0, 32, 64, 96, 128, 192], {}, []),
        ([0, 1, 2, 3], {}, []),
        ([0, 64, 128, 192], {}, []),
        ([0, 2, 8, 10], {10: "tree"}, []),
        ([0, 1, 2, 4], {}, []),
        ([0, 1, 2, 4, 9], {}, []),
    ],
)
def test_sums_of_bits_are_told_from_values_of_one_class(
    values: list[int], names: dict[int, str], bits: list[int]
) -> None:
    held = dict.fromkeys(values, 1)
    assert find_bits(LabelValues(False, held, held), names) == bits


@pytest.mark.parametrize(
    "values",
    [[*range(7), 8, 9, 10], [0, 1, 2, 4, 5], [0, 1, 2, 4, 7], [0, 1, 2, 3, 4, 5, 7], [0, 32, 64, 96, 128, 192]],
)
def test_numbered_classes_of_which_some_are_absent_stay_classes(values: list[int], tmp_path: Path) -> None:
    for number in range(8):
        image, _ = cells(number)
        save(tmp_path / "a" / "image" / f"{number}.png", image)
        mask = np.resize(np.array(values, np.uint8), image.shape[:2])
        save(tmp_path / "a" / "label" / f"{number}.png", np.roll(mask, number, axis=1))
    text, notes = study_of(tmp_path / "a", tmp_path / "s.yaml")
    data = load_data(read_study(tmp_path / "s.yaml"))
    assert not data.multilabel and len(data.classes) == len(values) and "{bit:" not in text
    bits = [value for value in values if value.bit_count() == 1]
    said = f"sums of {bits}: if a pixel may bear several classes, write classes: {{class_{bits[0]}: {{bit: "
    assert any(said in note for note in notes)


def test_masks_that_were_resized_as_pictures(tmp_path: Path) -> None:
    for number in range(8):
        image, mask = cells(number)
        save(tmp_path / "blurred" / "a" / f"{number}.png", image)
        larger = Image.fromarray(mask).resize((64, 48), Image.Resampling.BICUBIC)
        put(tmp_path / "blurred" / "b" / f"{number}.png", larger.resize((32, 24), Image.Resampling.BICUBIC))
    text, notes = study_of(tmp_path / "blurred", tmp_path / "s.yaml")
    assert any("look interpolated or lossy" in note for note in notes)
    assert "    foreground: 255" in text and "  ignore: [others]" in text


def test_smoothed_borders_of_colours_and_names_of_several_kinds(tmp_path: Path) -> None:
    """Names such as benign (1).png, malignant (1).png are of one kind; macOS stores ö as two characters."""
    for number in range(12):
        image, mask = drawing(number, (96, 64))
        stem = f"{('benign', 'bösartig', 'normal')[number % 3]} ({number})"
        put(tmp_path / "a" / "Fotos" / f"{stem}.png", image)
        smooth = mask.resize((48, 32), Image.Resampling.BILINEAR).resize(mask.size, Image.Resampling.BILINEAR)
        put(tmp_path / "a" / "Masken" / f"{unicodedata.normalize('NFD', stem)}.png", mask if number % 2 else smooth)
    text, notes = study_of(tmp_path / "a", tmp_path / "s.yaml")
    assert 'images: "Fotos/*.png"  # 12 images' in text and not any("without a" in note for note in notes)
    assert text.count('"#') == 3 and all(name in text for name in ("background:", "blue:", "red:"))
    assert "ignore: [others]" in text and any("the 3 that fill areas are the classes" in note for note in notes)


def test_images_of_several_endings_are_one_kind(tmp_path: Path) -> None:
    for number in range(9):
        image, mask = drawing(number)
        put(tmp_path / "mixed" / "Bilder ä" / f"{number} (1).{('JPG', 'jpeg', 'png')[number % 3]}", image)
        put(tmp_path / "mixed" / "Masken" / f"{number} (1)_Maske.png", mask)
    text, notes = study_of(tmp_path / "mixed", tmp_path / "s.yaml")
    assert 'images: "Bilder ä/*.*"  # 9 images' in text
    assert not any("without" in note for note in notes)


def test_images_of_two_endings_may_lie_beside_their_masks(tmp_path: Path) -> None:
    for number in range(8):
        image, mask = drawing(number)
        put(tmp_path / "one" / f"p{number}.{('JPG', 'jpeg')[number % 2]}", image)
        put(tmp_path / "one" / f"p{number}.png", mask)
    text, notes = study_of(tmp_path / "one", tmp_path / "s.yaml")
    assert 'images: "*.[Jj]*"  # 8 images' in text and 'masks: "*.png"' in text
    assert not any("without" in note for note in notes)


@pytest.mark.parametrize("layout", ["{kind}/{part}/{number}", "{part}/{kind}/{part}{number}"])
def test_the_folders_of_a_split_may_lie_deeper_and_name_their_files(layout: str, tmp_path: Path) -> None:
    for number in range(9):
        image, mask = drawing(number)
        part = ("train", "val", "test")[number // 3]
        for kind, picture in (("imgs", image), ("annot", mask)):
            put(tmp_path / "a" / f"{layout.format(kind=kind, part=part, number=number)}.png", picture)
    text, _ = study_of(tmp_path / "a", tmp_path / "s.yaml")
    folder = layout.rpartition("/")[0].format(kind="imgs", part="{split}")
    assert f'images: "{folder}/*.png"  # 9 images' in text and "split: {train: train, val: val, test: test}" in text
    assert {len(split) for split in load_data(read_study(tmp_path / "s.yaml")).splits.values()} == {3}


@pytest.mark.parametrize(
    ("ending", "height", "fault"),
    [
        ("jpg", 24, r"4 masks in a lossy format .*; store masks as PNG"),
        ("png", 20, "4 images of another size than their mask"),
    ],
)
def test_masks_that_cannot_be_used_make_no_study(tmp_path: Path, ending: str, height: int, fault: str) -> None:
    for number in range(4):
        image, mask = cells(number)
        save(tmp_path / "bad" / "image" / f"{number}.png", image)
        put(tmp_path / "bad" / "label" / f"{number}.{ending}", Image.fromarray(mask[:height]))
    with pytest.raises(AblateError, match=fault) as caught:
        write_study(tmp_path / "bad", tmp_path / "s.yaml")
    assert len(caught.value.problems) == 1 and not (tmp_path / "s.yaml").exists()


def test_classes_are_asked_for_and_copies_are_said(membrane: Path, tmp_path: Path) -> None:
    (membrane / "image" / "1.png").write_bytes((membrane / "image" / "0.png").read_bytes())
    asked = []

    def ask(question: str, default: str) -> str:
        asked.append(question)
        return {"background": "border", "foreground": ""}[default]

    (path, *_), notes = write_study(membrane, tmp_path / "s.yaml", ask=ask)
    assert len(asked) == 2 and "which masks store as" not in asked[0] and "% of the pixels" in asked[0]
    assert "    border: 0" in path.read_text() and "    foreground: 255" in path.read_text()
    assert "1 image with the same bytes as another one: copies stay in one split" in notes


def test_all_that_is_written_is_named(
    membrane: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, schemas in (("a.yaml", ["study.schema.json"]), ("b.yaml", [])):
        tools.init(membrane, Path(name), yes=True)
        wrote = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("wrote ")]
        assert [word.strip(",;") for word in wrote] == [*schemas, name]


def test_what_cannot_be_written(membrane: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no such folder"):
        write_study(tmp_path / "no", None)
    with pytest.raises(StudyError, match="nowhere: there is no such folder"):
        write_study(membrane, tmp_path / "nowhere" / "s.yaml")
    (tmp_path / "all.zip").write_bytes(b"PK")
    with pytest.raises(StudyError, match=r"all.zip: is a file; unpack it"):
        write_study(tmp_path / "all.zip", None)
    (tmp_path / "s.yaml").write_text("mine")
    with pytest.raises(StudyError, match="is there already"):
        write_study(membrane, tmp_path / "s.yaml")
    (tmp_path / "study.schema.json").symlink_to(tmp_path / "elsewhere")
    write_study(membrane, tmp_path / "u.yaml")
    assert not (tmp_path / "elsewhere").exists()
    for path in membrane.glob("label/*"):
        path.unlink()
    with pytest.raises(AblateError, match="no images and masks pair up by their names among image/"):
        write_study(membrane, tmp_path / "t.yaml")


@pytest.mark.parametrize(
    ("names", "group"),
    [
        ([f"p{n // 4}_s{n % 4}" for n in range(16)], r"^([^_\-. ]+)[_\-. ]"),
        ([f"patient_{n // 4}_slice_{n % 4}" for n in range(16)], r"^([^_\-. ]+[_\-. ][^_\-. ]+)[_\-. ]"),
        ([f"frame_{n:03d}" for n in range(16)], None),
    ],
)
def test_a_group_is_what_several_names_begin_with(names: list[str], group: str | None) -> None:
    assert find_group([f"{name}.png" for name in names]) == group


def test_camvid_is_known_by_its_layout(camvid_root: Path) -> None:
    seen = survey(camvid_root, find_layout(camvid_root))
    assert list(seen.classes)[:2] == ["Sky", "Building"] and seen.ignore == (11,)
    assert {role: len(pairs) for role, pairs in seen.layout.pairs.items()} == {"train": 367, "val": 101, "test": 233}
