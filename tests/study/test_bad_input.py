"""Every broken study file of the list of faults, with the one line that its writer is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.errors import StudyError
from ablate.study.reader import read_study
from ablate.study.yamlfile import MAX_BYTES
from tests.study.study_files import GOOD, problems, write


def changed(old: str, new: str) -> str:
    """The good study with one line replaced."""
    assert old in GOOD
    return GOOD.replace(old, new)


def grid(levels: str) -> str:
    return changed("grid: {lr: [1e-3, 3e-4]}", f"grid: {{lr: {levels}}}")


def train(fields: str) -> str:
    return changed("train: {epochs: 2, batch_size: 4}", f"train: {{{fields}}}")


def named(name: str) -> str:
    return changed("study: small", f"study: {name}")


SCALARS = {
    "quoted number": (
        grid('["1e-3", 3e-4]'),
        "study.yaml:7: grid.lr[0]: expected a number, got the text '1e-3'; remove the quotes",
    ),
    "quoted integer": (
        train('epochs: "3"'),
        "study.yaml:9: train.epochs: expected an integer, got the text '3'; remove the quotes",
    ),
    "no is text": (
        train("augment: {flip: no}"),
        "study.yaml:9: train.augment.flip: expected true or false, got the text 'no'",
    ),
    "leading zero": (
        train("epochs: 017"),
        "study.yaml:9: train.epochs: expected a number without leading zeros, got 017; write 17, or quote it as text",
    ),
    "sexagesimal": (
        train("epochs: 1:30"),
        "study.yaml:9: train.epochs: expected a plain number, got 1:30; write its digits only, or quote it as text",
    ),
    "underscores": (
        train("epochs: 1_000"),
        "study.yaml:9: train.epochs: expected a plain number, got 1_000; write its digits only, or quote it as text",
    ),
    "integer of 5,000 digits": (
        train(f"epochs: {'9' * 5000}"),
        "study.yaml:9: train.epochs: expected a number of at most 40 characters, got one of 5000",
    ),
    "number past the floats": (
        grid("[1e999]"),
        "study.yaml:7: grid.lr[0]: expected a finite number, got 1e999, which is too large",
    ),
    "nan": (grid("[.nan]"), "study.yaml:7: grid.lr[0]: expected a finite number, got .nan"),
    "inf": (grid("[-.inf]"), "study.yaml:7: grid.lr[0]: expected a finite number, got -.inf"),
    "nan as a word": (grid("[nan]"), "study.yaml:7: grid.lr[0]: expected a number, got the text 'nan'"),
    "impossible date": (
        train("epochs: 2024-13-45"),
        "study.yaml:9: train.epochs: expected an integer, got the text '2024-13-45'",
    ),
    "true for an integer": (train("epochs: true"), "study.yaml:9: train.epochs: expected an integer, got true"),
    "true for a number": (grid("[true]"), "study.yaml:7: grid.lr[0]: expected a number, got true"),
    "a fraction for an integer": (train("epochs: 1.5"), "study.yaml:9: train.epochs: expected an integer, got 1.5"),
    "nothing for a number": (train("epochs: "), "study.yaml:9: train.epochs: expected an integer, got nothing"),
    "a negative rate": (grid("[-1e-3]"), "study.yaml:7: grid.lr[0]: expected a number > 0, got -0.001"),
    "zero epochs": (train("epochs: 0"), "study.yaml:9: train.epochs: expected a number > 0, got 0"),
    "a NUL by escape": (
        named('"a\\0b"'),
        "study.yaml:1: study: expected printable text, got the character U+0000",
    ),
}

FORM = {
    "duplicate key": (
        GOOD + "seeds: 3\n",
        "study.yaml:10: seeds: expected every key once, got it again (first on line 8); remove one of the two",
    ),
    "anchor": (
        changed("unet: {}", "unet: &u {}"),
        "study.yaml:5: variants.unet: expected a plain value, got the anchor &u; write the value out",
    ),
    "merge key": (
        changed("noskip: {skip: none}", "noskip: {<<: {skip: none}}"),
        "study.yaml:6: variants.noskip: expected a plain key, got the merge key <<; write the keys out",
    ),
    "tag": (
        named("!!str small"),
        "study.yaml:1: study: expected a plain value, got the tag !!str; remove the tag",
    ),
    "python tag": (
        named("!!python/object/apply:os.system ['true']"),
        "study.yaml:1: study: expected a plain value, got the tag !!python/object/apply:os.system; remove the tag",
    ),
    "tab indent": (
        changed("  unet: {}", "\tunet: {}"),
        "study.yaml:5: expected spaces for indentation, got a tab; replace it by spaces",
    ),
    "list at the top": (
        "- study\n",
        "study.yaml:1: expected a mapping of keys to values, got a list of 1; begin with 'study: <name>'",
    ),
    "text at the top": (
        "small\n",
        "study.yaml:1: expected a mapping of keys to values, got the text 'small'; begin with 'study: <name>'",
    ),
    "empty file": (
        "",
        "study.yaml:1: expected a mapping of keys to values, got an empty file; begin with 'study: <name>'",
    ),
    "two documents": (
        GOOD + "---\n" + GOOD,
        "study.yaml:10: expected one document, got a second; remove the line '---'",
    ),
    "number as a key": (
        changed("unet: {}", "1: {}"),
        "study.yaml:5: variants: expected text as a key, got 1; quote it",
    ),
    "list as a key": (
        changed("unet: {}", "[a]: {}"),
        "study.yaml:5: variants: expected text as a key, got a list or a mapping",
    ),
    "unclosed bracket": (
        changed("seeds: 2", "seeds: [2"),
        "study.yaml:9: expected valid YAML, got: expected ',' or ']', but got ':'",
    ),
    "2,000 levels": (
        named("[" * 2000),
        "study.yaml:1: expected at most 30 levels of nesting, got more",
    ),
    "25,000 values": (
        changed("seeds: 2", f"seeds: [{'0,' * 25_000}]"),
        "study.yaml:8: expected at most 20,000 values, got more",
    ),
    "a mebibyte": (
        GOOD + "#" * MAX_BYTES,
        f"study.yaml: expected a file of at most 1,048,576 bytes, got {MAX_BYTES + 1:,}",
    ),
    "broken escape": (
        named('"\\UFFFFFFFF"'),
        "study.yaml:1: expected valid YAML, got an escape or a directive out of range",
    ),
}

BYTES = {
    "bad UTF-8": (
        GOOD.encode() + b"# \xff\n",
        f"study.yaml:10: expected UTF-8 text, got the byte 0xff at offset {len(GOOD) + 2}; save the file as UTF-8",
    ),
    "NUL": (
        GOOD.encode() + b"# \x00\n",
        f"study.yaml:10: expected printable text, got the character U+0000 at offset {len(GOOD) + 2}",
    ),
}

KEYS = {
    "unknown key": (
        GOOD + "sedes: 3\n",
        "study.yaml:10: sedes: expected a known key, got an unknown one; did you mean 'seeds'?",
    ),
    "unknown field of train": (
        train("epoch: 3"),
        "study.yaml:9: train.epoch: expected a known key, got an unknown one; did you mean 'epochs'?",
    ),
    "missing name": (
        GOOD.replace("study: small\n", ""),
        "study.yaml:1: study: expected a value, got none; add the key",
    ),
    "missing name of the data": (
        changed("{name: street, ", "{"),
        "study.yaml:2: data.name: expected a value, got none; add the key",
    ),
    "unknown data set": (
        changed("street", "streets"),
        "study.yaml:2: data.name: expected a registered data set, got the text 'streets'; did you mean 'street'?",
    ),
    "unknown model": (
        changed("name: unet", "name: unnet"),
        "study.yaml:3: model.name: expected a registered model, got the text 'unnet'; did you mean 'unet'?",
    ),
    "a key of train at the top": (
        GOOD + "epochs: 3\n",
        "study.yaml:10: epochs: expected a known key, got an unknown one; did you mean 'train.epochs'?",
    ),
    "unknown setting of the model": (
        changed("width: 4", "widht: 4"),
        "study.yaml:3: model.widht: expected a setting of the model 'unet', got an unknown key; did you mean 'width'?",
    ),
    "unknown setting of a variant": (
        changed("{skip: none}", "{skp: none}"),
        "study.yaml:6: variants.noskip.skp: expected a setting of the model 'unet', got an unknown key; "
        "did you mean 'skip'?",
    ),
    "unknown choice": (
        changed("{skip: none}", "{skip: concatt}"),
        "study.yaml:6: variants.noskip.skip: expected 'concat', 'none' or 'attention', got the text 'concatt'; "
        "did you mean 'concat'?",
    ),
    "text for a width": (
        changed("width: 4", "width: wide"),
        "study.yaml:3: model.width: expected a number, got the text 'wide'",
    ),
    "one value of two": (
        changed("size: [32, 48]", "size: [32]"),
        "study.yaml:2: data.size: expected at least 2 values, got a list of 1",
    ),
    "three values of two": (
        changed("size: [32, 48]", "size: [32, 48, 3]"),
        "study.yaml:2: data.size: expected at most 2 values, got a list of 3",
    ),
    "an executor that is not there": (
        GOOD + "run: {executor: dask}\n",
        "study.yaml:10: run.executor: expected 'local', 'slurm' or 'ray', got the text 'dask'; "
        "choose from local, ray, slurm",
    ),
    "what this version does not run": (
        GOOD + "prune: {pruner: median}\n",
        "study.yaml:10: prune: not run by this version; leave it out: every trial is trained to its end",
    ),
    "unknown optimizer": (
        train("optimizer: adm"),
        "study.yaml:9: train.optimizer: expected a registered optimizer, got the text 'adm'; did you mean 'adam'?",
    ),
    "unknown baseline": (
        GOOD + "baseline: no_skip\n",
        "study.yaml:10: baseline: expected a variant of the study, got the text 'no_skip'; did you mean 'noskip'?",
    ),
    "mapping wanted": (
        changed("train: {epochs: 2, batch_size: 4}", "train: 3"),
        "study.yaml:9: train: expected a mapping, got 3",
    ),
    "a key named like a secret": (
        GOOD + "track: {wandb_api_key: 0123abcd}\n",
        "study.yaml:10: track.wandb_api_key: expected no secret in a study file, got a key named like one; "
        "put it into the environment, such as WANDB_API_KEY",
    ),
    "a password in a URL": (
        GOOD + "run: {storage: 'postgresql://ann:pass@host/db'}\n",
        "study.yaml:10: run.storage: expected a URL without a password, got one with it; "
        "put it into the environment (PGPASSWORD) or ~/.pgpass",
    ),
}

PLAN = {
    "no seeds": (
        changed("seeds: 2", "seeds: []"),
        "study.yaml:8: seeds: expected at least one seed, got an empty list",
    ),
    "zero seeds": (changed("seeds: 2", "seeds: 0"), "study.yaml:8: seeds: expected a number > 0, got 0"),
    "true for seeds": (
        changed("seeds: 2", "seeds: true"),
        "study.yaml:8: seeds: expected an integer or a list, got true",
    ),
    "negative seed": (changed("seeds: 2", "seeds: [-1]"), "study.yaml:8: seeds[0]: expected a number >= 0, got -1"),
    "seed of 2^32": (
        changed("seeds: 2", "seeds: [4294967296]"),
        "study.yaml:8: seeds[0]: expected a number < 4294967296, got 4294967296",
    ),
    "repeated seed": (
        changed("seeds: 2", "seeds: [0, 1, 0]"),
        "study.yaml:8: seeds[2]: expected every seed once, got 0 again (first at [0])",
    ),
    "repeated level": (
        grid("[1e-3, 0.001]"),
        "study.yaml:7: grid.lr[1]: expected every level once, got 0.001 again (first at [0])",
    ),
    "no levels": (grid("[]"), "study.yaml:7: grid.lr: expected at least one level, got an empty list"),
    "a level without its list": (grid("1e-3"), "study.yaml:7: grid.lr: expected a list, got 0.001; write [0.001]"),
    "unknown axis": (
        changed("grid: {lr:", "grid: {lrr:"),
        "study.yaml:7: grid.lrr: expected a field of train, got an unknown one; did you mean 'lr'?",
    ),
    "an axis of the model without its prefix": (
        changed("grid: {lr: [1e-3, 3e-4]}", "grid: {width: [4, 8]}"),
        "study.yaml:7: grid.width: expected a field of train, got a setting of the model; write model.width",
    ),
    "an axis of the data": (
        changed("grid: {lr: [1e-3, 3e-4]}", "grid: {data.train: [4, 8]}"),
        "study.yaml:7: grid.data.train: expected a field of train or of model, got one of data, "
        "which the variants may differ in; write factors: {data.train: [...]}",
    ),
    "an axis twice": (
        changed("grid: {lr: [1e-3, 3e-4]}", "grid: {lr: [1e-3], train.lr: [3e-4]}"),
        "study.yaml:7: grid.train.lr: expected every axis once, got 'lr' twice",
    ),
    "a level of the wrong type inside a group": (
        changed("grid: {lr: [1e-3, 3e-4]}", "grid: {augment.flip: [1]}"),
        "study.yaml:7: grid.augment.flip[0]: expected true or false, got 1",
    ),
    "grid over the limit": (
        changed("seeds: 2", "seeds: 1000000000"),
        "study.yaml:7: grid: expected at most 100,000 trials, got 4,000,000,000",
    ),
    "identical variants": (
        changed("{skip: none}", "{skip: concat}"),
        "study.yaml:6: variants.noskip: expected settings of its own, got those of 'unet'; "
        "remove one, or write control: true for an A/A copy",
    ),
    "a control of nothing": (
        changed("{skip: none}", "{skip: none, control: true}"),
        "study.yaml:6: variants.noskip.control: expected the settings of another variant (an A/A copy), "
        "got different ones; remove control, or its differences",
    ),
    "a variant against the grid": (
        changed("{skip: none}", "{skip: none, train: {lr: 1e-2}}"),
        "study.yaml:6: variants.noskip.train.lr: expected the grid alone to set 'lr', got it here too; "
        "remove it here or from the grid",
    ),
    "a wrong confound": (
        changed("{skip: none}", "{skip: none, train: {weight_decay: -1}}"),
        "study.yaml:6: variants.noskip.train.weight_decay: expected a number >= 0, got -1",
    ),
    "grid and search": (
        GOOD + "search: {space: {lr: {low: 1e-5, high: 1e-2, log: true}}}\n",
        "study.yaml:10: search: expected either grid or search, got both; remove one of the two",
    ),
    "seeds and screen": (
        GOOD + "screen: {}\n",
        "study.yaml:8: seeds: expected either seeds for every cell or screen, got both; remove one of the two",
    ),
    "a screened search": (
        changed("grid: {lr: [1e-3, 3e-4]}\nseeds: 2", "search: {space: {lr: {low: 1e-4, high: 1e-2}}}\nscreen: {}"),
        "study.yaml:8: screen: expected a grid to screen, got a search, which has a budget of its own; "
        "write seeds: 1 beside search",
    ),
    "one setting screened again": (
        changed("seeds: 2", "screen: {again: 1}"),
        "study.yaml:8: screen: expected again of 0 or at least 2, got 1: nothing is left to choose; write again: 2",
    ),
    "until without looks": (
        GOOD + "confirm: {until: decided}\n",
        "study.yaml:10: confirm: expected looks beside until: decided, got none; write looks: [4, 8, 12, 16]",
    ),
    "until something else": (
        GOOD + "confirm: {until: soon, looks: [4, 8]}\n",
        "study.yaml:10: confirm.until: expected 'decided', got the text 'soon'; choose from decided",
    ),
    "looks that do not rise": (
        GOOD + "confirm: {until: decided, looks: [4, 8, 8]}\n",
        "study.yaml:10: confirm: expected looks that rise, got [4, 8, 8]",
    ),
    "a look at one seed": (
        GOOD + "confirm: {until: decided, looks: [1, 4]}\n",
        "study.yaml:10: confirm.looks[0]: expected a number >= 2, got 1",
    ),
    "looks that are no list": (
        GOOD + "confirm: {until: decided, looks: 4}\n",
        "study.yaml:10: confirm.looks: expected a list, got 4; write [4]",
    ),
    "at most no look": (
        GOOD + "confirm: {until: decided, looks: [4, 8], at_most: 6}\n",
        "study.yaml:10: confirm: expected at_most to be one of the looks [4, 8], got 6",
    ),
    "seeds until decided": (
        GOOD + "confirm: {seeds: 6, until: decided, looks: [4, 8]}\n",
        "study.yaml:10: confirm: expected either seeds or until: decided, got both; remove one of the two",
    ),
    "futility of fixed seeds": (
        GOOD + "confirm: {seeds: 6, futility: 0.02}\n",
        "study.yaml:10: confirm: expected until: decided beside futility, got none; write until: decided",
    ),
    "looks without until": (
        GOOD + "confirm: {looks: [4, 8]}\n",
        "study.yaml:10: confirm: expected until: decided beside looks, got none; write until: decided",
    ),
    "excluded level that is none": (
        GOOD + "exclude: [{lr: 5e-4}]\n",
        "study.yaml:10: exclude[0].lr: expected a level of 'lr', got 0.0005; the levels are [0.001, 0.0003]",
    ),
    "everything of the baseline excluded": (
        GOOD + "exclude: [{variant: unet}]\n",
        "study.yaml:10: exclude: expected trials of the baseline 'unet' to be left, got none",
    ),
}

NAMES = {
    "../x": "expected a name of letters, digits, '_', '-', '+' and '.', got the text '../x'; write 'x'",
    "/x": "expected a name of letters, digits, '_', '-', '+' and '.', got the text '/x'; write 'x'",
    "a b": "expected a name of letters, digits, '_', '-', '+' and '.', got the text 'a b'; write 'a-b'",
    "<script>": "expected a name of letters, digits, '_', '-', '+' and '.', got the text '<script>'; write 'script'",
    "x.": "expected a name that does not end in a dot, got the text 'x.'",
    "CON": "expected a name that is no device on Windows, got the text 'CON'",
    "lpt1.txt": "expected a name that is no device on Windows, got the text 'lpt1.txt'",
    "x" * 65: "expected a name of at most 64 characters, got one of 65",
}

CLAIMS = {
    "unknown variant": (
        "{metric: rise, left: nosip, op: '>', right: unet}",
        "claims[0].left: expected a variant of the study, got the text 'nosip'; did you mean 'noskip'?",
    ),
    "unknown word for a variant": (
        "{metric: convergence, variant: every, expect: converged}",
        "claims[0].variant: expected a variant of the study, got the text 'every'; choose from all, any, noskip, unet",
    ),
    "against itself": (
        "{metric: rise, left: unet, op: '>', right: unet}",
        "claims[0].right: expected another variant than left, got the text 'unet'",
    ),
    "half a comparison": (
        "{metric: rise, left: unet, op: '>'}",
        "claims[0]: expected left, op and right together, got only some of them",
    ),
    "nothing stated": (
        "{metric: rise}",
        "claims[0]: expected left, op, right, or variant with expect or op and value, got neither",
    ),
    "unknown operator": (
        "{metric: rise, left: unet, op: '=>', right: noskip}",
        "claims[0].op: expected '<', '>', '<=' or '>=', got the text '=>'; did you mean '>'?",
    ),
    "unknown axis": (
        "{metric: rise, left: unet, op: '>', right: noskip, where: {lrr: 1e-3}}",
        "claims[0].where.lrr: expected an axis of the grid, got an unknown one; did you mean 'lr'?",
    ),
    "condition that is none": (
        "{metric: rise, left: unet, op: '>', right: noskip, where: {lr: '>=high'}}",
        "claims[0].where.lr: expected a condition such as '>=5e-4', got '>=high'",
    ),
    "condition that no level fulfils": (
        "{metric: rise, left: unet, op: '>', right: noskip, where: {lr: '>1e-2'}}",
        "claims[0].where.lr: expected a condition that a level of the grid fulfils, got the text '>1e-2'; "
        "the levels are 0.001, 0.0003",
    ),
    "an id twice": (
        "{id: a, metric: rise, left: unet, op: '>', right: noskip}, {id: a, metric: convergence, variant: any, "
        "expect: converged}",
        "claims[1].id: expected every id once, got it again (first at claims[0])",
    ),
    "unknown metric": (
        "{metric: test/mean_iuo, left: noskip, op: '<', right: unet}",
        "claims[0].metric: expected a metric, got the text 'test/mean_iuo'; did you mean 'test/mean_iou'?",
    ),
    "metric like no other": (
        "{metric: beauty, left: noskip, op: '<', right: unet}",
        "claims[0].metric: expected a metric, got the text 'beauty'; choose from test/mean_iou, iou/<class>, "
        "thin_recall, boundary_iou, rise, convergence, diverged, …",
    ),
    "unknown class": (
        "{metric: test/iou/Fense, left: noskip, op: '<', right: unet}",
        "claims[0].metric: expected a class of the data set, got the text 'Fense'; did you mean 'Fence'?",
    ),
    "detail of val": (
        "{metric: val/thin_recall, left: noskip, op: '<', right: unet}",
        "claims[0].metric: expected fine detail of the test split (val keeps no predictions), got that of val; "
        "write test/thin_recall",
    ),
    "measured once": (
        "{metric: peak_memory_bytes, left: noskip, op: '<', right: unet}",
        "claims[0].metric: expected a metric with an interval, got 'peak_memory_bytes', which is measured once",
    ),
    "unknown verdict": (
        "{metric: convergence, variant: any, expect: done}",
        "claims[0].expect: expected 'under-converged' or 'converged', got the text 'done'",
    ),
    "verdict of a number": (
        "{metric: rise, variant: any, expect: stable}",
        "claims[0].expect: expected op and value for 'rise', which has no verdict, got the text 'stable'",
    ),
    "number of a verdict": (
        "{metric: convergence, variant: unet, op: '>', value: 1}",
        "claims[0].metric: expected convergence of a variant with expect, got a comparison; "
        "write variant, expect: under-converged",
    ),
    "margin of a rise": (
        "{metric: rise, left: noskip, op: '>', right: unet, margin: 1}",
        "claims[0].margin: expected a factor for 'rise', which may be infinite, got a margin; write factor",
    ),
    "factor of a share": (
        "{metric: diverged, left: noskip, op: '>', right: unet, factor: 2}",
        "claims[0].factor: expected a margin for a share of seeds, got a factor; write margin",
    ),
    "a rate at a setting": (
        "{metric: parameters, left: noskip, op: '<', right: unet, where: {lr: 1e-3}}",
        "claims[0].where: expected no condition for 'parameters', which does not depend on the setting, got one",
    ),
}

CURES = {
    "off for disabled": (
        GOOD + "track: {wandb: off}\n",
        "study.yaml:10: track.wandb: expected 'auto', 'offline', 'online' or 'disabled', got the text 'off'; "
        "write 'disabled'",
    ),
    "a number for a name": (named("2024"), 'study.yaml:1: study: expected text, got 2024; quote it: "2024"'),
    "one number for a size": (
        changed("size: [32, 48]", "size: 64"),
        "study.yaml:2: data.size: expected a list, got 64; write [64, 64]",
    ),
    "a colour without quotes": (
        GOOD + "claims: {ground: #000000, thing: #ffffff}\n",
        'study.yaml:10: expected a value, got a comment, which a # begins; quote a colour: "#000000"',
    ),
    "the larger factor first": (
        train("augment: {scale: [2, 1]}"),
        "study.yaml:9: train.augment.scale: expected the smaller factor first, got [2, 1]",
    ),
    "no device": (
        GOOD + "run: {devices: []}\n",
        "study.yaml:10: run.devices: expected at least one value, got an empty list",
    ),
    "a storage that is no URL": (
        GOOD + "run: {storage: optuna.db}\n",
        "study.yaml:10: run.storage: expected the URL of a database, got the text 'optuna.db'; "
        "write, for example, sqlite:///optuna.db",
    ),
    "a storage of another kind": (
        GOOD + "run: {storage: 'https://x/y'}\n",
        "study.yaml:10: run.storage: expected the URL of a database, got the text 'https://x/y'; "
        "write, for example, sqlite:///optuna.db",
    ),
    "a password in a query": (
        GOOD + "run: {storage: 'mysql://host/db?password=hunter2'}\n",
        "study.yaml:10: run.storage: expected a URL without a password, got one with it; "
        "put it into the environment (PGPASSWORD) or ~/.pgpass",
    ),
}
FOLDER = "data: {name: folder, root: x, images: '*.png', masks: '*_m.png', size: [32, 48], classes: CLASSES}"


def folder(classes: str) -> str:
    return changed(
        "data: {name: street, size: [32, 48], train: 8, val: 4, test: 4}", FOLDER.replace("CLASSES", classes)
    )


TURNED = {
    "value: name": (
        folder("{0: ground}"),
        "study.yaml:2: data.classes: expected text as a key, got 0; "
        "write every name before its value: {ground: 0, thing: 1}",
    ),
    "value: name, quoted": (
        folder('{"0": ground, "255": thing, "7": other}'),
        "study.yaml:2: data.classes: expected the name of a class before its value, got the value first; "
        "write {ground: 0, thing: 255, …}",
    ),
}

FILES: dict[str, tuple[str | bytes, str]] = {**SCALARS, **FORM, **BYTES, **KEYS, **PLAN, **CURES, **TURNED}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.fault("S1", "one line with its place, what was expected and what is there")
@pytest.mark.fault("S2", "one line with its place, what was expected and what is there")
@pytest.mark.fault("S3", "one line with its place, what was expected and what is there")
@pytest.mark.fault("S4", "one line with its place, what was expected and what is there")
@pytest.mark.fault("S5", "one line with its place, what was expected and what is there")
@pytest.mark.fault("S6", "one line with its place, what was expected and what is there")
@pytest.mark.fault("S8", "one line with its place, what was expected and what is there")
def test_a_broken_file_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    text, message = FILES[name]
    assert problems(tmp_path, text) == [message]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.fault("S7", "refused, with a name that would do")
def test_a_study_cannot_be_called(name: str, tmp_path: Path) -> None:
    assert problems(tmp_path, named(f"'{name}'")) == [f"study.yaml:1: study: {NAMES[name]}"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.fault("S7", "refused, with a name that would do")
def test_a_variant_cannot_be_called(name: str, tmp_path: Path) -> None:
    (line,) = problems(tmp_path, changed("noskip:", f"'{name}':"))
    assert line.startswith("study.yaml:6: variants.")
    assert line.endswith(NAMES[name])


@pytest.mark.fault("S7", "refused where they differ by case only")
def test_variants_that_differ_by_case_only(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, changed("noskip:", "UNET:"))
    assert line == (
        "study.yaml:6: variants.UNET: expected names that differ in more than case, "
        "got the text 'UNET' beside the text 'unet'"
    )


def test_the_classes_of_a_folder_are_those_that_it_names(tmp_path: Path) -> None:
    data = (
        "data: {name: folder, root: x, images: '*.png', masks: '*_m.png', classes: {cell: 0, wall: 1}, size: [32, 48]}"
    )
    text = changed("data: {name: street, size: [32, 48], train: 8, val: 4, test: 4}", data)
    claim = "claims: [{metric: iou/%s, left: noskip, op: '<', right: unet}]\n"
    (line,) = problems(tmp_path, text + claim % "well")
    assert line.endswith("expected a class of the data set, got the text 'well'; did you mean 'wall'?")
    assert read_study(write(tmp_path, text + claim % "wall")).spec.claims


def test_a_search_has_no_grid_to_extend(tmp_path: Path) -> None:
    search = "search: {trials: 4, space: {lr: {low: 1e-4, high: 1e-2, log: true}}}\non_edge: extend"
    assert problems(tmp_path, changed("grid: {lr: [1e-3, 3e-4]}", search)) == [
        "study.yaml:8: on_edge: expected 'report' beside a search, which has no grid to extend, got 'extend'; "
        "widen search.space"
    ]


def test_a_search_has_no_setting_that_two_variants_share(tmp_path: Path) -> None:
    search = "search: {trials: 4, space: {lr: {low: 1e-4, high: 1e-2, log: true}}}"
    text = changed("grid: {lr: [1e-3, 3e-4]}", search)
    compared = "claims: [{metric: rise, left: noskip, op: '>', right: unet, where: {lr: '>=1e-3'}}]\n"
    assert problems(tmp_path, text + compared) == [
        "study.yaml:10: claims[0].where: expected no condition between two variants: a search tries other settings "
        "for each; remove where: each then stands at its own best"
    ]
    alone = "claims: [{metric: rise, variant: noskip, op: '>', value: 2, where: {lr: '>=1e-3'}}]\n"
    assert read_study(write(tmp_path, text + alone)).spec.claims


@pytest.mark.parametrize("name", CLAIMS)
def test_a_broken_claim(name: str, tmp_path: Path) -> None:
    claim, message = CLAIMS[name]
    assert problems(tmp_path, GOOD + f"claims: [{claim}]\n") == [f"study.yaml:10: {message}"]


@pytest.mark.fault("S3", "refused, alias by alias")
def test_alias_bomb_is_refused_alias_by_alias(tmp_path: Path) -> None:
    levels = [
        "a: &a [x, x]",
        *(f"{name}: &{name} [*{before}, *{before}]" for before, name in zip("abcd", "bcde", strict=True)),
    ]
    lines = problems(tmp_path, GOOD + "\n".join(levels) + "\n")
    assert "study.yaml:10: a: expected a plain value, got the anchor &a; write the value out" in lines
    assert "study.yaml:14: e[1]: expected a plain value, got the alias *d; write the value out" in lines


@pytest.mark.fault("S9", "all said at once, in the order of the file")
def test_all_problems_of_a_file_at_once_in_its_order(tmp_path: Path) -> None:
    text = """\
