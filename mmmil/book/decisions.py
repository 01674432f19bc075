"""What the paper leaves open and no setting decides: what is done here, why, and which code does it."""

from __future__ import annotations

from typing import NamedTuple

from mmmil import schema


class Decision(NamedTuple):
    """topic: under which heading of the page it stands; open: what the paper says of it and what it does not; ours:
    what is done here; why; where: module and name of the code that does it, from `mmmil` on.
    """

    topic: schema.Topic
    open: str
    ours: str
    why: str
    where: str


DECISIONS = (
    Decision(
        "patients",
        "The positive class: sensitivity, specificity, PR-AUC and F1 are those of one class, and the paper names it "
        "nowhere. That it speaks of the detection of TNBC as the rarer class says which one it is in breast cancer",
        "class 1, the second of `class_names`: grade III, LUSC, TNBC. ROC-AUC and accuracy at 0.5 do not depend on it; "
        "the other way round sensitivity and specificity change places",
        "the more malignant or the rarer class is what a test is for; of LUAD and LUSC either would do",
        "evaluation.metrics.scores",
    ),
    Decision(
        "genes",
        "The statistic by which GSEA ranks the genes: DESeq2 gives a fold change, shrunken or not, a Wald statistic "
        "and a p-value",
        "the Wald statistic, of all genes that were tested; Welch's t where a cohort has no counts",
        "a fold change alone puts the noisiest genes first; the statistic weighs it by its error and has a sign",
        "genes.choice.gene_statistic",
    ),
    Decision(
        "genes",
        "The branch of GO: molecular functions and biological processes are given as examples, the number of sets per "
        "branch nowhere; the terms that the paper names are of biological processes",
        "whatever `go_gmt` holds, no branch being chosen or left out by code; the tasks on real patients read GO "
        "Biological Process",
        "the file is the only statement of which sets there are, and its hash is in every result's key",
        "genes.choice.gmt",
    ),
    Decision(
        "model",
        "The scale of the tokens: features of an encoder and latents come in units of their own",
        "every model takes the mean of the training tokens from each value and divides by their deviation, tiles by "
        "channel and gene sets each by themselves, with numbers that it keeps; of a trained backbone those of its "
        "first weights. CLAM, TransMIL and the rest read the same tokens",
        "a constant added to all tokens must not change a prediction, and without it one did",
        "models.standardise.Standardise",
    ),
    Decision(
        "model",
        "The keys of cross-attention: the paper says that the summaries which self-attention makes are the queries, "
        "and that they refer to the other modality's features; not whether these are raw or have been encoded",
        "the other modality's tokens as its encoder leaves them, normalised, as keys and values. The row "
        "`raw_dual_go`, where a task names it, has the raw tokens in their place, projected to the encoder's width",
        "both modalities then have one width and know of their own context; the price is that an encoded token holds "
        "something of all others, so that attention to it is not to that tile alone",
        "models.fusion.MultimodalMIL.encode",
    ),
    Decision(
        "model",
        "The form of the classifier: the paper concatenates the vectors and feeds them into a classification module",
        "layer norm, dropout and one linear layer to two logits on the concatenated vectors; with `linear_skip` the "
        "logits of a regression on the tokens themselves are added, which the model starts as",
        "the least that can be called a classifier, so that a difference between models lies in what is joined before; "
        "the skip, since a few hundred patients are told apart less well without it; `faithful` rows have none",
        "models.fusion.MultimodalMIL",
    ),
    Decision(
        "training",
        "The optimiser, loss and schedule of CLAM and TransMIL, which their authors train by Adam and by Lookahead "
        "with RAdam; the paper says neither what it used itself nor whether all models got the same",
        "the same for every model: AdamW, one cycle, the same epochs, weighted cross-entropy; of the published "
        "recipes only CLAM's instance loss and its share are kept",
        "a difference in a table is then one of the models; a baseline may do better by its authors' own recipe",
        "training.fit.fit",
    ),
    Decision(
        "evaluation",
        "Which model scores the test set: one of the five folds, their mean, or another one that is trained on all of "
        "the 80 %",
        "one final model of all development patients, trained as the folds' models are and never evaluated before",
        "it has seen the most patients, is one model as a reader would use it, and its attention can be shown",
        "study.Study.fold_patients",
    ),
    Decision(
        "evaluation",
        "How the confidence intervals were made, and over what",
        "over folds the wider of Student's t and the score interval of so many patients; of one model the score "
        "interval",
        "t and a bootstrap are points where no mistake is made, as on a few dozen patients it happens",
        "evaluation.intervals.of_model",
    ),
    Decision(
        "evaluation",
        'Which attention is "the" attention: of which layer, head and stage it is, before the softmax or after it, and '
        "of which model",
        "that of the final model on the test patients, after the softmax, averaged over heads: of self-attention the "
        "class token's row in either layer and the rollout over both, without the token itself; of cross-attention its "
        "one layer. Drawn gene sets show the rollout, the ledger judges the last layer; heatmaps show input × gradient."
        " Attention over tiles, single heads and scores before the softmax can be asked for",
        "the last layer's row is what the model adds up for its answer, but its tokens are already mixed by the first; "
        "the rollout counts both; what the linear skip and the mean carry is in the gradient alone",
        "interpretation.extract.extract",
    ),
)
