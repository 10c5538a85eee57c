"""Fill the tables of `docs/original-report.md` from the published studies: `python -m benchmarks.original_report`.

The page's words stand in the page. Its numbers stand between marks, `<!-- NAME -->` and `<!-- end -->`, and come from
the tables and records below `results/published/`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

import ablate
from ablate.analysis.frames import Frames
from benchmarks.tables import table

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED, PAGE = ROOT / "results" / "published", ROOT / "docs" / "original-report.md"
# The studies that judge the report's sentences, in the order of their weight.
JUDGES = ("unet-camvid-small", "unet-street", "unet-ablation")
# Many runs at the report's rates alone: what its sentences on rates ask for.
MANY_RUNS = ("rates",)
# One run of each at the report's image size and number of epochs: nothing to decide by, but to be seen.
FULL_SIZE = ("unet-camvid-w32-h200",)
REPORTS_RATES = (1e-3, 5e-4, 3e-4, 1e-4)
ROSE = 1.1
_MARK = re.compile(r"<!-- ([a-z]+) -->\n.*?<!-- end -->", re.DOTALL)


@dataclass(frozen=True)
class Published:
    """A published study: its tables as data frames, its records."""

    name: str
    folder: Path

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of the published report; empty where it has none of that name."""
        path = self.folder / "tables" / f"{name}.csv"
        return pd.read_csv(path) if path.exists() else pd.DataFrame()

    @cached_property
    def claims(self) -> pd.DataFrame:
        """The claims with their verdicts; what is `said` and `found` in words stands in the Markdown of the table."""
        path = self.folder / "tables" / "claims.md"
        if not path.exists():
            return pd.DataFrame()
        text = path.read_text(encoding="utf-8")
        rows = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
        said, _, found, _ = zip(*rows, strict=True)
        return self.table("claims").assign(says=said, found=found)

    @cached_property
    def frames(self) -> Frames:
        """The records of the study."""
        return ablate.load_results(self.folder)

    @cached_property
    def primary(self) -> pd.DataFrame:
        """The contrasts that decide."""
        contrasts = self.table("contrasts")
        return contrasts[contrasts["primary"]]

    @cached_property
    def on_edge(self) -> set[str]:
        """The variants whose best rate is the highest or the lowest tried."""
        variants = self.table("learning_rate")
        return set(variants.loc[variants["bracket"].notna(), "variant"])

    @property
    def link(self) -> str:
        """The study's name as a link to its page."""
        return f"[`{self.name}`](../results/published/{self.name}/report.html)"


def published(folder: Path, names: Sequence[str]) -> list[Published]:
    """Return those of the studies that have been published, with their tables."""
    return [Published(name, folder / name) for name in names if (folder / name / "tables" / "contrasts.csv").exists()]


def points(value: float, low: float, high: float) -> str:
    """Return a difference of fractions in points, with its interval where there is one."""
    interval = f" [{100 * low:+.1f}, {100 * high:+.1f}]" if pd.notna(low) else ""
    return f"{100 * value:+.1f}{interval}".replace("-", "−")


def judged(studies: Sequence[Published], *claims: str) -> str:
    """Return the verdict on claims of the studies (all by default), each with its number, as a table."""
    rows = []
    for study in studies:
        for claim in study.claims.to_dict("records"):
            if claims and claim["id"] not in claims:
                continue
            rows.append([study.link, claim["says"], f"**{claim['verdict']}**", claim["found"], str(claim["n"])])
    return table(["study", "claim", "verdict", "found", "seeds"], rows) + "\n\nFrom `tables/claims.md`."


def rises(studies: Sequence[Published]) -> str:
    """Return how many runs rose, for every rate of the report and above, as a table."""
    rows = []
    for study in studies:
        trials = study.frames.trials
        trials = trials[trials["lr"].ge(min(REPORTS_RATES)) & trials["rise"].notna()]
        for _, cell in trials.groupby(["variant", "lr"], sort=False):
            rows.append((study, str(cell["variant"].iloc[0]), float(cell["lr"].iloc[0]), cell["rise"]))
    rates = sorted({lr for _, _, lr, _ in rows}, reverse=True)
    body = []
    for study in studies:
        for variant in dict.fromkeys(variant for one, variant, _, _ in rows if one is study):
            found = {lr: rise for one, name, lr, rise in rows if one is study and name == variant}
            cells = [
                f"{(found[lr] > ROSE).sum()}/{len(found[lr])}, {found[lr].max():.2f}" if lr in found else "–"
                for lr in rates
            ]
            body.append([study.link, str(variant), *cells])
    return table(["study", "variant", *(f"{lr:g}" for lr in rates)], body) + (
        f"\n\nRuns whose loss rose above {ROSE} times its lowest epoch before, of how many, and the largest rise\n"
        "(1: never rose). From `rise` of the records."
    )


