"""The variant table: every model behind the paper's tables is a row of data, trained once per fold and seed."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from mmmil import paper
from mmmil.params import FEATURES, ParameterError, Params
from mmmil.settings import encoders

MOBILENET = "mobilenetv4_conv_small_050"  # what timm calls the paper's backbone
TRAINED = ("original", "uib", "reduced")
FROZEN = ("resnet50d", "ctranspath")  # the paper's two
PAPERS = "resnet50d"  # behind CLAM and TransMIL
TORCHMIL = {
    "abmil": "ABMIL",
    "dsmil": "DSMIL",
    "dtfd": "DTFD-MIL",
    "transmil": "TransMIL",
    "transformer": "Transformer ABMIL",
}


@dataclass(frozen=True)
class Variant:
    """One model: tile encoder, gene representation, how both are joined, and the paper's tables that show it."""

    name: str
    shown_as: str
    # original, uib, reduced (trained end to end), resnet50d, ctranspath, features or a name of `encoders` (frozen;
    # features: those that the task brings, else ResNet50d's), colour (baseline), or ""
    backbone: str
    genes: str  # go, kegg (gene sets), genes (one vector of single genes), all (baseline), or ""
    # image, genes, self, dual, co (MCAT), clam, transmil, torchmil_<model>, logistic (baseline), or the name of a
    # registered aggregator
    fusion: str
    tables: tuple[str, ...] = ()
    optional: bool = False  # trained only where a task names it
    faithful: bool = False  # as the paper states it, and nothing of ours: see mmmil.models.registry
    raw_keys: bool = False  # cross-attention reads the other modality's tokens before they attend to each other

    @property
    def uses_slides(self) -> bool:
        return self.backbone != ""

    @property
    def uses_genes(self) -> bool:
        return self.genes != ""

    @property
    def uses_gene_sets(self) -> bool:
        return self.genes in ("go", "kegg")

    def is_trained_end_to_end(self, p: Params) -> bool:
        """Whether its backbone is trained with it; where a task brings features, they stand in the backbone's place."""
        return self.backbone in TRAINED and not p.features_dir

    def reads_features(self, p: Params) -> bool:
        """Whether a frozen encoder's features are its tiles."""
        return (
            self.uses_slides
            and not self.is_trained_end_to_end(p)
            and (self.backbone != "colour" or bool(p.features_dir))
        )

    def encoder(self, p: Params) -> str:
        """Name of the frozen tile encoder whose features the variant reads (`reads_features`)."""
        if p.features_dir and self.backbone in ("reduced", "features", "colour"):
            return FEATURES
        return PAPERS if self.backbone == "features" else self.backbone

    def trains_gene_encoder(self, p: Params) -> bool:
        """Whether the encoder half of the autoencoder is trained with the model; a single-gene vector has none."""
        return p.gene_encoder == "trained" and self.uses_gene_sets


