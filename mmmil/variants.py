"""The variant table: every model behind the paper's tables is a row of data, trained once per fold and seed."""

from __future__ import annotations

from dataclasses import dataclass

from mmmil import paper
from mmmil.params import ParameterError, Params


@dataclass(frozen=True)
class Variant:
    """One model: tile encoder, gene representation, how both are joined, and the paper's tables that show it."""

    name: str
    shown_as: str
    # original, uib, reduced (trained end to end), resnet50d, ctranspath, features (frozen; the last by the parameter
    # mil_features), colour (baseline), or ""
    backbone: str
    genes: str  # go, kegg (gene sets), genes (one vector of single genes), all (baseline), or ""
    # image, genes, self, dual, co (MCAT), clam, transmil, logistic (baseline), or the name of a registered aggregator
    fusion: str
    tables: tuple[str, ...] = ()

    @property
    def uses_slides(self) -> bool:
        return self.backbone != ""

    @property
    def uses_genes(self) -> bool:
        return self.genes != ""

    @property
    def uses_gene_sets(self) -> bool:
        return self.genes in ("go", "kegg")

    @property
    def is_trained_end_to_end(self) -> bool:
        return self.backbone in ("original", "uib", "reduced")

    @property
    def reads_features(self) -> bool:
        """Whether a frozen encoder's features are its tiles."""
        return self.backbone in ("resnet50d", "ctranspath", "features")

    def encoder(self, p: Params) -> str:
        """Name of the frozen tile encoder whose features the variant reads."""
        return p.mil_features if self.backbone == "features" else self.backbone

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
        # Not in the paper: what trivial models reach on the same folds stands beside every table.
        Variant("baseline_genes", "baseline: logistic regression, all genes", "", "all", "logistic"),
        Variant("baseline_image", "baseline: logistic regression, mean colour", "colour", "", "logistic"),
    ]
}

BASELINES = [name for name, v in VARIANTS.items() if v.fusion == "logistic"]
OWN: dict[str, Variant] = {}  # rows that a notebook has added in this process (mmmil.models.registry)


def variant(name: str) -> Variant:
    """A row of the table, or one that was registered. Raises ParameterError for a name that is neither."""
    if name not in VARIANTS and name not in OWN:
        raise ParameterError(
            f"variants: no variant {name!r}; there are {', '.join([*VARIANTS, *OWN])}. A class of a notebook's own is "
            "known where it is registered, in every process anew (mmmil.models.registry)"
        )
    return VARIANTS[name] if name in VARIANTS else OWN[name]


def variants(p: Params) -> list[str]:
    """Names of the variants a task trains: those asked for, or all that its inputs allow.

    Raises ParameterError for an unknown name, or one that needs a modality the cohort lacks.
    """
    allowed = [
        v.name
        for v in VARIANTS.values()
        if (p.has_slides or not v.uses_slides)
        and (p.has_genes or not v.uses_genes)
        and (p.kegg_gmt or v.genes != "kegg")
    ]
    for name in p.variants:
        if variant(name).name not in allowed:
            raise ParameterError(
                f"variants: {name} needs slides, genes or a GMT that inputs='{p.inputs}' does not give"
            )
    return [name for name in VARIANTS if name in p.variants] or allowed


def proposed(p: Params) -> list[str]:
    """The models that the paper proposes for what the task has (slides, genes or both), of those that it trains."""
    return [name for name in paper.PROPOSED[p.inputs] if name in variants(p)]


def all_proposed(p: Params) -> list[str]:
    """Every proposed model that the task trains: the multimodal ones first, then those of gene sets, then of images."""
    names = [name for inputs in ("both", "genes", "slides") for name in paper.PROPOSED[inputs]]
    return [name for name in names if name in variants(p)]


def in_table(p: Params, table: str) -> list[str]:
    """Variants of one of the paper's tables that this task trains, in the table's order.

    Last come the baselines that read the same modalities.
    """
    trained = variants(p)
    listed = [VARIANTS[n] for n in trained if table in VARIANTS[n].tables]
    baselines = [VARIANTS[n] for n in trained if n in BASELINES]
    slides, genes = any(v.uses_slides for v in listed), any(v.uses_genes for v in listed)
    return [
        v.name for v in [*listed, *(b for b in baselines if (b.uses_slides and slides) or (b.uses_genes and genes))]
    ]
