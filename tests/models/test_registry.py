"""An aggregator of a notebook's own: registered under a name, trained by the engine, kept, found again, refused."""

import io
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from torch import nn

from mmmil import params, record, variants
from mmmil.models import registry
from mmmil.models.fusion import MultimodalMIL
from mmmil.params import ParameterError
from mmmil.training import runs
from tests.small_studies import make

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"inputs": "genes", "variants": ["go", "baseline_genes"], "sim_patients": 24, "sim_genes": 500}
SMALL |= {"sim_sets": 20, "n_folds": 2, "epochs": 2, "ae_epochs": 2, "kegg_gmt": "", "fallback_sets": 6}
CELL = '''
import torch
from torch import nn
from mmmil.models import registry

@registry.register("mean_sets", "mean of the gene sets", genes="go")
class MeanSets(nn.Module):
    """The mean of the gene tokens, and a linear classifier."""

    def __init__(self, gene_dim):
        super().__init__()
        self.classifier = nn.Linear(gene_dim, 2)

    def forward(self, tiles, genes, mask):
        return self.classifier(genes.mean(1))
'''


@pytest.fixture(autouse=True)
def forgotten():
    """What a test registers is gone after it."""
    yield
    variants.OWN.clear()
    registry._registered.clear()


@pytest.fixture(scope="module")
def s(tmp_path_factory):
    return make(tmp_path_factory.mktemp("registry"), **SMALL)


@pytest.fixture(scope="module")
def folder(s):
    return s.p.results.parent


def executed(folder, *cells):
    """The outputs of a notebook of these cells, in a kernel of its own, as text."""
    setup = (
        "from mmmil import params, study\n"
        f"s = study.load(params.load('nsclc', 'demo', data_dir={str(folder / 'data')!r}, "
        f"results_dir={str(folder / 'results')!r}, **{SMALL!r}))"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in (setup, *cells)])
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    return ["".join(out["text"] for out in cell["outputs"] if out.get("name") == "stdout") for cell in notebook.cells]


TRAIN = """
from mmmil.training import runs
folders = [runs.run(s, "mean_sets", fold) for fold in s.fold_numbers]
print(*folders, sep="\\n")
"""
TABLE = """
from mmmil import variants
from mmmil.evaluation import summary
names = [*variants.in_table(s.p, "5"), "mean_sets"]
predictions = runs.predictions(s, names)
print(summary.table(summary.summarise(predictions, s.p, names), names).to_csv())
"""


