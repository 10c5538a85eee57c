"""The methods paragraph of a study, ready for a paper: data, training, selection, seeds, intervals, software."""

from __future__ import annotations

from ablate.analysis.analyse import Analysis
from ablate.analysis.frames import Frames
from ablate.report.lookup import main_trials, primary_contrasts, primary_kind, setting_words
from ablate.report.rules import images_drawn
from ablate.report.words.headline import SYNTHETIC
from ablate.study.spec import Component, TrainSpec
from ablate.study.trial import level_text
from ablate.wording import count_of, listed, range_of

OPTIMIZER_NAMES = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
SPLITS = {"train": "training", "val": "validation", "test": "test"}


def methods_paragraph(analysis: Analysis) -> str:
    """Return one paragraph that says how the numbers were made; only what the results folder holds is said."""
    frames = analysis.frames
    parts = [
        _data(frames),
        _variants(analysis),
        _training(analysis),
        _trials(analysis),
        _selection(analysis),
    ]
    parts += [_statistics(analysis), _cost(frames), _software(frames)]
    return " ".join(part for part in parts if part)


def _data(frames: Frames) -> str:
    data, spec = frames.run.get("data", {}), frames.study.data
    splits = data.get("splits", {})
    size = data.get("size") or spec.settings.get("size")
    images = listed(f"{splits[name]} {word}" for name, word in SPLITS.items() if name in splits)
    text = f"We used the {'generated ' * (spec.name in SYNTHETIC)}data set {spec.name}"
    text += f" ({images} image{'s' * (sum(splits.values()) != 1)}" if images else ""
    text += f"; {size[0]} × {size[1]} pixels" if images and size else ""
    text += f"; {len(frames.class_names)} classes)" if images else ""
    text += f", fingerprint {data['fingerprint'][:12]}" if data.get("fingerprint") else ""
    if frames.multilabel:
        text += ". A pixel may bear several classes or none: each was trained and judged by its own sigmoid, above 0.5"
    text += ". Pixels labelled as ignored were not scored"
    if frames.study.measure.native:
        text += "; the test split was scored at the size of its masks, with logits enlarged bilinearly"
    return f"{text}."


def _variants(analysis: Analysis) -> str:
    rows = analysis.variants.to_dict("records")
    others = [row for row in rows if not row["baseline"] and not row["control"]]
    said = [f"{row['variant']} ({row['differs']})" if row["differs"] else str(row["variant"]) for row in others]
    text = f"The baseline {analysis.baseline} was compared with {listed(said)}." if said else ""
    confounds = [str(row["confounds"]) for row in rows if row["confounds"]]
    if confounds:
        text += f" Training settings differ as declared ({'; '.join(confounds)})."
    copies = [f"{row['variant']} of {row['against']}" for row in rows if row["control"]]
    if copies:
        text += f" As a check, A/A copies were trained with seeds of their own ({listed(copies)})."
    return text


def _training(analysis: Analysis) -> str:
    frames = analysis.frames
    train, grid = frames.study.train, frames.study.grid
    varied = {name.removeprefix("train.") for name in frames.study.factors}
    optimizer, loss = str(train.optimizer), str(train.loss)
    named = {"optimizer": OPTIMIZER_NAMES.get(optimizer, optimizer)}
    named["loss"] = f"the {loss.replace('_', '-')} loss" if loss.isidentifier() else f"the loss {loss}"
    named["loss"] += " of each class" if frames.multilabel else ""
    named |= {field: f"the {field} of its variant" for field in named if field in varied}
    text = f"Every variant was trained for {count_of(train.epochs, 'epoch')} with {named['optimizer']}"
    text += f" (batch size {train.batch_size}"
    text += f", weight decay {train.weight_decay:g}" if train.weight_decay else ""
    text += f"), a {train.schedule} learning-rate schedule and {named['loss']}"
    text += f" with {train.class_weights} class weights" if isinstance(train.class_weights, str) else ""
    text += f", gradients clipped to norm {train.clip_norm:g}" if train.clip_norm else ""
    text += f", {count_of(f'{train.warmup_epochs:g}', 'epoch')} of linear warm-up" if train.warmup_epochs else ""
    text += f"; {_augmented(train)}"
    if "lr" not in grid and (frames.study.search is None or "lr" not in frames.study.search.space):
        text += f"; at the learning rate {level_text(train.lr)}"
    if frames.study.search is not None:
        search = frames.study.search
        proposed = f"{count_of(search.trials, 'setting')} of {listed(search.space)} a variant"
        text += f"; {proposed} {'was' if search.trials == 1 else 'were'} proposed by a {search.sampler} sampler"
    elif grid:
        axes = [f"{axis} in {{{', '.join(map(level_text, levels))}}}" for axis, levels in grid.items()]
        text += f", at each setting of the grid {listed(axes)}"
        # With `on_edge: extend` the grid grew while it ran.
        tried = sorted({float(rate) for rate in main_trials(analysis)["lr"].dropna()}) if "lr" in grid else []
        beyond = [rate for rate in tried if rate not in {float(rate) for rate in grid["lr"]}] if tried else []
        if beyond:
            text += (
                f", extended for all variants by lr {listed(map(level_text, beyond))} as a best rate lay on its edge"
            )
    precision = frames.run.get("decisions", {}).get("precision", {}).get("value")
    return text + (f". Arithmetic was {precision}." if precision else ".")


