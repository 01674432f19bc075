"""The null audit: a nested choice of gene sets ends at chance, a choice that has seen everybody does not."""

import numpy as np
import pandas as pd
import pytest

from mmmil import params
from mmmil.cohort import split
from mmmil.evaluation import leakage
from mmmil.genes import tokens as gene_tokens
from mmmil.genes.expression import Expression
from mmmil.simulate import cohort as synthetic
from mmmil.simulate import genes as synthetic_genes

SMALL = {
    "sim_null": True,
    "sim_genes": 3000,
    "sim_sets": 80,
    # Laxer than 0.01, so that a set is chosen in every fold and several of them in most.
    "gene_set_fdr": 0.2,
    "single_genes": 64,
    "latent_dim": 16,
    "ae_hidden": 32,
    "ae_epochs": 5,
}


def cohort(folder, n=60, kind="log2tpm", seed=0, **values):
    """A cohort without signal: parameters, expression, labels, folds. Levels go by Welch's test, which is fast."""
    p = params.load(
        "nsclc",
        "demo",
        **SMALL
        | {"seed": seed, "data_dir": str(folder / "data"), "results_dir": str(folder / "results"), "null_repeats": 2}
        | values,
    )
    genome = synthetic.genome(p)
    p.data.mkdir()
    for library in ("go", "kegg"):
        synthetic_genes.write_gmt(p.data / f"{library}.gmt", genome, library)
    counts = np.array([synthetic_genes.counts(genome, ("patient", seed, i), 0.0, i % 6) for i in range(n)])
    own = ~genome.genes["symbol"].duplicated(keep=False).to_numpy()
    patients = [f"P{i:02d}" for i in range(n)]
    level = np.log2(1e6 * counts / counts.sum(1, keepdims=True) + 1).astype(np.float32)
    expression = Expression(
        patients=patients,
        genes=genome.genes[own].set_index("gene_id")[["symbol"]],
        counts=counts[:, own].astype(np.int32) if kind == "counts" else None,
        level=level[:, own],
        kind=kind,
        level_unit="log2(CPM+1)",
        dropped={},
    )
    labels = pd.Series(np.random.default_rng([seed, 1]).permutation(np.arange(n) % 2), index=patients)
    return p, expression, labels, split.split(labels, p.test_fraction, p.n_folds, seed)


@pytest.fixture(scope="module")
def null(tmp_path_factory):
    made = cohort(tmp_path_factory.mktemp("null"))
    return made, leakage.audit(*made)


def test_nested_is_chance_and_a_choice_on_all_patients_is_not(null):
    _, table = null
    found = leakage.summary(table).set_index(["library", "selection"])
    for library in ("go", "genes"):
        nested, leaking = found.loc[(library, "nested")], found.loc[(library, "all_patients")]
        assert nested["ci_low"] <= 0.5 <= nested["ci_high"], found
        # 10 values of 10 patients: the standard error of a fair mean is 0.06.
        assert abs(nested["mean"] - 0.5) < 0.2, found
        assert leaking["mean"] > max(0.65, nested["ci_high"]), found


def test_every_fold_of_every_repeat_has_one_row(null):
    (p, *_), table = null
    assert list(table.columns) == leakage.COLUMNS
    folds = range(p.n_folds)
    keys = {(s, k, r, f) for s in leakage.SELECTIONS for k in ("go", "genes") for r in range(2) for f in folds}
    assert set(table[leakage.COLUMNS[:4]].itertuples(index=False, name=None)) == keys and len(table) == len(keys)
    assert table["roc_auc"].between(0, 1).all()
    # Values of shuffles of their own: the same fold differs between repeats.
    pivot = table.pivot(index=["selection", "library", "fold"], columns="repeat", values="roc_auc")
    assert (pivot[0] != pivot[1]).any()
    assert not (p.results / "genes").exists(), "shuffled runs must not lie among the results"
    assert {path.name for path in p.results.rglob("*") if path.is_file()} == {"auc.csv", "run.json"}


def test_a_run_is_found_again_and_more_repeats_make_only_new_ones(null, monkeypatch, code_replaced):
    (p, expression, labels, folds), table = null
    made = []
    monkeypatch.setattr(gene_tokens, "tokens", lambda *a: made.append(a) or pytest.fail("walked again"))
    pd.testing.assert_frame_equal(leakage.audit(p, expression, labels, folds), table)
    with pytest.raises(pytest.fail.Exception, match="walked again"):
        leakage.audit(p.override(null_repeats=3), expression, labels, folds)
    with pytest.raises(pytest.fail.Exception, match="walked again"):
        leakage.audit(p.override(gene_set_fdr=0.1), expression, labels, folds)
    assert len(made) == 2


def test_counts_of_a_null_cohort_without_shuffling(tmp_path):
    p, expression, labels, folds = cohort(
        tmp_path, 36, "counts", sim_genes=600, sim_sets=10, n_folds=3, single_genes=32
    )
    table = leakage.audit(p, expression, labels, folds, ["genes"], shuffle=False)
    assert len(table) == 6 and (table["repeat"] == 0).all() and table["passed"].all()
    means = table.groupby("selection")["roc_auc"].mean()
    # 28 patients in three dependent folds: the nested mean scatters by 0.15, so only the distance is bounded.
    assert means["all_patients"] > 0.65 and means["all_patients"] > means["nested"], table


def test_shuffled_labels_keep_the_classes_of_every_fold():
    patients = [f"P{i}" for i in range(50)]
    labels = pd.Series([int(i % 5 == 0) for i in range(50)], index=patients)
    folds = split.split(labels, 0.2, 4, 0)
    before = labels.copy()
    mixed = leakage.shuffled(labels, folds, [0, 1])
    pd.testing.assert_series_equal(labels, before)
    assert mixed.groupby(folds).sum().equals(labels.groupby(folds).sum()) and list(mixed.index) == patients
    assert not mixed.equals(labels) and not mixed.equals(leakage.shuffled(labels, folds, [0, 2]))
    assert mixed.equals(leakage.shuffled(labels, folds, [0, 1]))


def test_summary_counts_what_was_chosen_by_rank():
    rows = [("nested", "go", r, 0, value, passed) for r, (value, passed) in enumerate([(0.4, True), (0.6, False)])]
    found = leakage.summary(pd.DataFrame(rows, columns=leakage.COLUMNS)).iloc[0]
    assert found["mean"] == pytest.approx(0.5) and found["n"] == 2 and found["by_rank"] == 1
    assert found["ci_low"] == 0 and found["ci_high"] == 1  # t with one degree of freedom, cut


def test_what_cannot_be_audited_is_told_before_any_work(tmp_path):
    p, expression, labels, folds = cohort(tmp_path, 40, sim_genes=600, sim_sets=10)
    with pytest.raises(gene_tokens.GeneSetError, match="kegg_gmt"):
        leakage.audit(p.override(kegg_gmt=""), expression, labels, folds, ["kegg"])
    alone = labels.where(folds != 2, 1)
    with pytest.raises(ValueError, match=r"folds \[2\] have patients of one class only"):
        leakage.audit(p, expression, alone, folds)
    assert leakage.libraries(p.override(go_gmt="")) == ["kegg", "genes"] and not p.results.exists()
