"""Every setting: its stage, type, range, default and reason.

The defaults are the paper's values, or ours where it is silent (UNSTATED) or where we differ on purpose (`attention`);
the description then gives the reason. The fields are grouped by the stage that reads them, so that a stage's results
depend on its own parameters and on nothing else.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Stage(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Simulation(Stage):
    """The synthetic cohort with planted truth; read only where `synthetic` is true."""

    synthetic: bool = Field(False, description="the cohort is made by mmmil.simulate; every page says so")
    sim_patients: int = Field(48, ge=24, description="patients per task")
    sim_slide_px: int = Field(1024, ge=512, description="side of a synthetic slide at level 0, px")
    sim_mpp: float = Field(0.5, gt=0, description="µm per px of a synthetic slide at level 0 (20x)")
    sim_genes: int = Field(2000, ge=500, description="genes in a synthetic counts file (a GDC file has 60,660)")
    sim_sets: int = Field(60, ge=10, description="GO-like sets; KEGG-like sets are half as many")
    sim_effect: float = Field(1.0, ge=0, description="log2 fold change of a planted gene")
    sim_image_share: float = Field(0.5, gt=0, le=1, description="share of a class-1 slide's tissue with planted nuclei")
    sim_one_modality: float = Field(
        0.2,
        ge=0,
        le=0.5,
        description="share of patients whose class shows in one modality only, for each of the two",
    )
    sim_null: bool = Field(False, description="no signal at all: every AUC should be 0.5")


class Cohort(Stage):
    """Who is in the study, and how the patients are split."""

    task: str = Field(description="name of the task: a file of params/")
    title: str = Field("", description="what the pages call the task")
    class_names: list[str] = Field(min_length=2, max_length=2, description="class 0, class 1")
    overlay: str = Field("", description="second file of params/ laid over the task's; empty at the paper's scale")
    seed: int = Field(0, ge=0, description="of splits, tile choice, initial weights and batches")
    data_dir: str = Field(
        "data/tcga/{task}", description="where the cohort's files lie; {task} and {real} are filled in"
    )
    results_dir: str = Field("results/{task}", description="where results are written")
    inputs: Literal["both", "slides", "genes"] = Field("both", description="modalities this cohort has")
    cohort_table: str = Field("", description="own table patient_id,label,site,slide_id,slide_path,expression_path")
    sample_sheets: list[str] = Field([], description="GDC sample sheets of slides and RNA files, if no own table")
    clinical: list[str] = Field([], description="clinical tables with the column the label rule reads")
    manifests: list[str] = Field([], description="GDC manifests: files must have the size that these state")
    gdc_projects: list[str] = Field([], description="projects whose open files `python -m mmmil.gdc` fetches")
    label_rule: Literal["table", "grade", "project", "ihc", "pam50", "pam50_or_ihc", "matrix"] = Field(
        "table",
        description="table: the label column; grade, project, ihc, pam50: from clinical; pam50_or_ihc: Luminal A by "
        "PAM50, TNBC by IHC; matrix: by expression file",
    )
    contested: Literal["exclude", "ihc", "pam50"] = Field(
        "exclude",
        description="pam50_or_ihc: a patient whom both rules claim is left out and counted, or goes by one of them; "
        "unstated",
    )
    class_values: list[list[str]] = Field(
        [],
        description="the label rule's values that mean class 0 and class 1; everything else is excluded and counted",
    )
    paper_patients: list[int] = Field(
        [], description="patients per class in the paper; what was found is shown beside them"
    )
    expression_matrix: list[str] = Field([], description="genes x patients matrices in place of a file per patient")
    expression_kind: Literal["star", "htseq", "counts", "log2tpm", "zscore"] = Field(
        "star", description="what the expression files hold; only counts may reach DESeq2"
    )
    gene_table: str = Field(
        "",
        description="CSV gene_id,symbol,length of genes: symbols of files that have ids only, lengths (bp) for TPM",
    )
    counts_level: Literal["tpm", "cpm"] = Field(
        "tpm",
        description="level of counts whose file states no TPM: tpm needs the lengths of gene_table, cpm does without",
    )
    round_counts: bool = Field(
        False, description="round expected counts (RSEM) to whole numbers for DESeq2; otherwise they are refused"
    )
    test_fraction: float = Field(0.2, gt=0, lt=1, description="held-out patients (paper: 20 %)")
    n_folds: int = Field(5, ge=2, description="stratified cross-validation folds of the rest (paper: 5)")
    fold_groups: Literal["none", "site"] = Field(
        "none",
        description="site: folds and test set share no site, as TCGA's barcodes code it: a hospital and a disease, so "
        "a hospital may have several; unstated",
    )
    incomplete: Literal["error", "exclude"] = Field(
        "error", description="a patient without slide or expression stops the run, or is left out and counted"
    )
    notebooks: list[str] = Field(
        [
            "01_dataset",
            "02_preprocessing",
            "03_backbone_pruning",
            "04_multimodal_ablations",
            "05_end_to_end_vs_frozen",
            "06_gene_representation",
            "07_attention_analysis",
            "09_summary",
        ],
        description="notebooks executed for this task; fewer where it has one modality only",
    )


class Tiles(Stage):
    """Slides to tiles (Preprocessing)."""

    tile_px: int = Field(256, ge=32, description="side of a tile, px")
    tile_level: int = Field(0, ge=0, description="pyramid level; the paper names no magnification, 0 is the scan's own")
    tile_magnification: float = Field(
        0.0, ge=0, description="objective power of the tiles (20: 20x) in place of a level; 0: by tile_level"
    )
    tile_mpp: float = Field(0.0, ge=0, description="µm per px of the tiles in place of a level; 0: by tile_level")
    tissue_percent: float = Field(90.0, ge=0, lt=100, description="a tile is valid above this tissue share (Otsu), %")
    n_tiles: int = Field(
        64,
        ge=0,
        description="tiles per patient; 64 is what all the paper's patients could give. 0: the largest number that "
        "all patients with min_tiles can give",
    )
    min_tiles: int = Field(16, ge=1, description="with n_tiles 0: a patient with fewer valid tiles is too few")
    tile_choice: Literal["random", "tissue", "spread"] = Field(
        "random",
        description="how n_tiles of the valid ones are chosen (random, highest tissue share, spread over the tissue); "
        "unstated in the paper, random has no bias",
    )
    few_tiles: Literal["error", "exclude", "pad"] = Field(
        "exclude",
        description="a patient with fewer valid tiles is left out and counted, stops the run, or is padded and masked",
    )
    mpp_table: str = Field("", description="CSV wsi,mpp: µm per px at level 0, in place of what the slide's file says")
    coords_dir: str = Field(
        "", description="folder of tile coordinates made by CLAM or TRIDENT, used in place of our own grid"
    )
    stain: Literal["none", "macenko", "reinhard"] = Field(
        "none", description="stain normalisation, fitted on training patients; none as in the paper"
    )
    stain_tiles: int = Field(32, ge=1, description="tiles of training patients that the stain reference is made of")

    @model_validator(mode="after")
    def _one_magnification(self) -> Self:
        given = [n for n in ("tile_level", "tile_magnification", "tile_mpp") if getattr(self, n)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say how large the tiles are; give one of them")
        return self


class Quality(Stage):
    """What is reported of a slide; nothing is left out because of it."""

    max_pen_percent: float = Field(0.5, ge=0, description="pen ink on the thumbnail, %, above which it is reported")
    min_sharpness: float = Field(
        30.0, ge=0, description="variance of the Laplacian of a tile's grey values, median, below which it is blurred"
    )
    min_tissue_percent: float = Field(
        2.0, ge=0, description="tissue on the thumbnail, %, below which it is reported as little"
    )


class Genes(Stage):
    """Counts to gene-set tokens (Preprocessing, Fig. 6)."""

    go_gmt: str = Field("go.gmt", description="GMT file of GO terms, in data_dir")
    kegg_gmt: str = Field("kegg.gmt", description="GMT file of KEGG pathways, in data_dir; empty: none")
    selection: Literal["nested", "all_patients"] = Field(
        "nested",
        description="patients DEG, GSEA and autoencoder see; all_patients leaks (an audit, not a result)",
    )
    min_count: int = Field(
        10, ge=0, description="a gene needs this many counts in as many patients as the smaller class"
    )
    min_class_patients: int = Field(
        3, ge=2, description="patients of each class that every fold must have to be fitted on; below it nothing starts"
    )
    gene_set_fdr: float = Field(0.01, gt=0, le=1, description="adjusted p below which a set is used (paper: 0.01)")
    set_size_min: int = Field(10, ge=2, description="genes of a set found in the data, at least")
    set_size_max: int = Field(500, ge=2, description="genes of a set found in the data, at most")
    fallback_sets: int = Field(
        20,
        ge=2,
        description="sets taken by rank where fewer than 2 pass gene_set_fdr; flagged wherever shown",
    )
    max_sets: int = Field(0, ge=0, description="at most this many sets, best first; 0: all that pass, as in the paper")
    single_genes: int = Field(
        512,
        ge=8,
        description="genes of the single-gene vector, by absolute statistic; the paper gives no list",
    )
    gene_order: Literal["leading", "gmt"] = Field(
        "leading",
        description="of a set's genes in the autoencoder's input: leading edge first, or as in the GMT file; unstated, "
        "and it matters, since all sets share the autoencoder's weights",
    )
    gene_scaling: Literal["zscore", "none"] = Field(
        "zscore", description="log2(TPM+1) per gene scaled on training patients before the autoencoder"
    )
    gene_clip: float = Field(
        5.0,
        ge=0,
        description="training deviations at which a scaled level is cut: tables of z-scores hold values in the "
        "thousands, which a squared error would learn and nothing else; 0: not cut; unstated, chosen as gene_dropout",
    )
    latent_dim: int = Field(96, ge=4, description="length of a gene-set token, as the image token")
    ae_hidden: int = Field(256, ge=4, description="hidden width of the autoencoder; unstated in the paper")
    ae_loss: Literal["element", "set"] = Field(
        "element",
        description="what the masked loss averages over: all genes alike, or all sets alike whatever their size; "
        "unstated",
    )
    ae_epochs: int = Field(30, ge=1, description="epochs of the autoencoder; unstated")
    ae_lr: float = Field(1e-3, gt=0, description="learning rate of the autoencoder; unstated")
    ae_batch: int = Field(256, ge=1, description="(patient, set) pairs per step; unstated")
    token_scaling: Literal["per_set", "none"] = Field(
        "per_set",
        description="latents scaled per set on training patients, so that sets of any level weigh alike",
    )

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.set_size_min > self.set_size_max:
            raise ValueError(f"set_size_min ({self.set_size_min}) is above set_size_max ({self.set_size_max})")
        return self


class Model(Stage):
    """Backbone, encoders and fusion (Proposed Method)."""

    variants: list[str] = Field([], description="rows of the variant table to train; empty: all that the inputs allow")
    weights: Literal["imagenet", "random"] = Field(
        "imagenet", description="start of the backbones; random is for synthetic cohorts and tests"
    )
    weights_dir: str = Field("", description="folder of weight files <timm name>.safetensors; empty: timm's cache")
    kept_channels: int = Field(96, ge=8, description="channels of the last 1x1 convolution kept by APoZ (of 480)")
    batch_norm: Literal["fixed", "batch"] = Field(
        "fixed",
        description="of the trained backbone: statistics measured once on training tiles and then kept, by which no "
        "patient changes another and bags can be of any size; or those of each batch; unstated",
    )
    mil_features: Literal["resnet50d", "ctranspath"] = Field(
        "resnet50d", description="frozen features behind CLAM and TransMIL; unstated"
    )
    apoz_tiles: int = Field(256, ge=8, description="training tiles on which batch norm and APoZ are measured; unstated")
    width: int = Field(96, ge=8, description="token width in the encoders; the image token already has 96 channels")
    heads: int = Field(8, ge=1, description="attention heads, as TransMIL")
    attention: Literal["exact", "nystrom"] = Field(
        "exact", description="nystrom as in the paper; at 64 tokens it saves nothing, so exact is ours"
    )
    landmarks: int = Field(64, ge=1, description="Nyström landmarks; TransMIL takes half its width, unstated here")
    set_embedding: bool = Field(
        True, description="a learned vector per gene set, so that the encoder knows which set a token is"
    )
    gene_encoder: Literal["frozen", "trained"] = Field(
        "frozen",
        description="the autoencoder's encoder half: fixed latents as in the paper, or trained on with the model",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="in the encoders; unstated")
    gene_dropout: float = Field(
        0.6,
        ge=0,
        lt=1,
        description="share of a gene token's values dropped while training: without it, hundreds of patients are "
        "learnt by heart; unstated; 0.6 did best of what was tried in cross-validation of TCGA's glioma z-scores, "
        "later test patients among them",
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


class Training(Stage):
    """Optimisation; the paper states none of it."""

    epochs: int = Field(30, ge=1, description="never chosen on the fold that is reported")
    epoch_choice: Literal["fixed", "inner"] = Field(
        "fixed",
        description="inner: stop after the epoch of the lowest loss on a fifth of the training patients, held out "
        "first and then trained on as well, which takes twice the time; the fifth's gene tokens were fitted with its "
        "own labels (sets and their order) and levels, so its loss is flattered and the stop may come late; the fold "
        "that is reported is not touched; unstated",
    )
    batch_size: int = Field(8, ge=1, description="patients per step")
    lr: float = Field(3e-4, gt=0, description="AdamW, peak of a one-cycle schedule")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW")
    class_weights: bool = Field(True, description="loss weighted by inverse class frequency of the training patients")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="off, so that probabilities are those of the plain loss"
    )
    augment: bool = Field(True, description="flips, right-angle turns and colour of the tiles change while training")
    colour_jitter: float = Field(
        0.05, ge=0, lt=1, description="with augment: each channel's gain is 1 ± this, its shift ± half of it; unstated"
    )
    tile_chunk: int = Field(
        1024,
        ge=0,
        description="tiles that pass the backbone at once; more are taken in turns and computed again for their "
        "gradient, so that memory does not grow with the bag; 0: all at once",
    )
    tiles_held: Literal["auto", "memory", "files"] = Field(
        "auto", description="pixels in memory (and on the GPU where they fit), or read from their files batch by batch"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="bf16 on devices that have it, else 32-bit"
    )
    compile: Literal["never", "backbone"] = Field(
        "never",
        description="backbone: the trained backbone by torch.compile, which takes its time at the start of every "
        "training; `benchmarks/train_step.py --compile` measures whether it pays",
    )
    cpu_threads: int = Field(
        1, ge=1, description="CPU threads of one training; fixed, so that results are bit-identical"
    )


class Evaluation(Stage):
    """Metrics and their intervals."""

    threshold: float = Field(
        0.5, gt=0, lt=1, description="probability of class 1 from which a patient is called class 1"
    )
    null_repeats: int = Field(
        3,
        ge=1,
        description="times the labels are shuffled to see what the choice of gene sets gives without any signal",
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="of intervals: Student's t over the folds; unstated")


class Attention(Stage):
    """Attention analysis (Gene Set-Level Analysis of Attention Weights)."""

    attention_fdr: float = Field(0.01, gt=0, le=1, description="adjusted p of the Mann-Whitney U test (paper: 0.01)")
    n_permutations: int = Field(1000, ge=10, description="label permutations; unstated")
    null_models: int = Field(
        5, ge=1, description="models trained on permuted labels, each as long as the model itself; unstated"
    )
    null_draws: int = Field(
        199, ge=1, description="untrained models, and draws of random genes in the place of the sets; unstated"
    )
    top_tiles: int = Field(8, ge=1, description="tiles shown as most and least attended")
    further_seeds: int = Field(
        2, ge=1, description="further trainings of one model, to see whether its attention comes out again; unstated"
    )


STAGES: dict[str, type[Stage]] = {
    "simulation": Simulation,
    "cohort": Cohort,
    "tiles": Tiles,
    "quality": Quality,
    "genes": Genes,
    "model": Model,
    "training": Training,
    "evaluation": Evaluation,
    "attention": Attention,
}
# What changes where files lie, what pages are called or where it is computed, but no number beyond rounding (run.json
# says on which device and in which precision): left out of every hash.
UNHASHED = {
    *("overlay", "title", "notebooks", "data_dir", "results_dir"),
    *("weights_dir", "variants", "top_tiles", "device", "gdc_projects", "paper_patients", "tiles_held"),
}


# What the paper leaves open; the book lists these with their reasons.
UNSTATED = {
    *(
        "selection",
        "label_rule",
        "contested",
        "incomplete",
        "tile_level",
        "tile_choice",
        "few_tiles",
        "min_count",
        "set_size_min",
    ),
    *("set_size_max", "fallback_sets", "max_sets", "single_genes", "gene_order", "gene_scaling", "ae_hidden"),
    *("min_class_patients", "ae_loss", "gene_clip", "gene_encoder", "gene_dropout", "fold_groups"),
    *("counts_level", "round_counts", "null_repeats"),
    *("ae_epochs", "ae_lr", "ae_batch", "token_scaling", "apoz_tiles", "width", "heads", "attention", "landmarks"),
    *("set_embedding", "dropout", "epochs", "batch_size", "lr", "weight_decay", "class_weights", "label_smoothing"),
    *("batch_norm", "mil_features", "epoch_choice", "colour_jitter"),
    *(
        "augment",
        "precision",
        "threshold",
        "confidence",
        "n_permutations",
        "null_models",
        "null_draws",
        "further_seeds",
    ),
}