def _augmented(train: TrainSpec) -> str:
    """Say how training images are varied."""
    augment, said = train.augment, []
    if isinstance(augment, Component):
        return f"training images were augmented by {augment}"
    if augment.flip:
        said.append("mirrored at random")
    if augment.scale != (1.0, 1.0):
        said.append(f"zoomed by {augment.scale[0]:g} to {augment.scale[1]:g}")
    said += [
        f"changed in {name} by up to {change:.0%}"
        for name, change in (("brightness", augment.brightness), ("contrast", augment.contrast))
        if change
    ]
    if train.crop:
        said.append(f"cropped at random to {train.crop[0]} × {train.crop[1]} pixels")
    return f"training images were {listed(said)}" if said else "training images were not augmented"


def _trials(analysis: Analysis) -> str:
    frames, main = analysis.frames, main_trials(analysis)
    seeds = main.groupby(["variant", "setting"], sort=False)["seed"].nunique()
    status = frames.trials["status"].value_counts()
    planned = "is planned" if status.get("missing", 0) else "was trained"
    text = f"Each cell {planned} with {count_of(range_of(seeds), 'seed')} ({count_of(len(frames.trials), 'trial')}"
    for name, word in (
        ("diverged", "diverged"),
        ("pruned", "pruned"),
        ("failed", "failed"),
        ("missing", "not yet run"),
    ):
        if status.get(name, 0):
            text += f"; {status[name]} {word}"
    text += "). "
    confirming = frames.trials[frames.trials["role"] == "confirm"]
    if len(confirming):
        fresh = confirming.groupby(["variant", "setting"], sort=False)["seed"].nunique()
        text += f"The chosen settings were trained again with {count_of(range_of(fresh), 'fresh seed')} each. "
    return text + "A diverged trial (loss or gradient not finite) counts with a score of 0."


def _selection(analysis: Analysis) -> str:
    text = (
        "Weights were taken from the epoch with the best validation mIoU. Each variant is reported on the test split "
        "at the setting with its highest mean validation mIoU over seeds (own best)"
    )
    at: dict[str, list[str]] = {}
    for name, setting in analysis.own_best.items():
        if setting:
            at.setdefault(setting_words(analysis, setting), []).append(name)
    chosen = [f"{words} for {_whole('every', names, analysis)}" for words, names in at.items()]
    text += f", which is {listed(chosen)}." if chosen else "."
    rows = analysis.variants
    edges = rows[rows["unbracketed"]].groupby("bracket", sort=False)["variant"]
    said = [f"{_whole('any', list(names), analysis)} ({why})" for why, names in edges]
    return text + (f" The optimum is not bracketed for {listed(said)}." if said else "")


def _whole(each: str, names: list[str], analysis: Analysis) -> str:
    return f"{each} variant" if 1 < len(names) == len(analysis.own_best) else listed(names)


def _statistics(analysis: Analysis) -> str:
    frames = analysis.frames
    measure = frames.study.measure
    primary = primary_contrasts(analysis)
    primary = primary[~primary["control"].astype(bool)]
    one = len(primary) == 1
    fresh = primary_kind(analysis) == "confirmed"
    setting = "fresh seeds at the chosen setting" if fresh else "the setting chosen again in each replicate"
    compared = f"The {len(primary)} comparison{'' if one else 's'} with the baseline {'is' if one else 'are'}"
    return (
        f"Differences in test mIoU are given with {analysis.confidence:.0%} intervals from a two-way bootstrap over "
        f"seeds and images (Multi-Bootstrap, {measure.resamples} replicates; images drawn {images_drawn(analysis)} and "
        f"in common for all variants; seeds drawn within cells; {setting}), as the estimate ± Student's t with "
        "Satterthwaite's degrees of freedom times the standard error, corrected for the number of seeds and "
        f"for counting the seeds' interaction with images twice. {compared} decided at a family-wise level of "
        f"{1 - analysis.confidence:.2g} (Holm); variants are called equivalent where the interval lies within "
        f"±{analysis.rope:g} and two one-sided tests, corrected likewise, agree. All other numbers are descriptive."
    )


def _cost(frames: Frames) -> str:
    profile = frames.profile
    if not profile.get("variants"):
        return ""
    place = profile.get("machine") or profile.get("device")
    rounds = count_of(profile.get("rounds", "?"), "round")
    return (
        f"Throughput was measured with each variant alone on {place}, interleaved over {rounds}, "
        "and is compared as a ratio paired by round."
    )


def _software(frames: Frames) -> str:
    versions = frames.run.get("versions", {})
    named = [
        f"{word} {versions[key]}"
        for key, word in (("ablate", "ablate"), ("ablate-bench", "ablate"), ("torch", "PyTorch"), ("python", "Python"))
        if key in versions
    ]
    text = f"Software: {', '.join(dict.fromkeys(named))}." if named else ""
    git = frames.run.get("git", {})
    if git.get("commit"):
        changed = ", with uncommitted changes" if git.get("dirty") else ""
        text += f" Code at commit {git['commit'][:12]}{changed}."
    return text