def by_rate(study: Published) -> str:
    """Return val mIoU of every variant at every rate, with its convergence, as a table."""
    cells = study.table("cells")
    rates = sorted(cells["lr"].unique(), reverse=True)
    body = []
    for variant, part in cells.groupby("variant", sort=False):
        val = part.set_index("lr")["val_mean"]
        shown = {lr: f"{100 * val[lr]:.1f}" for lr in rates}
        body.append([str(variant), *(f"**{text}**" if lr == val.idxmax() else text for lr, text in shown.items())])
    return f"{study.link}, val mIoU in %:\n\n" + table(["variant", *(f"{lr:g}" for lr in rates)], body)


def converged(studies: Sequence[Published]) -> str:
    """Return what each variant had still to gain at its chosen rate and at the report's lowest, as a table."""
    rows = []
    for study in studies:
        cells, convergence = study.table("cells"), study.table("convergence")
        for variant, part in cells.groupby("variant", sort=False):
            best = part[part["own_best"]]["lr"].tolist()
            for lr in [*best, *(rate for rate in (3e-4, 1e-4) if rate not in best)]:
                one = convergence[(convergence["variant"] == variant) & np.isclose(convergence["lr"], lr)]
                for row in one.to_dict("records"):
                    gain = points(row["gain"], row["low"], row["high"])
                    rate = f"{lr:g}{' (chosen)' if lr in best else ''}"
                    rows.append([study.link, str(variant), rate, row["verdict"], gain, str(row["n"])])
    return table(["study", "variant", "lr", "convergence", "gain to come, points", "seeds"], rows) + (
        "\n\nFrom `tables/convergence.csv`; [`methods.md`](methods.md#4-convergence-at-the-epoch-budget) defines it."
    )


def decided(studies: Sequence[Published]) -> str:
    """Return the decision of every contrast, as a table."""
    rows = [
        [
            study.link, f"{row['variant']} − {row['against']}", points(row["delta"], row["low"], row["high"]),
            f"{row['p_holm']:.2g}", f"**{row['decision']}**", f"{row['lr']:g} and {row['against_lr']:g}",
            "no" if study.on_edge & {row["variant"], row["against"]} else "yes", f"{row['n']} and {row['n_against']}",
        ]
        for study in studies
        for row in study.primary.to_dict("records")
    ]  # fmt: skip
    head = ["study", "contrast", "test mIoU, points", "p (Holm)", "decision", "rates", "bracketed", "seeds"]
    return table(head, rows) + "\n\nFrom the primary rows of `tables/contrasts.csv`."


def detail(studies: Sequence[Published]) -> str:
    """Return what no-skip loses of fine detail beyond what it loses inside of regions, as a table."""
    wanted = {"boundary_3": "boundary IoU, 3 px", "thin_3": "thin recall, 3 px", "excess_boundary": "boundary, excess",
              "excess_thin": "thin things, excess"}  # fmt: skip
    rows = []
    for study in studies:
        frame = study.table("detail")
        for row in frame[frame["variant"].eq("noskip") & frame["measure"].isin(wanted)].to_dict("records"):
            excess = row["measure"].startswith("excess")
            found = points(row["delta"], row["low"], row["high"])
            if excess:
                found = f"× {np.exp(row['delta']):.2f} [{np.exp(row['low']):.2f}, {np.exp(row['high']):.2f}]"
            rows.append([study.link, wanted[row["measure"]], found, str(row["verdict"]), str(row["n"])])
    return table(["study", "measure", "noskip − unet", "detail is", "seeds"], rows) + (
        "\n\nIn points; an excess is a ratio to what is lost in the interior of regions: below 1, detail is lost\n"
        "beyond what is lost everywhere. From `tables/detail.csv`."
    )