study: a/b
data: {name: street, sizes: [32, 48]}
model: {name: unet, width: "4"}
variants:
  unet: {}
  noskip: {skip: nothing}
baseline: uent
grid: {lr: [1e-3, "3e-4"], batch: [1]}
seeds: [0, 0, -1]
train: {epochs: 0, batchsize: 4}
claims: [{metric: rise, left: noskip, op: ">", right: unnet}]
"""
    assert [line.split(": expected")[0] for line in problems(tmp_path, text)] == [
        "study.yaml:1: study",
        "study.yaml:2: data.sizes",
        "study.yaml:3: model.width",
        "study.yaml:6: variants.noskip.skip",
        "study.yaml:7: baseline",
        "study.yaml:8: grid.lr[1]",
        "study.yaml:8: grid.batch",
        "study.yaml:9: seeds[2]",
        "study.yaml:10: train.epochs",
        "study.yaml:10: train.batchsize",
        "study.yaml:11: claims[0].right",
    ]


def test_a_hundred_problems_and_no_more(tmp_path: Path) -> None:
    lines = problems(tmp_path, grid(f"[{', '.join(str(-number) for number in range(1, 151))}]"))
    assert len(lines) == 101
    assert lines[-1] == "study.yaml: and 50 more problems"


@pytest.mark.fault("S8", "refused; the secret is not repeated")
def test_a_secret_is_never_repeated(tmp_path: Path) -> None:
    lines = problems(tmp_path, GOOD + "track: {token: hunter2}\n", ["run.password=hunter3", "track.api_key=hunter4"])
    assert len(lines) == 3
    assert "hunter" not in "\n".join(lines)


def test_a_file_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, name="benchmark.yaml")
    with pytest.raises(StudyError, match=r"benchmrk\.yaml: no such study file; did you mean 'benchmark\.yaml'\?$"):
        read_study(tmp_path / "benchmrk.yaml")
    with pytest.raises(StudyError, match="cannot be read"):
        read_study(tmp_path)


@pytest.mark.parametrize("key", ["workers", "threads"])
def test_more_than_the_machine_can_mean(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert problems(tmp_path, GOOD + f"run: {{{key}: 10000}}\n") == [
        f"study.yaml:10: run.{key}: expected at most 8, four for each of the 2 cores here, got 10,000; write auto"
    ]
    assert read_study(write(tmp_path, GOOD + f"run: {{{key}: 8}}\n")).spec.run
    # A report reads the study of a larger machine.
    assert read_study(write(tmp_path, GOOD + f"run: {{{key}: 64}}\n"), check_components=False).spec.run


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.class_weights=[1, 2, 3]", "train.class_weights: expected 2 weights, one a class, got 3"),
        ("train.crop=[64, 8]", "train.crop: expected a crop within the images of 32 × 48, got 64 × 8"),
        ("grid.crop=[[8, 8], [8, 64]]", "grid.crop: expected a crop within the images of 32 × 48, got 8 × 64"),
        (
            "variants.noskip.train={class_weights: [1]}",
            "variants.noskip.train.class_weights: expected 2 weights, one a class, got 1",
        ),
    ],
)
def test_settings_that_the_data_contradict(override: str, message: str, tmp_path: Path) -> None:
    study = read_study(write(tmp_path), [override])
    with pytest.raises(StudyError) as caught, study.located():
        study.check_data(2, (32, 48))
    assert str(caught.value) == f"-o {override}: {message}"


def test_settings_that_the_data_allow(tmp_path: Path) -> None:
    study = read_study(write(tmp_path), ["train.crop=[32, 8]", "train.class_weights=[1, 2]"])
    study.check_data(2, (32, 48))


def test_a_name_has_a_length_in_bytes(tmp_path: Path) -> None:
    assert problems(tmp_path, named("漢" * 43)) == [
        "study.yaml:1: study: expected a name of at most 128 bytes, got one of 129"
    ]
    assert read_study(write(tmp_path, named("漢" * 42))).name == "漢" * 42


def test_a_model_that_no_plugin_brought(tmp_path: Path) -> None:
    (line, *_) = problems(tmp_path, changed("name: unet", "name: segformer"))
    assert line.startswith("study.yaml:3: model.name: expected a registered model, got the text 'segformer'; choose ")
    assert line.endswith("; one of your own is loaded by --plugin FILE.py")
