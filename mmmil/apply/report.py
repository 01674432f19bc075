"""One page a patient: the probability and its spread, where the model looked, and how far its answer can be trusted."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np

from mmmil import __version__, record
from mmmil.apply import card
from mmmil.apply import page as pages
from mmmil.apply.distance import FAR
from mmmil.apply.folder import KeptModel
from mmmil.apply.models import Model
from mmmil.apply.prediction import MODALITIES, Prediction
from mmmil.interpretation.extract import over_tokens
from mmmil.interpretation.hooks import AttentionError
from mmmil.models.reading import SHOWN

LONGEST = 120  # bytes of a patient's name in a file's: file systems take 255, and temporary names are longer

CALLED = {
    "cross_image": "cross-attention: what the genes' summary asked of the tiles",
    "rollout_image": "self-attention of the image's encoder, rolled out over its layers",
    "self_image": "the weights by which the model pools the tiles",
    "cross_genes": "cross-attention: what the image's summary asked of the gene sets",
    "rollout_genes": "self-attention of the gene sets' encoder, rolled out over its layers",
    "self_genes": "the weights by which the model pools the gene sets",
}


def file_name(patient: str) -> str:
    """Name of a patient's page: the patient's, without what no file may be called."""
    plain = re.sub(r"[^\w.-]", "_", patient).lstrip(".")
    plain = plain.encode()[:LONGEST].decode(errors="ignore")
    return (plain if plain == patient else f"{plain}-{hashlib.sha256(patient.encode()).hexdigest()[:8]}") + ".html"


def write(folder: Path, kept: KeptModel, made: Prediction, model: Model, label: int = -1) -> Path:
    """Write a patient's page; model: the final one, whose attention is shown; label: -1 where it is not known."""
    text = html(kept, made, model, label)
    return record.write_atomically(folder / file_name(made.patient.name), lambda path: path.write_text(text))


def html(kept: KeptModel, made: Prediction, model: Model, label: int = -1) -> str:
    """A patient's page."""
    from mmmil.plots.style import of_cohort

    about, names = kept.about, kept.class_names
    of_cohort(about["synthetic"])
    stated = f", stated label: {names[label]}" if label >= 0 else ""
    parts = [
        f"<h1>{pages.escaped(made.patient.name)}</h1>",
        f'<p class="sub">{pages.escaped(card.one_line(about))}{pages.escaped(stated)}.</p>',
        _answer(kept, made),
        "<h2>How far this can be trusted</h2>",
        _trust(made),
    ]
    if made.patient.bag is not None:
        parts += ["<h2>Where it looked on the slide</h2>", _tiles(made)]
    elif made.patient.features is not None:
        words = (
            f"{len(made.patient.features)} instances whose features were brought along: there are no pixels to show."
        )
        parts += ["<h2>Where it looked on the slide</h2>", f"<p>{words}</p>"]
    if model.transform is not None:
        parts += ["<h2>Gene sets it weighed most</h2>", _sets(made, model)]
    foot = (
        f"Model {about['title']}, {about['variant']['name']}, kept by commit {about['commit']}; internal test ROC-AUC "
        f"{card.numbers(about['metrics'], 'test', 'roc_auc')}. Applied by mmmil {__version__}, commit "
        f"{record.commit()}. Attention says what the model weighed, not what causes the disease."
    )
    return pages.page(f"{made.patient.name}: {about['title']}", about, parts, foot)


def _answer(kept: KeptModel, made: Prediction) -> str:
    from mmmil.plots import patient as plots

    threshold, names = kept.about["parameters"]["threshold"], kept.class_names
    final, *folds = made.prob.values()
    called = names[int(final >= threshold)]
    agree = sum((prob >= threshold) == (final >= threshold) for prob in folds)
    words = (
        f"<p>Called <strong>{pages.escaped(called)}</strong> at {threshold:g}. The {len(folds)} models of the folds "
        f"give {min(folds):.2f} to {max(folds):.2f} (mean {np.mean(folds):.2f}); {agree} of them call the same class."
        "</p>"
    )
    drawn = pages.figure(
        plots.spread(made.prob, names, threshold), f"probability {final:.3f}, by fold {min(folds):.3f}-{max(folds):.3f}"
    )
    number = f'<div><div class="number">{final:.2f}</div><div class="sub">{pages.escaped(names[1])}</div></div>'
    return f'<div class="answer">{number}<div>{drawn}</div></div>{words}'


def _trust(made: Prediction) -> str:
    from mmmil.plots import patient as plots

    named = {MODALITIES[name]: percentile for name, percentile in made.distance.items()}
    drawn = pages.figure(
        plots.distances(named, FAR), "distance from the training patients: " + _percentages(named), width="82%"
    )
    far = [name for name, percentile in named.items() if percentile > FAR]
    words = (
        f"The {' and the '.join(far)} lie{'s' * (len(far) == 1)} farther from the training patients' mean than "
        f"{FAR:g} % of them: the model never saw the like."
        if far
        else "The input lies among those of the training patients."
    )
    lacked = pages.listed([f"Lacking: {flag}" for flag in made.patient.flags], "Nothing was lacking in the input.")
    return f"{drawn}<p>{words}</p>{lacked}"


def _percentages(named: dict[str, float]) -> str:
    return ", ".join(f"{name} {percentile:.0f} %" for name, percentile in named.items())


def shares(made: Prediction, modality: str, real: np.ndarray | None = None) -> tuple[str, np.ndarray] | None:
    """Source, and shares (N,) that sum to 1, of the attention over a modality's tokens; None where the model has none.

    real: (N,) which of the tokens are no padding. First comes the encoder's rollout, then cross-attention,
    and the weights of a model that pools its tokens.
    """
    for source in (f"{SHOWN}_{modality}", f"cross_{modality}", f"self_{modality}"):
        if source in made.attention:
            weights = made.attention[source] if real is None else made.attention[source][real]
            try:
                return source, over_tokens(weights)
            except AttentionError:  # of Nyström's approximation, which may be negative
                continue
    return None


def _tiles(made: Prediction) -> str:
    from mmmil.plots import patient as plots
    from mmmil.slides.places import place

    patient, found = made.patient, shares(made, "image", made.patient.mask)
    if found is None or patient.slide is None or patient.bag is None:
        return "<p>This model has no attention over tiles.</p>"
    source, weights = found
    assert patient.imgs is not None and patient.mask is not None
    where = place(patient.name, patient.slide, patient.bag) if patient.has_coords else None
    drawn = plots.tiles_of_patient(patient.imgs[patient.mask], weights, where)
    words = f"{len(weights)} tiles; {CALLED[source]}. × 1 is even attention; the brightest are the most attended."
    return pages.figure(drawn, "slide and most attended tiles", "png") + f'<p class="sub">{words}</p>'


def _sets(made: Prediction, model: Model) -> str:
    from mmmil.plots import patient as plots

    assert model.transform is not None and made.patient.level is not None
    names = list(model.transform.genes)
    found = shares(made, "genes")
    if len(names) < 2 or found is None:
        return "<p>This model reads its genes as one vector: there are no sets to weigh.</p>"
    source, weights = found
    level = model.transform.deviations(made.patient.level, made.patient.symbols)[0]
    drawn = pages.figure(plots.sets_of_patient(names, weights, level), "most attended gene sets and their levels")
    words = (
        f"{len(names)} sets; {CALLED[source]}. The level is the mean over the set's genes of this patient's deviation "
        "from the training mean."
    )
    return drawn + f'<p class="sub">{words}</p>'