def gradient_shares(studies: Sequence[Published]) -> str:
    """Return the share of the encoder's gradient that comes through the skips, where there are any, as a table."""
    rows = []
    for study in studies:
        layers = study.frames.layers
        layers = layers[layers["measure"].eq("skip_share") & layers["layer"].str.startswith("encoder.")]
        layers = layers[layers["value"] > 0]
        layers = layers.assign(level=layers["layer"].str.split(".").str[1])
        for variant, part in layers.groupby("variant", sort=False):
            share = part.groupby("level")["value"].mean()
            rows.append([study.link, str(variant), *(f"{value:.2f}" for value in share)])
    levels = max((len(row) for row in rows), default=2) - 2
    return table(["study", "variant", *(f"level {level}" for level in range(levels))], rows) + (
        "\n\nMean over the probed epochs, runs and rates; level 0 is the full resolution.\n"
        "From `skip_share` of the records."
    )


def gates(studies: Sequence[Published]) -> str:
    """Return what the gates' attention is worth: the change of mIoU when each is replaced by its mean, as a table."""
    rows = []
    for study in studies:
        for row in study.table("gate_ablation").to_dict("records"):
            if row["gate"] == "all" and pd.notna(row["low"]):
                rows.append([study.link, row["variant"], points(row["delta"], row["low"], row["high"]), str(row["n"])])
    return table(["study", "variant", "gates flattened, test mIoU in points", "seeds"], rows) + (
        "\n\nEvery gate's map replaced by its mean over the image. From `tables/gate_ablation.csv`."
    )


def tables_of(folder: Path) -> dict[str, str]:
    """Return the tables of the page by the name of their mark."""
    studies = published(folder, JUDGES)
    more = published(folder, ("components", "capacity"))
    many, full = published(folder, MANY_RUNS), published(folder, FULL_SIZE)
    long = [study for study in studies if study.name != "unet-ablation"] or studies
    return {
        "summary": summary([*many, *studies]),
        "decided": decided([*studies, *more, *many]),
        "unstable": judged([*many, *studies], "high-rates-are-unstable", "most-without-skips"),
        "rises": rises([*many, *studies, *full]),
        "slow": judged([*many, *studies], "no-convergence-at-1e-4"),
        "converged": converged([*many, *long]),
        "rates": "\n\n".join(by_rate(study) for study in [*many, *long]),
        "fullsize": "\n\n".join(f"{by_rate(study)}\n\n{judged([study])}" for study in full),
        "noskip": judged(studies, "skips-keep-thin-things", "skips-keep-the-fence", "skips-matter"),
        "detail": detail(studies),
        "capacity": judged(more, "width-does-not-replace-skips", "as-many-parameters"),
        "gradients": gradient_shares(long),
        "attention": judged(studies, "attention-is-better", "attention-sees-the-car"),
        "gates": gates(studies),
        "cost": judged([*studies, *full], "attention-is-cheap", "attention-is-small"),
        "unsupported": unsupported([*many, *studies]),
    }


def filled(page: str, tables: Mapping[str, str]) -> str:
    """Return the page with the tables between their marks. Raises `KeyError` for a mark that names none."""
    return _MARK.sub(lambda mark: f"<!-- {mark[1]} -->\n{tables[mark[1]]}\n<!-- end -->", page)


def verdicts(studies: Sequence[Published]) -> dict[str, dict[str, str]]:
    """Return for every claim, in words, its verdict in each study that makes it."""
    found: dict[str, dict[str, str]] = {}
    for study in studies:
        for claim in study.claims.to_dict("records"):
            found.setdefault(claim["says"], {})[study.link] = claim["verdict"]
    return found


def summary(studies: Sequence[Published]) -> str:
    """Return the verdicts on every claim, study by study, as a table."""
    rows = [
        [says, *(f"**{found[study.link]}**" if study.link in found else "–" for study in studies)]
        for says, found in verdicts(studies).items()
    ]
    return table(["claim", *(study.link for study in studies)], rows) + "\n\nFrom `tables/claims.md`."


def unsupported(studies: Sequence[Published]) -> str:
    """Return a line for every claim that no study supports, with each study's verdict."""
    return "\n".join(
        f"- {says} – {', '.join(f'{verdict} in {link}' for link, verdict in found.items())}."
        for says, found in verdicts(studies).items()
        if "supported" not in found.values()
    )


def main() -> None:
    """Fill the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--published", type=Path, default=PUBLISHED, help="folder of the published studies")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    page = arguments.page.read_text(encoding="utf-8")
    arguments.page.write_text(filled(page, tables_of(arguments.published)), encoding="utf-8")


if __name__ == "__main__":
    main()
