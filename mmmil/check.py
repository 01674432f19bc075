"""A look at a study's data before anything is fitted: what is there, what contradicts itself, what was left out.

`mmmil.sources.findings` has the rule of what is an error and what is a finding. No slide is tiled and no model is made.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mmmil.cohort import build as cohorts
from mmmil.cohort import findings as cohort_findings
from mmmil.cohort import flow, inventory
from mmmil.genes import by_class, profiles
from mmmil.genes import findings as gene_findings
from mmmil.params import Params, root
from mmmil.simulate import at_hand
from mmmil.slides import colours, feature_findings
from mmmil.slides import features as slide_features
from mmmil.slides import findings as slide_findings
from mmmil.sources import findings
from mmmil.sources.findings import Finding
from mmmil.tables import frames

EXCLUDED = ["step", "reason", "n"]
CONFOUNDED = ["check", "text", "remedy"]
COLOUR = "colour by class"


@dataclass(repr=False)
class Look:
    """What a look found. counts: {what: number or words}; errors: messages that stop a run; findings: those that do
    not; excluded: what was left out, columns step, reason, n. On a page it shows itself as tables, elsewhere as lines.
    """

    counts: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    excluded: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=EXCLUDED))

    @property
    def table(self) -> pd.DataFrame:
        """The findings, columns check, file, place, text, remedy."""
        return findings.table(self.findings)

    @property
    def verdict(self) -> str:
        """How many errors and findings there are."""
        named = ((self.errors, "error"), (self.findings, "finding"))
        return ", ".join(f"{len(what) or 'no'} {name}{'s' * (len(what) > 1)}" for what, name in named)

    def __repr__(self) -> str:
        lines = [f"{what}: {_shown(value)}" for what, value in self.counts.items()]
        lines += [f"left out, {row.step}: {row.n} x {row.reason}" for row in self.excluded.itertuples()]
        for finding in self.findings:
            where = ", ".join(part for part in (finding.file, finding.place) if part)
            lines += ["", f"finding ({finding.check}): {where + ': ' if where else ''}{finding.text}; {finding.remedy}"]
        for error in self.errors:
            lines += ["", f"error: {error}"]
        return "\n".join([*lines, "", self.verdict])

    def _repr_html_(self) -> str:
        counted = pd.DataFrame({"what": list(self.counts), "found": map(_shown, self.counts.values())})
        parts = [f"<p>{self.verdict}</p>", *(f"<pre>{html.escape(error)}</pre>" for error in self.errors)]
        parts += [frames.table(self.table)] if self.findings else []
        return "".join([*parts, frames.table(counted)])

    def attempt(self, step: Callable[[], Any]) -> Any:
        """What a step of the look gives; None where the data are wrong, which is noted."""
        try:
            return step()
        except (ValueError, RuntimeError) as error:
            self.errors.append(str(error))
            return None


def look(p: Params, workers: int = 1) -> Look:
    """Look at everything that a task reads; errors are gathered, so that one call names all that can be named.

    What needs a step that failed is not looked at: without a cohort there are no slides to open. A synthetic cohort
    that is not there is made.
    """
    seen = Look()
    seen.attempt(lambda: at_hand.require(p))
    seen.attempt(p.require_files)
    cohort = None if seen.errors else seen.attempt(lambda: cohorts.build(p))
    if cohort is None:
        return _relative(seen, p)
    seen.counts["cohort"] = p.cohort
    _count_patients(seen, cohort, p)
    files = seen.attempt(lambda: inventory.look(cohort, p))
    if files is not None:
        sizes = files.drop_duplicates("path")
        seen.counts["files"] = f"{len(sizes):,}, {sizes['bytes'].sum() / 1e9:,.2f} GB"
    seen.findings += seen.attempt(lambda: cohort_findings.find(cohort, p)) or []
    for encoder, folder in p.feature_folders.items():
        of_encoder = cohort.features[cohort.features["encoder"] == encoder]
        features = seen.attempt(partial(slide_features.look, of_encoder))
        if features is not None:
            seen.counts |= feature_findings.counts(features, encoder, p.n_tiles)
            seen.findings += feature_findings.find(features, str(folder))
    if p.has_pixels:
        slides = seen.attempt(lambda: slide_findings.look(cohort.patients, p, workers))
        if slides is not None:
            seen.counts |= slide_findings.counts(slides).to_dict()
            found = slide_findings.find(cohort.patients, p, workers, slides)
            seen.errors += [f.text for f in found if f.check == slide_findings.ERROR]
            seen.findings += [f for f in found if f.check != slide_findings.ERROR]
    if p.has_genes:
        genes = seen.attempt(lambda: gene_findings.look(cohort.patients, p))
        if genes is not None:
            told = gene_findings.summary(genes)
            seen.counts |= {what: n for what, n in zip(told["what"], told["value"], strict=True) if what != "patients"}
            seen.findings += gene_findings.findings_of(genes)
    return _relative(seen, p)


def confounded(patients: pd.DataFrame, p: Params, tiles: pd.DataFrame | None = None) -> pd.DataFrame:
    """What tells a cohort's classes apart and need not be their disease; one row each, columns CONFOUNDED.

    It belongs beside every score of a model of this cohort. patients: as `Cohort.patients`; tiles: as
    `Study.tiles`, None where slides are not read as pixels.
    """
    found = cohort_findings.class_of_file(patients, p)
    found += by_class.find(patients, p) if p.has_genes else []
    if tiles is not None and set(patients["label"]) == {0, 1}:
        bags = tiles.set_index("patient_id")["bag"].loc[patients.index]
        found += _colour(patients["label"], colours.means(p, list(bags)), p)
    return findings.table(found)[CONFOUNDED]


def _colour(labels: pd.Series, means: np.ndarray, p: Params) -> list[Finding]:
    """Whether the mean colour of the tiles (patients, 3) tells the classes apart, by its most telling channel."""
    of_channel = dict(zip(colours.CHANNELS, means.T, strict=True))
    gaps = [(*profiles.class_gap(values, labels.tolist())[1:], name) for name, values in of_channel.items()]
    auc, chance, name = max(gaps, key=lambda gap: abs(gap[0] - 0.5))
    if not by_class.tells_apart(auc, len(gaps) * chance):  # of three channels the best: Bonferroni
        return []
    zero, one = p.class_names
    where = f"higher in {one if auc > 0.5 else zero}"
    text = f"the mean {name} of the tiles alone tells the classes apart with AUC {max(auc, 1 - auc):.2f} ({where}), as "
    text += "another stain or scanner does"
    return [Finding(COLOUR, text, "compare slides that were stained and scanned alike, or normalise them (`stain`)")]


def _relative(seen: Look, p: Params) -> Look:
    """The same with files named from `data_dir` on, as the parameters and tables name them."""
    folders = [os.path.abspath(p.data), str(p.data), str(root())]  # noqa: PTH100  links keep their names

    def shortened(text: str) -> str:
        for folder in folders:
            text = text.replace(f"{folder}/", "")
        return text

    seen.errors = [shortened(error) for error in seen.errors]
    names = ("text", "file", "place", "remedy")
    seen.findings = [replace(f, **{name: shortened(getattr(f, name)) for name in names}) for f in seen.findings]
    return seen


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _count_patients(seen: Look, cohort: cohorts.Cohort, p: Params) -> None:
    seen.counts["patients"] = len(cohort)
    for label, name in enumerate(cohort.class_names):
        if (cohort.labels >= 0).all():
            seen.counts[f"patients of {name}"] = int((cohort.labels == label).sum())
    sites = cohort.patients["site"].replace("", None).nunique()
    seen.counts["sites"] = sites or "not known"
    reasons = [
        {"step": step, "reason": reason, "n": n}
        for step in cohort.flow["step"]
        for reason, n in flow.reasons(cohort.excluded, step).items()
    ]
    seen.excluded = pd.DataFrame(reasons, columns=EXCLUDED)
