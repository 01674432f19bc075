"""One patient's expression as the training's was read, whoever else is in the file."""

import numpy as np
import pandas as pd
import pytest

from mmmil.apply import repeated
from mmmil.apply.models import Model
from mmmil.apply.patient import CachedMatrices, Patient, Reader
from mmmil.genes import expression
from mmmil.genes.expression import ExpressionError, Reading
from mmmil.slides import stain

GENES = [f"ENSG{i:011d}" for i in range(30)]
PATIENTS = ["P1", "P2", "P3", "P4"]


@pytest.fixture
def files(tmp_path):
    """Two matrices of counts, of which each lacks genes of the other, and a gene table with one symbol twice."""
    counts = np.random.default_rng(0).poisson(200, (30, 4))
    counts[[3, 4]] = [[900, 900, 10, 900], [10, 10, 800, 10]]  # of one symbol: the cohort's highest is not everybody's
    table = pd.DataFrame(counts, GENES, PATIENTS)
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    table.iloc[:-2, :2].to_csv(paths[0], index_label="gene")
    table.iloc[2:, 2:].to_csv(paths[1], index_label="gene")
    symbols = ["TWICE" if i in (3, 4) else f"G{i}" for i in range(30)]
    pd.DataFrame({"gene_id": GENES, "symbol": symbols, "length": 1000}).to_csv(tmp_path / "genes.csv", index=False)
    return pd.Series([str(path) for path in paths for _ in range(2)], index=PATIENTS), tmp_path / "genes.csv"


@pytest.mark.parametrize("level", ["cpm", "tpm"])
def test_a_patient_alone_is_read_as_with_the_cohort(files, level):
    paths, table = files
    how = {"gene_table": table, "counts_level": level}
    cohort = expression.assemble(paths, "counts", **how)
    assert len(cohort.measured) == 26 and cohort.genes.loc[GENES[3], "symbol"] == "TWICE"
    like = Reading(frozenset(cohort.genes.index), frozenset(cohort.measured))
    source = CachedMatrices()
    for i, patient in enumerate(PATIENTS):
        alone = expression.assemble(paths[[patient]], "counts", **how, like=like, source=source)
        assert alone.genes.equals(cohort.genes) and np.array_equal(alone.level[0], cohort.level[i])
    without = expression.assemble(paths[["P3"]], "counts", **how)
    assert GENES[4] in without.genes.index and len(without.measured) == 28


def test_a_column_that_cannot_be_read_is_its_own_patients_fault(files):
    paths, table = files
    frame = pd.read_csv(paths["P1"], index_col=0).astype(object)
    frame.iloc[2, 1] = "much"
    frame.to_csv(paths["P1"], index_label="gene")
    source, how = CachedMatrices(), {"gene_table": table, "counts_level": "cpm"}
    expression.assemble(paths[["P1"]], "counts", **how, source=source)
    with pytest.raises(ExpressionError, match="column P2: much is not a number"):
        expression.assemble(paths[["P2"]], "counts", **how, source=source)


def test_a_column_that_passes_beside_others_alone_is_refused(tmp_path):
    """Columns of log2 TPM in a table of z-scores."""
    values = np.random.default_rng(0).normal(size=(200, 2)) * [1, 0] + [0, 3]
    path = tmp_path / "z.csv"
    pd.DataFrame(values, [f"G{i}" for i in range(200)], ["P1", "P2"]).to_csv(path, index_label="gene")
    source = CachedMatrices()
    assert len(source.read(path, "zscore", ["P1"], True)) == 200
    with pytest.raises(ExpressionError, match="no negative value"):
        source.read(path, "zscore", ["P2"], True)


def test_of_rows_called_alike_a_patient_gets_the_one_that_the_training_took(tmp_path):
    counts = np.random.default_rng(0).poisson(200, (30, 4))
    counts[[3, 4]] = [[900, 900, 10, 900], [10, 10, 800, 10]]
    names = [f"ENSG{i:011d}.1" for i in range(30)]
    names[4] = names[3].replace(".1", ".2")
    path = tmp_path / "counts.csv"
    pd.DataFrame(counts, names, PATIENTS).to_csv(path, index_label="gene")
    paths = pd.Series(str(path), PATIENTS)
    cohort = expression.assemble(paths, "counts", counts_level="cpm")
    genes = frozenset(cohort.measured)
    took = repeated.taken(paths, "counts", True, genes)
    assert took == {GENES[3]: [0, 2]}
    like, source = Reading(frozenset(cohort.genes.index), genes), CachedMatrices(genes, took)
    for i, patient in enumerate(PATIENTS):
        alone = expression.assemble(paths[[patient]], "counts", counts_level="cpm", like=like, source=source)
        assert np.array_equal(alone.level[0], cohort.level[i]) and not source.unknown
    other = CachedMatrices(genes, {GENES[3]: [0, 3]})  # as of a training whose matrix had three
    assert len(other.read(path, "counts", ["P3"], True)) == 30 and other.unknown == [GENES[3]]


def test_genes_by_other_names_are_told(files):
    paths, _ = files
    like = Reading(frozenset(["A"]), frozenset(["TP53", "EGFR"]))
    with pytest.raises(ExpressionError, match=r"no gene is one of the training's: .* give a gene_table"):
        expression.assemble(paths[["P1"]], "counts", counts_level="cpm", like=like)


def test_tiles_have_the_colours_of_each_models_own_training(files):
    random = np.random.default_rng(0)
    training, imgs = (np.clip(random.normal(c, 30, (3, 32, 32, 3)), 0, 255).astype(np.uint8) for c in (120, 170))
    reference = stain.fit(training, "reinhard")
    reader = Reader.__new__(Reader)
    reader.encoder = None
    patient = Patient("P1", imgs=imgs, mask=np.array([True, True, False]))
    plain, stained = (Model("final", None, None, None, how, False) for how in (None, reference))
    assert np.array_equal(reader.inputs(patient, plain).tiles[0], imgs)
    tiles = reader.inputs(patient, stained).tiles[0].numpy()
    assert np.array_equal(tiles[:2], stain.transform(imgs[:2], reference)) and np.array_equal(tiles[2], imgs[2])
    assert reader.inputs(patient, stained).mask.tolist() == [[True, True, False]]