VARIANTS = {
    v.name: v
    for v in [
        Variant("wsi_original", "WSI, original MobileNetV4", "original", "", "image", ("2", "3")),
        Variant("wsi_uib", "WSI, UIB-reduced", "uib", "", "image", ("2", "3")),
        Variant("wsi", "WSI, UIB-reduced + APoZ", "reduced", "", "image", ("2", "3", "4", "5", "6")),
        Variant("clam", "CLAM, frozen features", "features", "", "clam", ("4",)),
        Variant("transmil", "TransMIL, frozen features", "features", "", "transmil", ("4",)),
        Variant("go", "GO sets", "", "go", "genes", ("5",)),
        Variant("kegg", "KEGG sets", "", "kegg", "genes", ("6",)),
        Variant("dual_go", "WSI + GO, dual-attention", "reduced", "go", "dual", ("5", "7", "9", "11")),
        Variant("dual_kegg", "WSI + KEGG, dual-attention", "reduced", "kegg", "dual", ("6", "8", "10", "11")),
        Variant("self_go", "WSI + GO, self-attention", "reduced", "go", "self", ("7",)),
        Variant("self_kegg", "WSI + KEGG, self-attention", "reduced", "kegg", "self", ("8",)),
        Variant("co_go", "WSI + GO, co-attention", "reduced", "go", "co", ("7",)),
        Variant("co_kegg", "WSI + KEGG, co-attention", "reduced", "kegg", "co", ("8",)),
        Variant("resnet50d_go", "WSI (frozen ResNet50d) + GO", "resnet50d", "go", "dual", ("2", "9")),
        Variant("resnet50d_kegg", "WSI (frozen ResNet50d) + KEGG", "resnet50d", "kegg", "dual", ("2", "10")),
        Variant("ctranspath_go", "WSI (frozen CTransPath) + GO", "ctranspath", "go", "dual", ("2", "9")),
        Variant("ctranspath_kegg", "WSI (frozen CTransPath) + KEGG", "ctranspath", "kegg", "dual", ("2", "10")),
        Variant("dual_genes", "WSI + single-gene vector", "reduced", "genes", "dual", ("11",)),
        # As the paper states them: TransMIL's width, Nyström's attention as published, nothing that is ours.
        Variant("faithful_go", "GO sets, as the paper states it", "", "go", "genes", ("5",), True, True),
        Variant("faithful_dual_go", "WSI + GO, as the paper states it", "reduced", "go", "dual", ("5",), True, True),
        # What the paper leaves open: which tokens cross-attention refers to (those that are encoded in all other rows).
        Variant("raw_dual_go", "WSI + GO, raw keys", "reduced", "go", "dual", ("7",), optional=True, raw_keys=True),
        # Not in the paper: the field's library beside ours, where a task names them (mmmil.models.torchmil_adapter).
        *(
            Variant(f"torchmil_{name}", f"{shown_as} (torchmil)", "features", "", f"torchmil_{name}", ("4",), True)
            for name, shown_as in TORCHMIL.items()
        ),
        # Not in the paper: what trivial models reach on the same folds stands beside every table.
        Variant("baseline_genes", "baseline: logistic regression, all genes", "", "all", "logistic"),
        Variant("baseline_image", "baseline: logistic regression, mean of the tiles", "colour", "", "logistic"),
        Variant("baseline_late", "baseline: late fusion of these two", "colour", "all", "logistic"),
    ]
}
# The rows that a frozen encoder gives, by its name: (before it, after it, what it is called, genes, fusion, table).
BY_ENCODER = (
    ("wsi_", "", "WSI (frozen {})", "", "image", "4"),
    ("clam_", "", "CLAM, frozen {}", "", "clam", "4"),
    ("transmil_", "", "TransMIL, frozen {}", "", "transmil", "4"),
    ("", "_go", "WSI (frozen {}) + GO", "go", "dual", "9"),
    ("", "_kegg", "WSI (frozen {}) + KEGG", "kegg", "dual", "10"),
)

BASELINES = [name for name, v in VARIANTS.items() if v.fusion == "logistic"]
OWN: dict[str, Variant] = {}  # rows that a notebook has added in this process (mmmil.models.registry)


def of_encoder(encoder: str) -> list[Variant]:
    """The rows that a frozen encoder gives to Tables 4, 9 and 10."""
    return [
        Variant(f"{before}{encoder}{after}", shown_as.format(encoder), encoder, genes, fusion, (table,))
        for before, after, shown_as, genes, fusion, table in BY_ENCODER
    ]


def variant(name: str) -> Variant:
    """A row of the table, one that was registered, or an encoder's, which its name alone describes.

    Raises ParameterError for a name that is none of these.
    """
    known = {**VARIANTS, **OWN}
    if name in known:
        return known[name]
    for before, after, *_ in BY_ENCODER:
        if name.startswith(before) and name.endswith(after):
            encoder = name.removeprefix(before).removesuffix(after)
            if encoders.is_name(encoder):
                return next(v for v in of_encoder(encoder) if v.name == name)
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise ParameterError(
        f"variants: no variant {name!r}; {meant}there are {', '.join(known)}, and those of `encoders`. A class of a "
        "notebook's own is known where it is registered, in every process anew (mmmil.models.registry)"
    )


def network(p: Params, encoder: str) -> tuple[str, str]:
    """(network, weights) of a frozen encoder that reads pixels: what timm or the hub calls it, and imagenet or random.

    A named encoder has its published weights, which imagenet stands for, unless its source says random; `weights` is
    about the paper's two and what is trained.
    """
    if encoder not in p.encoders:
        return encoder, p.weights
    name = p.encoders[encoder].removeprefix("random:")
    return name, "imagenet" if name == p.encoders[encoder] else "random"


