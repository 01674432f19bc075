"""What attention over gene sets does where it cannot have learnt anything: the nulls that a finding has to survive.

The paper permutes the labels of the test patients with the model fixed, which asks whether the classes differ in
attention at all. They do wherever the tokens differ, whatever the model has learnt. Three nulls ask for more:

- trained: the model trained on permuted labels of the development patients. The sets, chosen with the true labels, and
  the initial weights stay, so that training on the true labels is all that is taken away.
- untrained: the model before its first step, with other random weights each time.
- size: every set's genes replaced by as many others, drawn from those that were tested and put in the same order; the
  trained model reads them in the set's place.

The statistic is `|rank-biserial effect|` between the true classes of the test patients. No p is ever zero: the least
that a null can give is 1 / (1 + its size), and one whose least p is not below the limit cannot decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mmmil import record, variants
from mmmil.genes import enrichment, scaling
from mmmil.genes.choice import gene_statistic, rows_of
from mmmil.interpretation import gene_sets
from mmmil.study import Study
from mmmil.training import runs

if TYPE_CHECKING:
    from torch import nn

SHOWN_AS = {
    "labels": "labels permuted, model fixed (the paper's)",
    "trained": "model trained on permuted labels",
    "untrained": "random weights",
    "size": "random genes, as many per set",
}
SLACK = 1e-9  # equal effects, summed in another order

Effects = dict[str, np.ndarray]  # source -> effects (repetitions, sets)


def permuted_labels(study: Study, draw: int) -> pd.Series:
    """The `draw`-th shuffle of the development patients' labels, the same one whenever it is asked for.

    The test patients keep their labels, and a model trained on these its gene sets and tokens.
    """
    labels = study.labels.copy()
    development = labels.index[study.folds >= 0]
    random = np.random.default_rng([study.p.seed, draw])
    labels.loc[development] = random.permutation(labels.loc[development].to_numpy())
    return labels


def trained(study: Study, name: str, n: int) -> Effects:
    """Effects of `n` models trained on permuted labels, each a training of its own that is kept in the record."""
    runs.run_all(study, [runs.Training(name, -1, labels=permuted_labels(study, draw)) for draw in range(n)])
    attentions = [gene_sets.extract(study, name, labels=permuted_labels(study, draw)) for draw in range(n)]
    return _stacked([_effects(a.weights, a.labels) for a in attentions])


def untrained(study: Study, name: str, n: int) -> Effects:
    """Effects of `n` untrained models, each with random weights of its own; found again in the record."""

    def make() -> Effects:
        import torch

        from mmmil.training import build, device, fit
        from mmmil.training import inputs as training_inputs

        p, v = study.p, variants.variant(name)
        fabric, (inputs, genes) = device.make_fabric(p), training_inputs.inputs_of(study, v, -1)
        train, test = (_positions(study, ids) for ids in study.fold_patients(-1))
        labels, effects = study.labels.to_numpy()[test], []
        for draw in range(n):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(10_000 * (p.seed + 1) + draw)
                encoder = None
                if v.is_trained_end_to_end(p):
                    bags, masks = study.bags(-1), study.tile_masks
                    encoder, _ = build.tile_encoder(p, v, bags, masks, train, fabric)
                model = build.build(p, v, genes, encoder, inputs.image_dim, inputs.positions)
                build.measure_scale(model, p, inputs, train)
                _, att = fit.predict(fabric, fabric.setup(model), inputs, test, p.batch_size)
            effects.append(_effects(att, labels))
        return _stacked(effects)

    return _kept(study, name, "untrained", n, make)


def size_matched(study: Study, name: str, n: int) -> Effects:
    """Effects of the trained model where it reads `n` times other genes in the place of every set.

    A set's substitutes are drawn without replacement from the tested genes that are not its own. They are ordered,
    scaled, encoded, and their tokens scaled on the development patients, as the set's are. Tiles are encoded once.
    """

    def make() -> Effects:
        import torch

        from mmmil.models.reading import reading_layers
        from mmmil.training import build, device

        p, v = study.p, variants.variant(name)
        fabric = device.make_fabric(p)
        model, inputs = build.load_model(study, v, -1, runs.run(study, name, -1), fabric)
        model.eval()
        inner, test = model.module, _positions(study, study.fold_patients(-1)[1])
        draw_tokens = _random_tokens(study, v.genes, inner.gene_set_encoder)
        images, labels, effects = [], study.labels.to_numpy()[test], []
        chunks = torch.tensor(test).split(p.batch_size)
        with torch.no_grad(), fabric.autocast(), reading_layers(inner, ["genes"]) as layers:
            for chunk in chunks:
                given = fabric.to_device(inputs.take(chunk))
                mask = given.get("mask")
                images.append((inner.image_tokens(given["tiles"], mask) if v.uses_slides else None, mask))
            for draw in range(n):
                tokens = torch.from_numpy(draw_tokens(draw)).split(p.batch_size)
                atts = [
                    inner.aggregator(image, inner.gene_scale(batch_tokens.to(fabric.device)), mask)[1] | layers
                    for (image, mask), batch_tokens in zip(images, tokens, strict=True)
                ]
                of_sets = [k for k in atts[0] if k.endswith("_genes")]
                att = {k: torch.cat([a[k].float().mean(1).cpu() for a in atts]).numpy() for k in of_sets}
                effects.append(_effects(att, labels))
        return _stacked(effects)

    return _kept(study, name, "size", n, make)


def _random_tokens(study: Study, library: str, encoder: nn.Module | None) -> Callable[[int], np.ndarray]:
    """A function that gives tokens (test patients, sets, latent) of random genes, a new draw for every number."""
    from mmmil.genes.autoencoder import GeneSetAutoencoder

    p, expression, tokens = study.p, study.expression, study.gene_tokens(-1, library)
    fitted, test = (rows_of(expression, ids) for ids in study.fold_patients(-1))
    ranked = enrichment.rank(gene_statistic(p, expression, study.labels, study.folds, -1))
    symbols = ranked.index.tolist()
    column = {symbol: i for i, symbol in enumerate(expression.genes["symbol"])}
    level = expression.level[:, [column[symbol] for symbol in symbols]]
    if p.gene_scaling == "zscore":
        level = scaling.scale_genes(level, fitted, p.gene_clip)
    autoencoder = GeneSetAutoencoder.load(tokens.folder / "autoencoder.safetensors")
    if encoder is not None:  # the half that was trained on with the model
        autoencoder.network.encode_hidden.load_state_dict(encoder.hidden.state_dict())
        autoencoder.network.encode_latent.load_state_dict(encoder.latent.state_dict())
    nes = pd.read_csv(tokens.folder / "enrichment.csv", index_col=0, keep_default_na=False, na_values={"nes": [""]})[
        "nes"
    ]
    position = {symbol: i for i, symbol in enumerate(symbols)}

    def draw(number: int) -> np.ndarray:
        random = np.random.default_rng([p.seed, number])
        index = np.full((len(tokens.names), max(map(len, tokens.genes.values()))), -1)
        for row, name in zip(index, tokens.names, strict=True):
            members = tokens.genes[name]
            others = np.setdiff1d(np.arange(len(symbols)), [position[gene] for gene in members])
            if len(others) < len(members):
                raise ValueError(
                    f"{name} has {len(members)} of {len(symbols)} tested genes: too few others to draw from"
                )
            genes = random.choice(others, len(members), replace=False)
            if p.gene_order == "leading":  # the ranking's order, from the end that the set is enriched at
                genes = np.sort(genes) if nes[name] >= 0 else np.sort(genes)[::-1]
            row[: len(genes)] = genes
        latents = autoencoder.transform(level[[*fitted, *test]].astype(np.float32), index)
        latents = scaling.scale_tokens(latents, *scaling.token_scale(latents, np.arange(len(fitted))))
        return latents[len(fitted) :]

    return draw


def pooled_p(effect: np.ndarray, null: np.ndarray) -> np.ndarray:
    """p per set against a null pooled over sets and repetitions: (1 + hits) / (1 + null.size), never 0.

    effect (sets,), null (repetitions, sets). Pooled because a training is dear: its level holds on average over the
    sets, not for every one.
    """
    pool = np.sort(np.abs(null).ravel())
    hits = len(pool) - np.searchsorted(pool, np.abs(effect) - SLACK, side="left")
    return (1 + hits) / (1 + len(pool))


def own_p(effect: np.ndarray, null: np.ndarray) -> np.ndarray:
    """p per set against its own null: (1 + hits) / (1 + repetitions), never 0.

    effect (sets,), null (repetitions, sets).
    """
    return (1 + (np.abs(null) >= np.abs(effect) - SLACK).sum(0)) / (1 + len(null))


def against(study: Study, name: str) -> dict[str, pd.DataFrame]:
    """`gene_sets.analyse`'s tables with a p of every null, one table per source.

    Columns p_labels (of the difference of means), p_trained (pooled), p_untrained and p_size (own), and for each the
    least p that it could have, least_labels and so on: 1 / (1 + the null's size).
    """
    p = study.p
    attention, tables = gene_sets.analyse(study, name)
    nulls = {
        "trained": (pooled_p, trained(study, name, p.null_models)),
        "untrained": (own_p, untrained(study, name, p.null_draws)),
        "size": (own_p, size_matched(study, name, p.null_draws)),
    }
    for source, table in tables.items():
        table["p_labels"], table["least_labels"] = table["permutation_p"], 1 / (1 + p.n_permutations)
        for null, (p_of, effects) in nulls.items():
            draws = pd.DataFrame(effects[source], columns=attention.sets)[table.index].to_numpy()
            table[f"p_{null}"] = p_of(table["effect"].to_numpy(), draws)
            table[f"least_{null}"] = p_of(np.full(draws.shape[1], np.inf), draws)  # no repetition reaches it
    return tables


def survival(tables: dict[str, pd.DataFrame], fdr: float) -> pd.DataFrame:
    """How many sets with an adjusted p below `fdr` survive each null, and all of them; one row per source and null.

    tables: as `against` returns them. A set survives a null where its p is below `fdr`, too. alone: sets with a p
    below `fdr` whatever their adjusted p; found_p: the smallest p found; least_p: the smallest that the null can give.
    Where least_p is not below `fdr` the null cannot decide: that nothing survives it is no finding, so that survive
    and alone are missing, and "all" leaves it out.
    """
    rows = []
    for source, table in tables.items():
        differ, deciding = table["fdr"] < fdr, []
        about = {"source": source, "sets": len(table), "differ": int(differ.sum())}
        for null in SHOWN_AS:
            p, least = table[f"p_{null}"], table[f"least_{null}"].iloc[0]
            row = about | {"null": null, "found_p": p.min(), "least_p": least}
            if least < fdr:
                row |= {"survive": int((differ & (p < fdr)).sum()), "alone": int((p < fdr).sum())}
                deciding.append(p < fdr)
            rows.append(row)
        every = int(np.logical_and.reduce([differ, *deciding]).sum()) if deciding else None
        rows.append(about | {"null": "all", "survive": every})
    columns = ["source", "null", "sets", "differ", "survive", "alone", "found_p", "least_p"]
    return pd.DataFrame(rows, columns=columns).astype({"survive": "Int64", "alone": "Int64"})


def summary(study: Study) -> pd.DataFrame:
    """`survival` of every analysed model, with its library: attention_nulls.csv."""
    tables = [
        survival(against(study, name), study.p.attention_fdr).assign(library=library, variant=name)
        for library, name in gene_sets.models(study).items()
    ]
    nothing = survival({}, study.p.attention_fdr).assign(library=[], variant=[])
    return pd.concat(tables, ignore_index=True) if tables else nothing


def _positions(study: Study, ids: list[str]) -> list[int]:
    position = {patient: i for i, patient in enumerate(study.patients)}
    return [position[i] for i in ids]


def _effects(weights: dict[str, np.ndarray], labels: np.ndarray) -> Effects:
    from mmmil.interpretation.extract import over_tokens

    sources = [source for source in weights if source.endswith("_genes")]
    return {source: gene_sets.effects(over_tokens(weights[source]), labels) for source in sources}


def _stacked(draws: list[Effects]) -> Effects:
    return {source: np.stack([effects[source] for effects in draws]) for source in draws[0]}


def _kept(study: Study, name: str, null: str, n: int, make: Callable[[], Effects]) -> Effects:
    """The effects of a null, made now or found by what they depend on."""
    run = runs.run(study, name, -1)
    inputs = {
        "model": run.name,
        "null": null,
        "repetitions": n,
        "variant": asdict(variants.variant(name)) | {"tables": None, "shown_as": None},
    }

    def write(folder: Path) -> None:
        np.savez(folder / "effects.npz", **make())

    with np.load(
        record.cached(study.p.results / "attention_nulls" / name / null, inputs, write) / "effects.npz"
    ) as kept:
        return dict(kept)
