"""Gene tokens: fitted on training patients only, found again in the record, the same with any number of workers."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mmmil import params
from mmmil.genes import differential, enrichment
from mmmil.genes import tokens as gene_tokens
from mmmil.genes.tokens import GeneSetError, all_folds, deg_table, enrichment_table, stability, tokens

PATIENTS = [f"P{i:02d}" for i in range(40)]
SYMBOLS = [f"GENE{i}" for i in range(200)]
LABELS = pd.Series([i % 2 for i in range(40)], index=PATIENTS)
FOLDS = pd.Series([-1] * 8 + [i // 2 % 4 for i in range(32)], index=PATIENTS)


@pytest.fixture
def p(tmp_path):
    (tmp_path / "data").mkdir()
    lines = [f"set {k:02d}\t\t" + "\t".join(SYMBOLS[12 * k : 12 * k + 12]) for k in range(14)]
    (tmp_path / "data" / "go.gmt").write_text("\n".join(lines))
    (tmp_path / "data" / "kegg.gmt").write_text("\n".join(lines[::-1]))
    return params.check(
        {
            "task": "test",
            "class_names": ["A", "B"],
            "data_dir": str(tmp_path / "data"),
            "results_dir": str(tmp_path / "results"),
            "fallback_sets": 5,
            "single_genes": 16,
            "latent_dim": 4,
            "ae_hidden": 8,
            "ae_epochs": 3,
        }
    )


@pytest.fixture
def expression():
    """Sets 00 and 01 are higher and lower in class 1; the ids are not the symbols."""
    level = np.random.default_rng(0).normal(5, 1, (40, 200))
    level[:, :12] += 1.5 * LABELS.to_numpy()[:, None]
    level[:, 12:24] -= 1.5 * LABELS.to_numpy()[:, None]
    genes = pd.DataFrame({"symbol": SYMBOLS}, index=pd.Index([f"ENSG{i:011d}" for i in range(200)], name="gene_id"))
    return SimpleNamespace(
        patients=PATIENTS[::-1], genes=genes, counts=None, level=level[::-1].astype(np.float32), kind="log2tpm"
    )


def changed(expression, patients, by=3.0):
    """The same expression with other values for some patients."""
    level = expression.level.copy()
    rows = [expression.patients.index(i) for i in patients]
    level[rows] += np.random.default_rng(1).normal(0, by, (len(rows), level.shape[1]))
    return SimpleNamespace(**{**vars(expression), "level": level})


def plainly(counts, classes):
    """pydeseq2 with its own defaults, on these genes."""
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.ds import DeseqStats
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        condition = pd.DataFrame({"condition": np.where(classes == 1, "b", "a")}, index=counts.index)
        data = DeseqDataSet(counts=counts, metadata=condition, design="~condition", quiet=True)
        data.deseq2()
        test = DeseqStats(data, contrast=["condition", "b", "a"], quiet=True)
        test.summary()
    return test.results_df


def same_training_tokens(one, other, fold=0):
    rows = [i for i, patient in enumerate(one.patients) if FOLDS[patient] not in (fold, -1)]
    return one.names == other.names and np.array_equal(one.tokens[rows], other.tokens[rows])


def test_tokens_of_a_fold(p, expression):
    made = tokens(p, expression, LABELS, FOLDS, 0, "go")
    assert made.patients == [i for i in PATIENTS if FOLDS[i] >= 0]
    assert set(made.names) == {"set 00", "set 01"} and made.passed
    assert set(made.genes["set 00"]) == set(SYMBOLS[:12])
    statistic = deg_table(p, expression, LABELS, FOLDS, 0)["stat"].set_axis(expression.genes["symbol"])
    for name, genes in made.genes.items():  # the leading edge first, whichever end of the ranking it stands at
        nes = pd.read_csv(made.folder / "enrichment.csv", index_col=0).loc[name, "nes"]
        assert (np.diff(np.sign(nes) * statistic[genes]) <= 0).all()
    assert made.tokens.shape == (32, 2, 4) and made.tokens.dtype == np.float32
    train = made.tokens[[FOLDS[i] != 0 for i in made.patients]]
    assert np.abs(train.mean(axis=0)).max() < 1e-5 and train.std(axis=0).max() < 1.001
    assert {f.name for f in made.folder.iterdir()} == {
        "autoencoder.safetensors", "enrichment.csv", "errors.csv", "losses.csv", "run.json", "scaling.safetensors",
        "sets.json", "tokens.npz",
    }  # fmt: skip
    assert pd.read_csv(made.folder / "enrichment.csv")["selected"].sum() == 2
    assert len(pd.read_csv(made.folder / "losses.csv")) == 3
    assert pd.read_csv(made.folder / "errors.csv").notna().all(axis=None)


def test_final_model_covers_everybody(p, expression):
    made = tokens(p, expression, LABELS, FOLDS, -1, "genes")
    assert made.patients == PATIENTS


def test_a_task_of_baselines_alone_has_a_table_without_tokens(p, expression):
    table = all_folds(p, expression, LABELS, FOLDS, [])
    assert table.empty and {"library", "fold", "folder"} <= set(table)


def test_single_gene_vector(p, expression):
    made = tokens(p, expression, LABELS, FOLDS, 0, "genes")
    assert made.tokens.shape == (32, 1, 16) and made.names == [gene_tokens.SINGLE]
    table = deg_table(p, expression, LABELS, FOLDS, 0)
    strongest = expression.genes["symbol"][table["stat"].abs().nlargest(16).index]
    assert made.genes[gene_tokens.SINGLE] == strongest.tolist()
    train = [i for i in made.patients if FOLDS[i] != 0]
    column = pd.Series(expression.level[:, SYMBOLS.index(strongest.iloc[0])], index=expression.patients)
    scaled = (column - column[train].mean()) / column[train].std(ddof=0)
    assert made.tokens[:, 0, 0] == pytest.approx(scaled[made.patients].to_numpy(), abs=1e-4)
    with pytest.raises(GeneSetError, match="single_genes is 400"):
        tokens(p.override(single_genes=400), expression, LABELS, FOLDS, 0, "genes")


@pytest.mark.parametrize("library", ["go", "genes"])
def test_nested_never_sees_held_out_patients(p, expression, library):
    held_out = [i for i in PATIENTS if FOLDS[i] in (0, -1)]
    other = changed(expression, held_out)
    labels = LABELS.copy()
    labels[held_out] = 1 - labels[held_out]
    one = tokens(p, expression, LABELS, FOLDS, 0, library)
    two = tokens(p, other, labels, FOLDS, 0, library)
    assert one.folder != two.folder
    assert same_training_tokens(one, two)
    assert deg_table(p, expression, LABELS, FOLDS, 0).equals(deg_table(p, other, labels, FOLDS, 0))
    if library == "go":
        weights = [(made.folder / "autoencoder.safetensors").read_bytes() for made in (one, two)]
        assert weights[0] == weights[1]
    assert not np.array_equal(one.tokens, two.tokens)


def test_all_patients_sees_them(p, expression):
    leaking = p.override(selection="all_patients")
    other = changed(expression, [i for i in PATIENTS if FOLDS[i] in (0, -1)])
    one = tokens(leaking, expression, LABELS, FOLDS, 0, "go")
    two = tokens(leaking, other, LABELS, FOLDS, 0, "go")
    assert one.patients == [i for i in PATIENTS if FOLDS[i] >= 0]
    assert not same_training_tokens(one, two)
    assert not deg_table(leaking, expression, LABELS, FOLDS, 0).equals(deg_table(leaking, other, LABELS, FOLDS, 0))
    # one choice serves every fold
    assert len(list((p.results / "genes" / "deg" / "all_patients").iterdir())) == 2


@pytest.mark.parametrize("selection", ["nested", "all_patients"])
def test_what_reads_no_label_is_fitted_on_training_patients_however_sets_are_chosen(p, expression, selection):
    own = p.override(selection=selection, gene_order="gmt")
    other = changed(expression, [i for i in PATIENTS if FOLDS[i] in (0, -1)], by=0.02)  # too little for another choice
    one, two = (tokens(own, given, LABELS, FOLDS, 0, "go") for given in (expression, other))
    assert one.folder != two.folder and one.genes == two.genes
    for name in ("scaling.safetensors", "autoencoder.safetensors"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes(), name
    assert same_training_tokens(one, two) and not np.array_equal(one.tokens, two.tokens)


def test_found_again(p, expression, monkeypatch, code_replaced):
    made = {library: tokens(p, expression, LABELS, FOLDS, 1, library) for library in ("go", "genes")}
    for module, name in ((differential, "welch"), (enrichment, "enrich"), (gene_tokens, "_make_latents")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("computed again"))
    for library, first in made.items():
        again = tokens(p, expression, LABELS, FOLDS, 1, library)
        assert again.folder == first.folder and np.array_equal(again.tokens, first.tokens)
    # what a step does not read does not make it run again; only these need the autoencoder
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        tokens(p.override(ae_epochs=4), expression, LABELS, FOLDS, 1, "go")
    assert tokens(p.override(ae_epochs=4), expression, LABELS, FOLDS, 1, "genes").folder == made["genes"].folder
    assert tokens(p.override(single_genes=8), expression, LABELS, FOLDS, 1, "go").folder == made["go"].folder
    assert tokens(p.override(single_genes=8), expression, LABELS, FOLDS, 1, "genes").tokens.shape[2] == 8
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        tokens(p.override(seed=1), expression, LABELS, FOLDS, 1, "go")


def test_one_differential_expression_for_all_libraries(p, expression, monkeypatch, code_replaced):
    runs = []
    real = differential.welch
    monkeypatch.setattr(differential, "welch", lambda *given: runs.append(1) or real(*given))
    for library in ("go", "kegg", "genes"):
        tokens(p, expression, LABELS, FOLDS, 0, library)
    assert len(runs) == 1


def test_fallback_is_flagged(p, expression):
    noise = changed(expression, PATIENTS, by=30.0)
    made = tokens(p, noise, LABELS, FOLDS, 0, "go")
    assert not made.passed and len(made.names) == 5
    assert json.loads((made.folder / "run.json").read_text())["facts"]["passed"] is False


def test_scaling_none(p, expression):
    made = tokens(p.override(gene_scaling="none"), expression, LABELS, FOLDS, 0, "genes")
    gene = SYMBOLS.index(made.genes[gene_tokens.SINGLE][0])
    column = pd.Series(expression.level[:, gene], index=expression.patients)[made.patients]
    assert np.array_equal(made.tokens[:, 0, 0], column)


def test_counts_go_through_deseq2(p, expression):
    counts = np.random.default_rng(0).poisson(2.0**expression.level)
    made = SimpleNamespace(**{**vars(expression), "counts": counts, "kind": "counts"})
    found = tokens(p, made, LABELS, FOLDS, 0, "go")
    assert {"set 00", "set 01"} <= set(found.names)
    assert deg_table(p, made, LABELS, FOLDS, 0)["stat"].iloc[:12].mean() > 2


def test_same_numbers_with_any_workers(p, expression, tmp_path):
    two_folds = FOLDS.clip(upper=1)
    one = all_folds(p, expression, LABELS, two_folds, ["go", "genes"], workers=1)
    elsewhere = p.override(results_dir=str(tmp_path / "again"))
    two = all_folds(elsewhere, expression, LABELS, two_folds, ["go", "genes"], workers=2)
    assert one["fold"].tolist() == [-1, 0, 1] * 2
    for a, b in zip(one["folder"], two["folder"], strict=True):
        files = [json.loads((Path(folder) / "run.json").read_text())["files"] for folder in (a, b)]
        assert files[0] == files[1]


def test_all_folds_sends_only_what_lacks_to_a_process(p, expression, monkeypatch, code_replaced):
    two_folds = FOLDS.clip(upper=1)
    made = all_folds(p, expression, LABELS, two_folds, ["genes"])
    shutil.rmtree(made["folder"][1])
    sent = []
    one_fold = gene_tokens._one_fold
    monkeypatch.setattr(gene_tokens, "_one_fold", lambda *a: sent.append(a[4]) or one_fold(*a))
    assert all_folds(p, expression, LABELS, two_folds, ["genes"]).equals(made)
    assert sent == [0]
    monkeypatch.setattr(gene_tokens, "parallel", lambda *_, **__: list)  # nothing lacks: nothing may be called
    monkeypatch.setattr(gene_tokens, "_one_fold", None)
    assert all_folds(p, expression, LABELS, two_folds, ["genes"]).equals(made)


def test_tables_survive_the_record(p, expression):
    table = deg_table(p, expression, LABELS, FOLDS, 0)
    rows = [expression.patients.index(i) for i in PATIENTS if FOLDS[i] not in (0, -1)]
    labels = [LABELS[expression.patients[i]] for i in rows]
    assert table.equals(differential.welch(expression.level[rows], labels, expression.genes.index))
    found = enrichment_table(p, expression, LABELS, FOLDS, 0, "go")
    assert found.columns.tolist() == enrichment.COLUMNS and len(found) == 14


def test_stability():
    table = stability({0: ["a", "b"], 1: ["b", "c"], 2: ["a", "b"]})
    assert table.loc[0, 1] == pytest.approx(1 / 3) and table.loc[0, 2] == 1 and table.loc[1, 1] == 1


def test_refusals(p, expression):
    with pytest.raises(GeneSetError, match="library 'reactome'"):
        tokens(p, expression, LABELS, FOLDS, 0, "reactome")
    with pytest.raises(GeneSetError, match=r"kegg_gmt: .* is no file"):
        tokens(p.override(kegg_gmt="none.gmt"), expression, LABELS, FOLDS, 0, "kegg")
    with pytest.raises(GeneSetError, match=r"kegg_gmt: .* is no file"):
        tokens(p.override(kegg_gmt=""), expression, LABELS, FOLDS, 0, "kegg")
    with pytest.raises(GeneSetError, match="not of the same patients"):
        tokens(p, expression, LABELS[1:], FOLDS, 0, "go")
    short = SimpleNamespace(**{**vars(expression), "patients": expression.patients[1:], "level": expression.level[1:]})
    with pytest.raises(GeneSetError, match=r"1 patients have no expression .P39"):
        tokens(p, short, LABELS, FOLDS, 0, "go")
    named = SimpleNamespace(**{**vars(expression), "genes": expression.genes.assign(symbol=expression.genes.index)})
    with pytest.raises(enrichment.EnrichmentError, match=r"gene symbols .*the data Ensembl ids"):
        tokens(p, named, LABELS, FOLDS, 0, "go")


@pytest.mark.parametrize("what", ["one class", "too few", "empty", "twice", "foreign", "library"])
def test_what_cannot_work_is_told_before_anything_is_fitted(p, expression, monkeypatch, what):
    """Every fold and library is looked at first, however late its turn would come."""
    monkeypatch.setattr(differential, "welch", lambda *a: pytest.fail("fitted"))
    kegg, labels, folds = p.path(p.kegg_gmt), LABELS, FOLDS
    if what == "one class":
        labels, message = LABELS * 0, r"fold -1 would be fitted on 32 patients of A and 0 of B"
    elif what == "too few":  # of class 1, three are left in training when fold 2 is held out
        folds = FOLDS.mask((LABELS == 1) & (FOLDS != 2) & (FOLDS >= 0), -1)
        folds[[patient for patient in PATIENTS if LABELS[patient] == 1 and FOLDS[patient] == 1][:2]] = 1
        message = r"fold 2 would be fitted on 12 patients of A and 2 of B, fewer than 3 of each"
    elif what == "empty":
        kegg.write_text("\n")
        message = "kegg.gmt: no gene set in it"
    elif what == "twice":
        kegg.write_text(kegg.read_text() + "\nset 03\t\tGENE1\tGENE2")
        message = "the set 'set 03' is listed twice"
    elif what == "foreign":
        kegg.write_text("set 1\t\t" + "\t".join(str(7000 + i) for i in range(20)))
        message = r"the sets hold Entrez ids .*the data gene symbols"
    else:
        p, message = p.override(kegg_gmt=""), r"kegg_gmt: .* is no file"
    with pytest.raises(ValueError, match=message):
        all_folds(p, expression, labels, folds, ("go", "kegg"))
    assert not (p.results / "genes").exists()


def test_a_damaged_entry_is_noticed_and_made_again(p, expression):
    made = tokens(p, expression, LABELS, FOLDS, 0, "go")
    before = {path.name: path.read_bytes() for path in made.folder.iterdir() if path.name != "run.json"}
    file = made.folder / "tokens.npz"
    file.write_bytes(file.read_bytes()[:-40] + b"x" * 40)
    again = tokens(p, expression, LABELS, FOLDS, 0, "go")
    assert again.folder == made.folder and np.array_equal(again.tokens, made.tokens)
    table = next((p.results / "genes" / "deg" / "fold_0").glob("*/deg.csv"))
    text = table.read_text()
    table.write_text(text.replace("1", "2", 3))
    assert deg_table(p, expression, LABELS, FOLDS, 0).shape[1] == 6 and table.read_text() == text
    assert {name: (made.folder / name).read_bytes() for name in before if name.endswith((".csv", ".json"))} == {
        name: data for name, data in before.items() if name.endswith((".csv", ".json"))
    }


def test_the_encoder_half_starts_with_the_very_tokens(p, expression):
    import torch

    made = tokens(p, expression, LABELS, FOLDS, 1, "go")
    level, encoder = gene_tokens.encoder_inputs(expression, made)
    assert len(level) == len(made.patients)
    with torch.no_grad():
        assert np.allclose(encoder(torch.from_numpy(level)), made.tokens, atol=1e-4)


@pytest.mark.real
def test_lung_cancers(real_data):
    """Squamous against adenocarcinoma: what every pathologist stains for comes out, on both sides."""
    parts, labels = [], {}
    for label, name in enumerate(["LUAD", "LUSC"]):
        table = pd.read_csv(real_data / "expression" / f"{name}_paired_counts_ELELAB.tsv.gz", sep="\t", index_col=0)
        tumours = table[sorted(c for c in table if c.split("-")[3].startswith("01"))].rename(columns=lambda c: c[:12])
        parts.append(tumours.loc[:, ~tumours.columns.duplicated()])
        labels |= dict.fromkeys(parts[-1], label)
    counts = pd.concat(parts, axis=1, join="inner").T
    classes = pd.Series(labels)[counts.index]
    assert classes.value_counts().tolist() == [35, 27]

    library = enrichment.read_gmt(real_data / "gmt" / "GO_Biological_Process_2023.gmt")
    squamous = [name for name in library if re.match("Intermediate Filament Org|Epidermis Dev|Skin Dev|Keratin", name)]
    # a third of the genes, and all of these sets, so that the test takes seconds
    whole = {gene for name in squamous for gene in library[name]} | {"KRT5", "KRT6A", "TP63", "NKX2-1", "NAPSA"}
    counts = counts.loc[:, [gene in whole or i % 3 == 0 for i, gene in enumerate(counts.columns)]]
    table = differential.differential_expression(counts.to_numpy(), classes, counts.columns)
    plain = plainly(counts[table.index], classes)
    assert np.allclose(table[differential.COLUMNS], plain[differential.COLUMNS], rtol=1e-9, atol=1e-12, equal_nan=True)
    place = table["stat"].rank(pct=True)
    assert place[["KRT5", "KRT6A", "TP63"]].min() > 0.97
    assert place[["NKX2-1", "NAPSA"]].max() < 0.04

    found = enrichment.enrich(table["stat"], library)
    significant = found.loc[found.index.isin(squamous) & (found["fdr"] < 0.01), "nes"]
    assert len(significant) >= 2 and (significant > 0).all()
    assert enrichment.select(found)[1]