def published(p: Params) -> list[str]:
    """Networks, as timm or the hub calls them, whose published weights the task's models start from or read through."""
    read = [v for v in map(variant, variants(p)) if v.uses_slides]
    encoders = {v.encoder(p) for v in read if v.reads_features(p)} - p.feature_folders.keys()
    sources = {network(p, encoder) for encoder in encoders}
    sources |= {(MOBILENET, p.weights) for v in read if v.is_trained_end_to_end(p)}
    return sorted({name for name, kind in sources if kind != "random"})


def rows(p: Params) -> list[Variant]:
    """The paper's rows, those of the task's encoders, and last the baselines.

    Raises ParameterError where a class was registered under the name of an encoder's row.
    """
    all_rows = [*VARIANTS.values(), *(v for encoder in p.encoders for v in of_encoder(encoder))]
    for taken in OWN.keys() & {v.name for v in all_rows}:
        raise ParameterError(
            f"encoders: a row of theirs is called {taken}, as a class that was registered; rename one of the two"
        )
    return sorted(all_rows, key=lambda v: v.fusion == "logistic")


def variants(p: Params) -> list[str]:
    """Names of the variants a task trains: those asked for, or all that its inputs and encoders allow, less those that
    have to be asked for.

    Raises ParameterError for an unknown name, and for one that the task's inputs do not allow, with the reason.
    """
    names = [v.name for v in rows(p)]
    for name in p.variants:
        require(name, p)
    if p.variants:
        return [name for name in names if name in p.variants]
    return [name for name in names if not variant(name).optional and not _lacking(variant(name), p)]


def require(name: str, p: Params) -> None:
    """Raise ParameterError for a variant that there is not, or that the task's inputs do not allow, with the reason."""
    if lacking := _lacking(variant(name), p):
        raise ParameterError(f"variants: {name} needs {lacking}")


def _lacking(v: Variant, p: Params) -> str:
    """What a variant reads that the task does not have; '' where it has all."""
    if (v.uses_slides and not p.has_slides) or (v.uses_genes and not p.has_genes):
        return f"slides or genes that inputs='{p.inputs}' does not give"
    if v.genes == "kegg" and not p.kegg_gmt:
        return "the pathways of kegg_gmt, which names no file"
    frozen = v.reads_features(p) and v.encoder(p) in FROZEN and p.has_pixels
    if frozen and p.weights == "random" and not p.synthetic:
        return "pretrained weights, since a frozen encoder of random ones (weights: random) has learnt nothing"
    if v.backbone in ("", "features", "colour", *p.encoders):
        return ""
    if v.backbone not in (*TRAINED, *FROZEN):
        return f"the encoder {v.backbone}: name it in encoders"
    if p.features_dir and v.backbone != "reduced":
        return "pixels, and features_dir is read in their place"
    return ""


def proposed(p: Params) -> list[str]:
    """The models that the paper proposes for what the task has (slides, genes or both), of those that it trains."""
    return [name for name in paper.PROPOSED[p.inputs] if name in variants(p)]


def all_proposed(p: Params) -> list[str]:
    """Every proposed model that the task trains: the multimodal ones first, then those of gene sets, then of images."""
    names = [name for inputs in ("both", "genes", "slides") for name in paper.PROPOSED[inputs]]
    return [name for name in names if name in variants(p)]


def in_table(p: Params, table: str) -> list[str]:
    """Variants of one of the paper's tables that this task trains, in the table's order.

    table: its number, as "7". Last come the baselines that read the same modalities. Raises ParameterError for a table
    that the paper has not.
    """
    if table not in paper.TABLES:
        raise ParameterError(f"no table {table!r}: give its number as a text, one of {', '.join(paper.TABLES)}")
    trained = variants(p)
    listed = [variant(n) for n in trained if table in variant(n).tables]
    baselines = [VARIANTS[n] for n in trained if n in BASELINES]
    slides, genes = any(v.uses_slides for v in listed), any(v.uses_genes for v in listed)
    read = [b for b in baselines if b.uses_slides <= slides and b.uses_genes <= genes]  # nothing that these do not
    return [v.name for v in [*listed, *read]]
