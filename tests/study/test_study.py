"""The plan: its trials, their keys, and what may change without changing a key."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import ablate
from ablate.errors import StudyError
from ablate.study.reader import dump_study
from ablate.study.study import Study
from ablate.study.trial import Trial
from tests.study.study_files import GOOD, read, write


def keys(study: Study) -> dict[str, str]:
    """Key by what a person would call the trial."""
    return {f"{trial.variant} {trial.settings} {trial.seed}": trial.key for trial in study.trials()}


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_every_variant_at_every_setting_with_every_seed(tmp_path: Path) -> None:
    trials = read(tmp_path).trials()
    assert [(trial.variant, trial.settings, trial.seed) for trial in trials] == [
        (variant, {"lr": lr}, seed) for variant in ("unet", "noskip") for lr in (1e-3, 3e-4) for seed in (0, 1)
    ]
    assert len({trial.key for trial in trials}) == len({trial.name for trial in trials}) == 8
    assert {trial.role for trial in trials} == {"main"}
    first = trials[0]
    assert first.name == f"unet-lr1e-3-seed0-{first.key[:8]}"
    assert first.study == "small"
    assert first.train["lr"] == 1e-3
    assert (first.model["skip"], trials[4].model["skip"]) == ("concat", "none")


def test_the_plan_is_a_pure_function_of_the_file(tmp_path: Path) -> None:
    first, again = read(tmp_path), read(tmp_path)
    plan = first.trials()
    plan[0].model["width"] = 999
    plan[0].settings.clear()
    assert first.trials() == again.trials()
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan[0].seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("study: small", "study: other"),
        ("  noskip:", "  without:"),
        ("seeds: 2", "seeds: [1, 0]"),
        ("seeds: 2", "seeds: 2\nmeasure: {rope: 0.01}"),
        ("seeds: 2", "seeds: 2\nrun: {workers: 1}\ntrack: {wandb: disabled}"),
        ("seeds: 2", "seeds: 2\nclaims: [{metric: rise, variant: any, op: '>', value: 2}]"),
        ("width: 4", "width: 4, skip: concat, block: plain, norm: batch"),
        ("epochs: 2", "epochs: 2, optimizer: adam, schedule: constant, momentum: 0.9"),
        ("name: street", "name: street, seed: 0"),
        ("1e-3", "0.001"),
        ("{lr: ", "{train.lr: "),
    ],
)
def test_what_changes_no_number_changes_no_key(old: str, new: str, tmp_path: Path) -> None:
    before = {trial.key for trial in read(tmp_path).trials()}
    assert {trial.key for trial in read(tmp_path, changed(old, new)).trials()} == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("width: 4", "width: 5"),
        ("epochs: 2", "epochs: 3"),
        ("train: 8", "train: 9"),
        ("epochs: 2", "epochs: 2, augment: {flip: false}"),
        ("name: street", "name: street, seed: 1"),
    ],
)
def test_what_changes_the_numbers_changes_every_key(old: str, new: str, tmp_path: Path) -> None:
    before = {trial.key for trial in read(tmp_path).trials()}
    assert not {trial.key for trial in read(tmp_path, changed(old, new)).trials()} & before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("3e-4]", "3e-4, 1e-4]"),
        ("[1e-3, ", "[1e-2, 1e-3, "),
        ("seeds: 2", "seeds: 3"),
        ("noskip: {skip: none}", "noskip: {skip: none}\n  residual: {block: residual}"),
    ],
)
def test_more_levels_seeds_or_variants_leave_the_other_keys_alone(old: str, new: str, tmp_path: Path) -> None:
    before, after = keys(read(tmp_path)), keys(read(tmp_path, changed(old, new)))
    assert len(after) > len(before)
    assert before.items() <= after.items()


def test_the_place_of_the_files_is_not_in_the_key(tmp_path: Path) -> None:
    text = GOOD.replace("{name: street, size: [32, 48], train: 8, val: 4, test: 4}", "{name: camvid, root: a}")
    here, there = read(tmp_path, text), read(tmp_path, text, ["data.root=/b/c"])
    assert keys(here) == keys(there)
    assert here.trials()[0].data["root"] == "a"
    assert keys(here) != keys(read(tmp_path, text, ["data.split=sequence"]))


def test_the_version_of_a_generator_is_in_the_key(tmp_path: Path) -> None:
    @ablate.register_dataset("versioned")
    def versioned(*, size: tuple[int, int] = (32, 48)) -> object:
        return size

    text = GOOD.replace("{name: street, size: [32, 48], train: 8, val: 4, test: 4}", "{name: versioned}")
    plain = keys(read(tmp_path, text))

    @ablate.register_dataset("versioned2")
    def versioned2(*, size: tuple[int, int] = (32, 48)) -> object:
        return size

    versioned2.version = 2  # type: ignore[attr-defined]
    numbered = read(tmp_path, text.replace("versioned", "versioned2"))
    assert numbered.data_identity == {"name": "versioned2", "size": [32, 48], "version": 2}
    assert "version" not in numbered.data
    assert not set(plain.values()) & set(keys(numbered).values())


def test_seeds_are_a_count_or_a_list(tmp_path: Path) -> None:
    assert read(tmp_path, changed("seeds: 2", "seeds: 3")).seeds == (0, 1, 2)
    assert read(tmp_path, changed("seeds: 2", "seeds: [7, 3]")).seeds == (7, 3)


def test_without_a_grid_there_is_one_setting(tmp_path: Path) -> None:
    trials = read(tmp_path, changed("grid: {lr: [1e-3, 3e-4]}\n", "")).trials()
    assert [(trial.settings, trial.train["lr"]) for trial in trials] == [({}, 3e-4)] * 4
    assert trials[0].name.startswith("unet-seed0-")


def test_without_variants_the_model_is_the_only_one(tmp_path: Path) -> None:
    study = read(tmp_path, changed("variants:\n  unet: {}\n  noskip: {skip: none}\n", ""))
    assert list(study.variants) == ["unet"]
    assert study.baseline == "unet"


def test_axes_of_the_model_and_of_augmentation(tmp_path: Path) -> None:
    grid = "grid: {lr: [1e-3], model.width: [4, 6], augment.flip: [true, false]}"
    study = read(tmp_path, changed("grid: {lr: [1e-3, 3e-4]}", grid))
    cells = {(t.model["width"], t.train["augment"]["flip"], t.train["augment"]["brightness"]) for t in study.trials()}
    assert cells == {(width, flip, 0.0) for width in (4, 6) for flip in (True, False)}
    assert study.trials()[0].name.startswith("unet-lr1e-3-width4-fliptrue-seed0-")


def test_a_variants_own_training_is_a_declared_difference(tmp_path: Path) -> None:
    own = "noskip: {skip: none, train: {weight_decay: 0.1, augment: {flip: false}}}"
    study = read(tmp_path, changed("noskip: {skip: none}", own))
    trial = study.trial("noskip", {"lr": 1e-3}, 0)
    assert (trial.train["weight_decay"], trial.train["augment"]["flip"]) == (0.1, False)
    assert trial.train["augment"]["scale"] == [1.0, 1.0]
    assert study.differences("noskip") == {
        "skip": ("concat", "none"),
        "train.weight_decay": (0.0, 0.1),
        "train.augment.flip": (True, False),
    }
    assert study.differences("unet") == {}


def test_a_control_computes_the_same_with_seeds_and_keys_of_its_own(tmp_path: Path) -> None:
    study = read(tmp_path, changed("unet: {}", "unet: {}\n  again: {control: true}"))
    ours, copies = ([trial for trial in study.trials() if trial.variant == name] for name in ("unet", "again"))
    assert len(copies) == len(ours) == 4
    assert not {trial.seed for trial in copies} & set(study.seeds)
    assert not {trial.key for trial in copies} & {trial.key for trial in ours}
    assert [trial.model for trial in copies] == [trial.model for trial in ours]
    # Even at one seed a copy is a trial of its own.
    assert study.trial("again", {"lr": 1e-3}, 0).key != study.trial("unet", {"lr": 1e-3}, 0).key
    # Another study with the same copy repeats the same trials.
    again = read(tmp_path, changed("unet: {}", "unet: {}\n  again: {control: true}").replace("seeds: 2", "seeds: 1"))
    assert {trial.key for trial in again.trials()} < {trial.key for trial in study.trials()}


def test_a_variant_may_be_another_model(tmp_path: Path) -> None:
    @ablate.register_model("thin")
    def thin(*, in_channels: int, num_classes: int, width: int = 32, depth: int = 7, bias: bool = True) -> object:
        return (in_channels, num_classes, width, depth, bias)

    study = read(tmp_path, changed("noskip: {skip: none}", "mine: {name: thin, bias: false}"))
    # What the file says of the shared model holds where the other model knows it; its own defaults elsewhere.
    assert study.variants["mine"].model == {"name": "thin", "width": 4, "depth": 2, "bias": False}
    assert study.differences("mine")["skip"] == ("concat", None)
    copy = write(tmp_path, dump_study(study), "copy.yaml")
    assert keys(read_again(copy)) == keys(study)
    sparse = read(tmp_path, changed("noskip: {skip: none}", "mine: {name: thin}").replace(", depth: 2", ""))
    assert sparse.variants["mine"].model["depth"] == 7
    copy = write(tmp_path, dump_study(sparse), "copy.yaml")
    assert read_again(copy).variants["mine"].model["depth"] == 7


def read_again(path: Path) -> Study:
    return read(path.parent, path.read_text(encoding="utf-8"))


def test_factors_make_the_variants(tmp_path: Path) -> None:
    text = changed(
        "variants:\n  unet: {}\n  noskip: {skip: none}\n",
        "factors: {skip: [concat, none], block: [plain, residual]}\ndesign: grid\n"
        "exclude: [{skip: none, lr: 1e-3}, {skip: none, block: residual}]\n",
    )
    study = read(tmp_path, text)
    assert list(study.variants) == ["baseline", "block-residual", "skip-none"]
    assert study.baseline == "baseline"
    assert {(t.variant, t.settings["lr"]) for t in study.trials()} == {
        ("baseline", 1e-3),
        ("baseline", 3e-4),
        ("block-residual", 1e-3),
        ("block-residual", 3e-4),
        ("skip-none", 3e-4),
    }
    assert study.variants["skip-none"].levels == {"skip": "none", "block": "plain"}
    plain = read(tmp_path).trial("noskip", {"lr": 3e-4}, 0)
    assert study.trial("skip-none", {"lr": 3e-4}, 0).key == plain.key, "how a variant came about is not in its key"


def test_factors_beside_written_variants(tmp_path: Path) -> None:
    text = (
        changed("  unet: {}\n  noskip: {skip: none}\n", "  again: {control: true}\n")
        + "factors: {skip: [concat, none]}\n"
    )
    study = read(tmp_path, text)
    assert list(study.variants) == ["baseline", "skip-none", "again"]
    with pytest.raises(StudyError, match="expected another name than 'skip-none'"):
        read(tmp_path, text.replace("again: {control: true}", "skip-none: {block: residual}"))


def test_a_search_has_no_plan_but_makes_trials(tmp_path: Path) -> None:
    search = "search: {trials: 3, space: {lr: {low: 1e-5, high: 1e-2, log: true}, optimizer: {choices: [adam, sgd]}}}"
    study = read(tmp_path, changed("grid: {lr: [1e-3, 3e-4]}", search))
    assert study.trials() == []
    found = study.trial("noskip", {"lr": 0.00123, "optimizer": "sgd"}, 1)
    assert (found.train["lr"], found.train["optimizer"], found.role) == (0.00123, "sgd", "main")
    # The same trial of a grid is the same trial.
    planned = read(tmp_path, changed("[1e-3, 3e-4]", "[0.00123]"), ["train.optimizer=sgd"])
    assert found.key == planned.trial("noskip", {"lr": 0.00123}, 1).key


@pytest.mark.parametrize(
    "axes",
    [
        "grid: {lr: [1e-3], batch_size: [2, 4]}",
        "search: {space: {lr: {low: 1e-4, high: 1e-2}, batch_size: {low: 2, high: 8}}}",
    ],
)
def test_a_trials_name_does_not_depend_on_how_its_setting_was_kept(axes: str, tmp_path: Path) -> None:
    study = read(tmp_path, changed("grid: {lr: [1e-3, 3e-4]}", axes))
    kept = ({"lr": 1e-3, "batch_size": 4}, {"batch_size": 4, "lr": 1e-3})
    one, other = (study.trial("unet", settings, 0) for settings in kept)
    assert one == other and "lr1e-3-batch_size4" in one.name


def test_seeds_that_confirm_took_no_part_in_choosing(tmp_path: Path) -> None:
    text = GOOD + "confirm: {seeds: 3}\n"
    study, more = read(tmp_path, text), read(tmp_path, text.replace("seeds: 2", "seeds: 4"))
    seeds = study.confirm_seeds("unet")
    assert len(set(seeds)) == 3
    assert not set(seeds) & set(study.seeds)
    assert more.confirm_seeds("unet") == seeds, "more seeds to choose by change no confirming trial"
    assert study.trial("unet", {"lr": 1e-3}, seeds[0], "confirm").role == "confirm"


def test_a_screened_study_adds_the_next_seeds_and_every_look_the_next_fresh_ones(tmp_path: Path) -> None:
    text = changed("seeds: 2", "screen: {seeds: 2, more: 3}\nconfirm: {until: decided, looks: [4, 8, 12], at_most: 8}")
    study = read(tmp_path, text.replace("noskip: {skip: none}", "again: {control: true}"))
    assert len(study.trials()) == 2 * 2 * 2
    assert study.seeds_of("unet") == (0, 1) and study.again_seeds("unet") == (2, 3, 4)
    # A control has seeds of its own, in both phases.
    assert len({*study.seeds_of("again"), *study.again_seeds("again"), *study.again_seeds("unet")}) == 2 + 3 + 3
    assert study.spec.confirm is not None and study.spec.confirm.planned_looks == (4, 8)
    fresh = {name: study.confirm_seeds(name) for name in study.variants}
    assert len({*fresh["unet"], *fresh["again"]}) == 16
    fixed = read(tmp_path, GOOD + "confirm: {seeds: 3}\n")
    assert fixed.confirm_seeds("unet") == fresh["unet"][:3], "more looks change no fresh seed"


def test_an_extended_study_goes_on_from_its_shorter_self(tmp_path: Path) -> None:
    study = read(tmp_path)
    longer = study.extended(2)
    assert [trial.parent for trial in longer.trials()] == [trial.key for trial in study.trials()]
    assert {trial.train["epochs"] for trial in longer.trials()} == {4}
    assert longer.trials()[0].key == read(tmp_path, GOOD, ["train.epochs=4"]).trials()[0].key
    own = read(tmp_path, changed("noskip: {skip: none}", "noskip: {skip: none, train: {epochs: 5}}")).extended(2)
    assert own.trial("noskip", {"lr": 1e-3}, 0).train["epochs"] == 10


@pytest.mark.parametrize(
    ("override", "factor", "message"),
    [
        ("train.schedule=cosine", 2.0, "train.schedule: expected a constant schedule, got cosine"),
        ("grid.schedule=[constant, poly]", 2.0, "train.schedule: expected a constant schedule, got poly"),
        ("grid.epochs=[2, 3]", 2.0, "grid.epochs: expected epochs outside the grid"),
        ("train.epochs=2", 1.0, "--extend: expected a factor that adds epochs, got 1.0"),
        ("train.epochs=2", 1e30, "--extend: expected at most 100,000 epochs in the end, got more"),
        ("train.epochs=2", float("nan"), "--extend: expected a factor that adds epochs, got nan"),
        ("train.epochs=2", float("inf"), "--extend: expected a factor that adds epochs, got inf"),
    ],
)
def test_what_cannot_be_extended(override: str, factor: float, message: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=message):
        read(tmp_path, GOOD, [override]).extended(factor)


def test_one_representative_of_every_variant(tmp_path: Path) -> None:
    chosen = read(tmp_path).representatives()
    assert [(trial.variant, trial.seed, trial.settings) for trial in chosen] == [
        ("unet", 0, {"lr": 1e-3}),
        ("noskip", 0, {"lr": 1e-3}),
    ]
    assert chosen[0] in read(tmp_path).trials()


def test_ten_thousand_trials_have_keys_and_names_of_their_own(tmp_path: Path) -> None:
    trials: list[Trial] = read(tmp_path, GOOD, ["seeds=2500"]).trials()
    assert len(trials) == len({trial.key for trial in trials}) == len({trial.name for trial in trials}) == 10_000


def test_late_errors_get_the_line_of_their_key(tmp_path: Path) -> None:
    study = read(tmp_path, GOOD, ["data.val=5"])
    for key, place in (("data.size", "study.yaml:2"), ("data.size[1]", "study.yaml:2"), ("data.val", "-o data.val=5")):
        with pytest.raises(StudyError, match=rf"{place}: ") as caught, study.located():
            raise StudyError("cannot be had", key=key)
        assert key in str(caught.value)