def test_a_class_of_a_cell_is_trained_found_again_shown_and_refused_where_it_is_unknown(folder, s):
    _, _, trained, table = executed(folder, CELL, TRAIN, TABLE)
    made = [Path(line) for line in trained.split()]
    assert len(made) == 3 and all((path / "model.safetensors").is_file() for path in made)
    runs_of = [record.run_json(path) for path in made]
    assert all(run["inputs"]["aggregator"] and run["inputs"]["variant"]["name"] == "mean_sets" for run in runs_of)
    # on the same folds as the paper's model
    for path, fold in zip(made, s.fold_numbers, strict=True):
        own, paper_s = (record.read_parquet(where / "predictions.parquet") for where in (path, runs.run(s, "go", fold)))
        assert own["patient_id"].equals(paper_s["patient_id"]) and own["label"].equals(paper_s["label"])
    assert "mean of the gene sets" in table and "GO sets" in table and "baseline" in table
    cells = pd.read_csv(io.StringIO(table), index_col=0)
    assert cells.loc["mean of the gene sets"].str.fullmatch(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]").all()

    # Another process that registers it finds it; a comment is no other class, another line is.
    times = [path.stat().st_mtime_ns for path in made]
    again = executed(folder, CELL.replace('"""The mean', '"""A mean'), TRAIN)[2]
    assert [Path(line) for line in again.split()] == made and [p.stat().st_mtime_ns for p in made] == times
    other = executed(folder, CELL.replace("genes.mean(1)", "genes.amax(1)"), TRAIN)[2]
    assert not set(map(Path, other.split())) & set(made)

    with pytest.raises(CellExecutionError, match=r"no variant .mean_sets.(.|\n)* known where it is registered"):
        executed(folder, TRAIN)
    call = [sys.executable, "-m", "mmmil", "train", "--task", "lgg", "--overlay", "demo", "--training", "mean_sets/0"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode and "no variant 'mean_sets'" in done.stderr and "Traceback" not in done.stderr


def mean_of(value=0.0):
    class Mean(nn.Module):
        def __init__(self, gene_dim, n_sets, p, image_dim=None):
            super().__init__()
            self.sizes, self.out = (image_dim, gene_dim, n_sets, p.width), nn.Linear(gene_dim, 2)

        def forward(self, tiles, genes, mask):
            return self.out(genes.mean(1) + value)

    return Mean


def test_what_a_class_names_around_it_is_part_of_its_key(s):
    places = []
    for value in (0.0, 0.0, 1.0):
        registry.register("mean", genes="go")(mean_of(value))
        places.append(runs._place(s, "mean", 0)[1]["aggregator"])
    assert places[0] == places[1] != places[2]


def test_it_is_made_with_the_sizes_that_it_names(s):
    registry.register("mean", genes="go")(mean_of())
    v = variants.variant("mean")
    assert registry.make(v, s.p, 0, 96, 7).sizes == (0, 96, 7, s.p.width)
    assert v.uses_genes and not v.uses_slides and v.tables == ("own",)
    assert "mean" not in variants.variants(s.p), "the batch trains the paper's models"


def test_what_cannot_be_registered_is_said():
    for taken in ("dual_go", "dual", "logistic", "image"):  # of a model, and of ways of joining that models ask for
        with pytest.raises(registry.RegistryError, match="name of the paper's models"):
            registry.register(taken, genes="go")
    for wrong in ({"genes": "GO"}, {"genes": "all"}, {"backbone": "Reduced"}, {"backbone": "mobilenet", "genes": "go"}):
        with pytest.raises(registry.RegistryError, match="is not one of"):
            registry.register("mine", **wrong)
    with pytest.raises(registry.RegistryError, match="reads nothing"):
        registry.register("mine")
    with pytest.raises(registry.RegistryError, match="is no name"):
        registry.register("my model", genes="go")

    class Wants(nn.Module):
        def __init__(self, gene_dim, depth):
            super().__init__()

    class ReadsTiles(nn.Module):
        def __init__(self, image_dim, gene_dim):
            super().__init__()

        def forward(self, tiles, genes):
            return tiles

    with pytest.raises(registry.RegistryError, match=r"wants image_dim, .*register\(\"mine\", backbone=\"reduced\"\)"):
        registry.register("mine", genes="go")(ReadsTiles)
    with pytest.raises(registry.RegistryError, match=r"wants gene_dim, .* genes=\"go\""):
        registry.register("mine", backbone="reduced")(ReadsTiles)
    with pytest.raises(registry.RegistryError, match=r"forward cannot be called: .*write forward\(self, tiles, genes,"):
        registry.register("mine", backbone="reduced", genes="go")(ReadsTiles)
    assert "mine" not in variants.OWN

    with pytest.raises(registry.RegistryError, match="wants depth"):
        registry.register("mine", genes="go")(Wants)
    with pytest.raises(ParameterError, match="no variant 'mine'"):
        variants.variant("mine")


def test_its_mask_is_whole_where_no_bag_is_padded(s):
    class Given(nn.Module):
        def forward(self, tiles, genes, mask):
            return tiles, genes, mask

    registry.register("given", backbone="features")(Given)
    own, tiles = registry.make(variants.variant("given"), s.p, 4, 0, 0), torch.zeros(2, 3, 4)
    assert own(tiles, None, None)[2].equal(torch.ones(2, 3, dtype=torch.bool))
    padded = torch.tensor([[True, True, False], [True, False, False]])
    assert own(tiles, None, padded)[2] is padded
    assert own(None, tiles, None)[2] is None and not own.state_dict()


def test_every_model_of_the_papers_tables_is_made_by_name():
    p = params.load("lgg", "demo")
    for v in variants.VARIANTS.values():
        if v.fusion != "logistic" and not v.optional:
            assert isinstance(registry.make(v, p, 96 * v.uses_slides, 96 * v.uses_genes, 5 * v.uses_genes), nn.Module)
            assert registry.source(v) is None


def test_knowing_a_name_costs_no_torch():
    script = "import sys, mmmil.models.registry, mmmil.training.runs; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


@pytest.mark.parametrize("fusion", ["image", "genes", "self", "dual"])
def test_the_model_hands_out_its_vectors_and_tokens_by_name(fusion):
    torch.manual_seed(0)
    sizes = {"image": (12, 0), "genes": (0, 10)}.get(fusion, (12, 10))
    model = MultimodalMIL(fusion, *sizes, 5, width=16, heads=2).eval()
    tiles, genes = torch.randn(3, 6, 12), torch.randn(3, 5, 10)
    given = {"tiles": tiles if sizes[0] else None, "genes": genes if sizes[1] else None}
    encoded = model.encode(**given)
    names = {"image": ["image"], "genes": ["genes"], "self": ["image", "genes"]}
    expected = names.get(fusion, ["image", "genes", "image_from_genes", "genes_from_image"])
    assert list(encoded.vectors) == expected and all(v.shape == (3, 16) for v in encoded.vectors.values())
    assert {name: tuple(t.shape) for name, t in encoded.tokens.items()} == {
        name: shape for name, shape in (("image", (3, 6, 16)), ("genes", (3, 5, 16))) if name in expected
    }
    logits, att = model(**given)
    assert torch.equal(logits, model.classifier(torch.cat(list(encoded.vectors.values()), -1)))
    assert att.keys() == encoded.att.keys()
