"""Every setting: its stage, type, range, default and reason.

The defaults are the paper's values, or ours where it is silent (UNSTATED) or where we differ on purpose (`attention`).
The fields are grouped by the stage that reads them, so that a stage's results depend on its own parameters and on
nothing else. What is no scientific choice and no user's need is a constant of the module that uses it.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Headings of the page of what the paper does not say; `mmmil.book.unsaid` writes them out.
Topic = Literal["patients", "leak", "tiles", "genes", "autoencoder", "model", "training", "evaluation"]


def setting(default: Any, reason: str, unstated: Topic | None = None, **limits: Any) -> Any:
    """A field with its reason; unstated: the topic on which the paper is silent, where it leaves the setting open."""
    return Field(default, description=reason, json_schema_extra={"unstated": unstated} if unstated else None, **limits)


class Stage(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Simulation(Stage):
    """The synthetic cohort with planted truth; read only where `synthetic` is true."""

    synthetic: bool = setting(
        False, "the cohort is made by mmmil.simulate, so that the book needs no patient; every page says so"
    )
    sim_patients: int = setting(
        48, "patients per task: the more, the narrower the intervals and the longer the run", ge=24
    )
    sim_slide_px: int = setting(
        1024, "side of a synthetic slide at level 0, px: it must have room for the tiles", ge=512
    )
    sim_genes: int = setting(2000, "genes in a synthetic counts file, for speed (a GDC file has 60,660)", ge=500)
    sim_sets: int = setting(60, "GO-like sets, some of them planted; KEGG-like sets are half as many", ge=10)
    sim_effect: float = setting(1.0, "log2 fold change of a planted gene: how clearly genes tell the class", ge=0)
    sim_image_share: float = setting(
        0.5, "share of a class-1 slide's tissue with planted nuclei: how clearly slides tell the class", gt=0, le=1
    )
    sim_one_modality: float = setting(
        0.2,
        "share of patients whose class shows in one modality only, for each of the two: what a model of both can win",
        ge=0,
        le=0.5,
    )
    sim_null: bool = setting(False, "no signal at all: every AUC should be 0.5, and what finds more is at fault")


class Cohort(Stage):
    """Who is in the study, and how the patients are split."""

    task: str = setting(..., "name of the task: a file of params/, and the folder of its results")
    title: str = setting("", "what the pages call the task; empty: its name")
    class_names: list[str] = setting(
        ..., "what class 0 and class 1 are called; a probability is that of class 1", min_length=2, max_length=2
    )
    overlay: str = setting("", "second file of params/ laid over the task's; empty at the paper's scale")
    seed: int = setting(
        0,
        "of splits, tile choice, initial weights and batches: a run can be repeated bit for bit",
        ge=0,
        lt=2**32,
    )
    data_dir: str = setting(
        "data/tcga/{task}",
        "where the cohort's files lie, which are no part of the project; {task}, {real}, ~ and $VARIABLES are "
        "filled in, as in every path",
    )
    results_dir: str = setting(
        "results/{run}",
        "where results are written; {run} is <overlay>/<task>, or <task> without an overlay; another place keeps a "
        "trial apart",
    )
    inputs: Literal["both", "slides", "genes"] = setting(
        "both", "modalities this cohort has; models that read another one are left out"
    )
    cohort_table: str = setting(
        "", "own table patient_id,label,site,slide_id,slide_path,expression_path, if not TCGA's"
    )
    sample_sheets: list[str] = setting([], "GDC sample sheets of slides and RNA files, if no own table")
    clinical: list[str] = setting([], "clinical tables with the column that the label rule reads")
    manifests: list[str] = setting([], "GDC manifests: files must have the size that these state, or are cut short")
    gdc_projects: list[str] = setting([], "projects whose open files `python -m mmmil.gdc` fetches")
    label_rule: Literal[
        "table", "grade", "project", "ihc", "pam50", "pam50_or_ihc", "pam50_before_ihc", "ihc_before_pam50", "matrix"
    ] = setting(
        "table",
        "table: the label column; grade, project, ihc, pam50: from clinical; pam50_or_ihc: Luminal A by PAM50, TNBC by "
        "IHC, and who is both is left out and counted, or goes by the first with pam50_before_ihc and "
        "ihc_before_pam50; matrix: by expression file",
        "patients",
    )
    class_values: list[list[str]] = setting(
        [], "the label rule's values that mean class 0 and class 1; everything else is excluded and counted"
    )
    expression_matrix: list[str] = setting([], "genes x patients matrices in place of a file per patient")
    expression_kind: Literal["star", "htseq", "counts", "log2tpm", "zscore"] = setting(
        "star", "what the expression files hold; only counts may reach DESeq2"
    )
    gene_table: str = setting(
        "", "CSV gene_id,symbol,length of genes: symbols of files that have ids only, lengths (bp) for TPM"
    )
    counts_level: Literal["tpm", "cpm"] = setting(
        "tpm",
        "level of counts whose file states no TPM: tpm needs the lengths of gene_table, cpm does without",
        "genes",
    )
    round_counts: bool = setting(
        False, "round expected counts (RSEM) to whole numbers for DESeq2; otherwise they are refused", "genes"
    )
    test_fraction: float = setting(0.2, "held-out patients, on whom nothing is chosen (paper: 20 %)", gt=0, lt=1)
    n_folds: int = setting(5, "stratified cross-validation folds of the rest (paper: 5)", ge=2)
    repeats: int = setting(
        1,
        "times the cross-validation is made, each dealing the same development patients anew: how much hangs on the "
        "deal; the test set stays",
        "evaluation",
        ge=1,
    )
    fold_groups: Literal["none", "site"] = setting(
        "none",
        "site: folds and test set share no site, as TCGA's barcodes code it: a hospital and a disease, so a hospital "
        "may have several",
        "patients",
    )
    incomplete: Literal["error", "exclude"] = setting(
        "error", "a patient without slide or expression stops the run, or is left out and counted", "patients"
    )
    notebooks: list[str] = Field(
        [], description="notebooks executed for this task; empty: all of mmmil/paper.py that its inputs allow"
    )


class Tiles(Stage):
    """Slides to tiles (Preprocessing)."""

    tile_px: int = setting(256, "side of a tile as the backbone reads it, px (paper: 256)", ge=32)
    tile_level: int = setting(0, "pyramid level of the tiles; 0 is the scan's own magnification", "tiles", ge=0)
    tile_mpp: float = setting(
        0.0, "µm per px of the tiles in place of a level (20x: 0.5), where scans differ; 0: by tile_level", ge=0, le=10
    )
    tissue: Literal["biggest", "all"] = setting(
        "biggest",
        "where tiles are looked for: in the box of the slide's biggest piece of tissue, as histolab does unless told "
        "otherwise, or in the boxes of all its pieces: serial sections, biopsy cores",
        "tiles",
    )
    tissue_percent: float = setting(
        90.0, "a tile is valid above this tissue share by Otsu, % (paper: 90)", ge=0, lt=100
    )
    n_tiles: int = setting(
        64,
        "tiles per patient; 64 is what all the paper's patients could give. 0: the largest number that all patients "
        "with at least 16 can give",
        ge=0,
    )
    tile_choice: Literal["random", "tissue", "spread"] = setting(
        "random",
        "how n_tiles of the valid ones are chosen: random, which has no bias and for which positions are tested only "
        "until there are enough, highest tissue share, or spread over the tissue",
        "tiles",
    )
    few_tiles: Literal["error", "exclude", "pad"] = setting(
        "exclude",
        "a patient with fewer valid tiles is left out and counted, stops the run, or is padded and masked",
        "tiles",
    )
    mpp_table: str = setting(
        "", "CSV wsi,mpp: µm per px at level 0, in place of what the slide's file says or leaves out"
    )
    coords_dir: str = setting("", "folder of tile coordinates made by CLAM or TRIDENT, used in place of our own grid")
    features_dir: str = setting(
        "",
        "folder of features made beforehand, by CLAM or TRIDENT or as .pt, .npy or .npz of [instances, width], read in "
        "place of slides; n_tiles is then a patient's instances at most, and 0 is all of them",
    )
    stain: Literal["none", "macenko", "reinhard"] = setting(
        "none",
        "stain normalisation, fitted on training patients, for slides of several laboratories; none as in the paper",
    )

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        if self.tile_level and self.tile_mpp:
            raise ValueError("tile_level and tile_mpp both say how large the tiles are; give one of them")
        if 0 < self.tissue_percent <= 1:
            raise ValueError(f"tissue_percent is in %, and {self.tissue_percent:g} would let nearly all glass pass")
        return self


class Genes(Stage):
    """Counts to gene-set tokens (Preprocessing, Fig. 6)."""

    go_gmt: str = setting("go.gmt", "GMT file of GO terms, in data_dir: its release decides which sets there are")
    kegg_gmt: str = setting("kegg.gmt", "GMT file of KEGG pathways, in data_dir; empty: none, and no model on them")
    selection: Literal["nested", "all_patients"] = setting(
        "nested", "patients whose labels choose genes and sets; all_patients leaks (an audit, not a result)", "leak"
    )
    min_count: int = setting(
        10, "a gene needs this many counts in as many patients as the smaller class: fewer tell nothing", "genes", ge=0
    )
    gene_set_fdr: float = setting(0.01, "adjusted p below which a set is used (paper: 0.01)", gt=0, le=1)
    set_sizes: list[int] = setting(
        [10, 500],
        "genes of a set found in the data, at least and at most: a rank test needs some, larger ones name no process",
        "genes",
        min_length=2,
        max_length=2,
    )
    fallback_sets: int = setting(
        20, "sets taken by rank where fewer than 2 pass gene_set_fdr; flagged wherever shown", "genes", ge=2
    )
    max_sets: int = setting(0, "at most this many sets, best first; 0: all that pass, as in the paper", "genes", ge=0)
    single_genes: int = setting(
        512, "genes of the single-gene vector, by absolute statistic: a list of them is not published", "genes", ge=8
    )
    gene_order: Literal["leading", "gmt"] = setting(
        "leading",
        "of a set's genes in the autoencoder's input: leading edge first, or as in the GMT file; it matters, since all "
        "sets share the autoencoder's weights",
        "genes",
    )
    gene_scaling: Literal["zscore", "none"] = setting(
        "zscore", "log2(TPM+1) per gene scaled on training patients, so that genes of any level weigh alike", "genes"
    )
    gene_clip: float = setting(
        5.0,
        "training deviations at which a scaled level is cut: tables of z-scores hold values in the thousands, which a "
        "squared error would learn and nothing else; 0: not cut",
        "genes",
        ge=0,
    )
    latent_dim: int = setting(96, "length of a gene-set token, as the image token (paper: 96)", ge=4)
    ae_hidden: int = setting(
        256, "hidden width of the autoencoder, between a set's genes and its token", "autoencoder", ge=4
    )
    ae_loss: Literal["element", "set"] = setting(
        "element",
        "what the masked loss averages over: all genes alike, or all sets alike whatever their size",
        "autoencoder",
    )
    ae_epochs: int = setting(30, "epochs of the autoencoder; the pages show its losses", "autoencoder", ge=1)
    ae_batch: int = setting(256, "(patient, set) pairs per step; fewer suit a small cohort", "autoencoder", ge=1)

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if not 2 <= self.set_sizes[0] <= self.set_sizes[1]:
            raise ValueError(f"set_sizes: {self.set_sizes} is not [at least, at most] with 2 genes at least")
        return self


class Model(Stage):
    """Backbone, encoders and fusion (Proposed Method)."""

    variants: list[str] = setting([], "rows of the variant table to train; empty: all that the inputs allow")
    weights: Literal["imagenet", "random"] = setting(
        "imagenet", "start of the backbones; random needs no download, for synthetic cohorts and tests"
    )
    weights_dir: str = setting(
        "", "folder of weight files <timm name>.safetensors, where there is no network; empty: timm's cache"
    )
    kept_channels: int = setting(96, "channels of the last 1x1 convolution kept by APoZ (paper: 96 of 480)", ge=8)
    batch_norm: Literal["fixed", "batch"] = setting(
        "fixed",
        "of the trained backbone: statistics measured once on training tiles and then kept, by which no patient "
        "changes another and bags can be of any size; or those of each batch",
        "model",
    )
    encoders: dict[str, str] = setting(
        {},
        "further frozen tile encoders, name: source, each with rows in Tables 4, 9 and 10; a source is a timm model, "
        "hf-hub:owner/name, random:<timm model>, or features:<folder> of features made beforehand. CLAM and TransMIL "
        "by those names read ResNet50d, which timm can fetch",
        "model",
    )
    apoz_tiles: int = setting(
        256, "training tiles on which batch norm and APoZ are measured: the mean of many", "model", ge=8
    )
    width: int = setting(
        96,
        "token width in the encoders, in 8 heads; the image token already has 96 channels",
        "model",
        ge=8,
        multiple_of=8,
    )
    attention: Literal["exact", "nystrom", "published"] = setting(
        "exact",
        "nystrom as in the paper; at 64 tokens it saves nothing, so exact is ours; published: nystrom as TransMIL's "
        "authors run it, which attends to padding and to repeated tokens, to compare with published numbers",
        "model",
    )
    landmarks: int = setting(64, "of Nyström's approximation; TransMIL takes half its width", "model", ge=1)
    set_embedding: bool = setting(
        True, "a learned vector per gene set, so that the encoder knows which set a token is", "model"
    )
    linear_skip: bool = setting(
        True,
        "a logistic regression on the mean tile and the gene tokens, from which training starts, and to whose logits "
        "the encoders' are added; without it, hundreds of patients are told apart less well than by the regression",
        "model",
    )
    gene_encoder: Literal["frozen", "trained"] = setting(
        "frozen",
        "the autoencoder's encoder half: fixed latents as in the paper, or trained on with the model",
        "autoencoder",
    )
    dropout: float = setting(0.1, "in the encoders; small cohorts of genes alone need more", "model", ge=0, lt=1)
    gene_dropout: float = setting(
        0.6,
        "share of a gene token's values dropped while training: without it, hundreds of patients are learnt by heart",
        "model",
        ge=0,
        lt=1,
    )


class Training(Stage):
    """Optimisation; the paper states none of it."""

    epochs: int = setting(
        30, "a number fixed beforehand, or by `tuning`; never chosen on the fold that is reported", "training", ge=1
    )
    tuning: int = setting(
        0,
        "candidates (`mmmil.training.tuning`: lr, weight_decay, dropout, gene_dropout, epochs; the settings themselves "
        "are the first) of which the lowest log loss on three inner folds of the training patients is trained; each "
        "costs two trainings. Gene tokens are not made again for an inner fold: they were fitted with its labels and "
        "levels, so its loss is flattered; the fold that is reported is not touched. 0: the settings as they stand",
        "training",
        ge=0,
        le=100,
    )
    model_seeds: int = setting(
        1,
        "models of every fold and of the final training, with the seeds from `seed` on: how much hangs on initial "
        "weights and batches; results are means over them",
        "training",
        ge=1,
    )
    batch_size: int = setting(
        8, "patients per step: bags of 64 tiles are large; genes alone take more", "training", ge=1
    )
    lr: float = setting(3e-4, "AdamW, peak of a one-cycle schedule; goes with the batch", "training", gt=0)
    weight_decay: float = setting(1e-2, "of AdamW, PyTorch's own default", "training", ge=0)
    class_weights: bool = setting(
        True,
        "loss weighted by inverse class frequency of the training patients, or the rarer class counts less",
        "training",
    )
    augment: bool = setting(
        True,
        "flips, right-angle turns and colour of the tiles change while training: none of them tells the class",
        "training",
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "auto takes a GPU where there is one; cuda insists on it")
    precision: Literal["auto", "32-true", "bf16-mixed"] = setting(
        "auto", "bf16 on devices that have it, which is faster and takes less memory, else 32-bit", "training"
    )

    @model_validator(mode="after")
    def _a_choice(self) -> Self:
        if self.tuning == 1:
            raise ValueError("tuning: 1 is the settings themselves, and no choice: write 0, or at least 2")
        return self


class Evaluation(Stage):
    """What is evaluated, and how a patient is called."""

    threshold: float = setting(
        0.5,
        "probability of class 1 from which a patient is called class 1: the likelier class",
        "evaluation",
        gt=0,
        lt=1,
    )
    null_repeats: int = setting(
        3, "times the labels are shuffled to see what the choice of gene sets gives without any signal", "leak", ge=1
    )


class Attention(Stage):
    """Attention analysis (Gene Set-Level Analysis of Attention Weights)."""

    attention_fdr: float = setting(0.01, "adjusted p of the Mann-Whitney U test (paper: 0.01)", gt=0, le=1)
    n_permutations: int = setting(1000, "label permutations; the least p is one in a thousand", "evaluation", ge=10)
    null_models: int = setting(
        5,
        "models trained on permuted labels, each as long as the model itself, so that few must do",
        "evaluation",
        ge=1,
    )
    null_draws: int = setting(
        199,
        "untrained models, and draws of random genes in the place of the sets; the least p is 0.005",
        "evaluation",
        ge=1,
    )


STAGES: dict[str, type[Stage]] = {
    "simulation": Simulation,
    "cohort": Cohort,
    "tiles": Tiles,
    "genes": Genes,
    "model": Model,
    "training": Training,
    "evaluation": Evaluation,
    "attention": Attention,
}
# Settings that name files or folders: {task}, {real}, ~ and environment variables are filled in where they are used.
PATHS = (
    *("data_dir", "results_dir", "cohort_table", "sample_sheets", "clinical", "manifests", "expression_matrix"),
    *("gene_table", "mpp_table", "coords_dir", "features_dir", "go_gmt", "kegg_gmt", "weights_dir"),
)
# What changes where files lie, what pages are called or where it is computed, but no number beyond rounding (run.json
# says on which device and in which precision): left out of every hash.
UNHASHED = {
    *("overlay", "title", "notebooks", "data_dir", "results_dir"),
    *("weights_dir", "variants", "device", "gdc_projects"),
}
# Setting -> topic, of what the paper leaves open; the book lists these with their reasons.
UNSTATED: dict[str, str] = {
    name: str(field.json_schema_extra["unstated"])
    for stage in STAGES.values()
    for name, field in stage.model_fields.items()
    if isinstance(field.json_schema_extra, dict)
}
