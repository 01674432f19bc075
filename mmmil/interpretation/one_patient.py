"""One held-out patient on the way through the proposed model, step by step on the CPU (Proposed Method).

The model and its inputs are those of a training, so that every step can be called by hand, and what comes out at the
end is the recorded prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn

from mmmil import record, variants
from mmmil.interpretation.extract import ELSEWHERE
from mmmil.models.reading import encoders
from mmmil.training import build, device, runs
from mmmil.training.inputs import Genes, inputs_of

if TYPE_CHECKING:
    from mmmil.models.bag_model import BagModel
    from mmmil.models.fusion import MultimodalMIL
    from mmmil.study import Study
    from mmmil.training.fit import Inputs

ALONE = 1e-4  # the record predicts patients in batches, where sums are added in another order


@dataclass(frozen=True)
class OnePatient:
    """A patient whom the model of a fold has not seen.

    patient: its name; label: 0 or 1; model: in evaluation mode on the CPU, its weights fixed; trained: False where the
    training failed and the model is as it started; recorded: probability of class 1 in the record, or the model's own
    where it is not trained; tolerance: how far a prediction made here may lie from it; inputs: of the whole cohort;
    genes: the gene tokens of the fold.
    """

    study: Study
    variant: str
    fold: int
    patient: str
    label: int
    model: BagModel
    trained: bool
    recorded: float
    tolerance: float
    inputs: Inputs
    genes: Genes

    @property
    def row(self) -> int:
        """The patient's row in the cohort's order."""
        return self.study.patients.index(self.patient)

    @property
    def given(self) -> dict[str, Tensor]:
        """What the model reads of the patient alone, without padding: tiles (1, N, px, px, 3) uint8, or features
        (1, N, D), and genes (1, M, D).
        """
        given = self.take([self.patient])
        mask = given.pop("mask", None)
        return given if mask is None else given | {"tiles": given["tiles"][mask][None]}

    def take(self, patients: Sequence[str]) -> dict[str, Tensor]:
        """Arguments of the model for some patients of the fold."""
        return self.inputs.take(torch.tensor([self.study.patients.index(patient) for patient in patients]))

    @property
    def described(self) -> str:
        """A sentence on who it is and whose model is looked at, in Markdown."""
        p, trained_on = self.study.p, len(self.study.fold_patients(self.fold)[0])
        shown_as = variants.variant(self.variant).shown_as
        model = f"The model is *{shown_as}*, trained on the {trained_on} training patients of fold {self.fold}."
        if not self.trained:
            model = f"**The training of *{shown_as}* failed; the model below has not taken a step.**"
        return f"{model} The patient, `{self.patient}` ({p.class_names[self.label]}), was held out."


def held_out(study: Study, name: str, fold: int = 0) -> OnePatient:
    """The first patient that a fold evaluates, in the cohort's order, and a variant's model of that fold.

    The variant reads tiles and gene sets. Raises NotTrainedError as `runs.run`; where the batch has noted that the
    training failed, the model is the untrained one.
    """
    v, patient = variants.variant(name), study.fold_patients(fold)[1][0]
    failed = runs.failure(study, name, fold) is not None
    fabric = device.make_fabric(study.p)
    if failed:
        inputs, genes = inputs_of(study, v, fold)
        model = _start(study, name, fold, study.fold_patients(fold)[0], inputs, genes)
        recorded, tolerance = float("nan"), ALONE
    else:
        folder = runs.run(study, name, fold)
        held, inputs = build.load_model(study, v, fold, folder, fabric)
        model, (_, genes) = held.module.cpu(), inputs_of(study, v, fold)
        predicted = runs.read(folder).set_index("patient_id")["prob"]
        here = device.circumstances(study.p.override(device="cpu", precision="32-true"))
        trained = record.run_json(folder)["facts"]
        same = all(trained.get(key) == value for key, value in here.items())
        recorded, tolerance = float(predicted[patient]), ALONE if same else ELSEWHERE
    label = int(study.labels[patient])
    one = OnePatient(
        study,
        name,
        fold,
        patient,
        label,
        model.eval().requires_grad_(False),
        not failed,
        recorded,
        tolerance,
        inputs,
        genes,
    )
    return OnePatient(**{**vars(one), "recorded": probability(one)}) if failed else one


def probability(one: OnePatient) -> float:
    """Probability of class 1 by the model in one pass."""
    logits = one.model(**one.given)[0]
    return float(logits.double().softmax(-1)[0, 1])


def untrained(one: OnePatient, patients: Sequence[str]) -> BagModel:
    """The same model before its first step, on the CPU, in training mode; its statistics are those of some patients.

    Its linear skip starts at nothing, so that the first loss is that of a coin.
    """
    return _start(one.study, one.variant, one.fold, patients, one.inputs, one.genes).train()


def _start(
    study: Study, name: str, fold: int, patients: Sequence[str], inputs: Inputs, genes: Genes | None
) -> BagModel:
    v, p = variants.variant(name), study.p.override(device="cpu", precision="32-true")
    rows = [study.patients.index(patient) for patient in patients]
    torch.manual_seed(build.start_seed(p, fold))
    encoder = None
    if v.is_trained_end_to_end(p):
        encoder, _ = build.tile_encoder(p, v, inputs.tiles, study.tile_masks, rows, device.make_fabric(p))
    model = build.build(p, v, genes, encoder, inputs.image_dim, inputs.positions)
    build.measure_scale(model, p, inputs, rows)
    return model


# -- read out --------------------------------------------------------------------------------------------------------
@contextmanager
def reading_matrices(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """While open, every pass leaves the whole self-attention of each encoder here: layer1_image, layer2_image,
    layer1_genes and layer2_genes, (B, H, 1 + N, 1 + N) after the softmax, the class token first.

    With published attention an encoder of tiles attends to its square (`fusion.Square`), so that its first tokens stand
    there twice, behind the others. What the model gives does not change.
    """
    read: dict[str, Tensor] = {}

    @torch.no_grad()
    def keep(name: str, module: Any, args: tuple, named: dict) -> None:
        read[name] = module.forward(args[0], return_att=True, mask=named.get("mask"))[1]

    hooks = [
        layer.attn.register_forward_hook(
            lambda module, args, named, _, name=f"{said}_{over}": keep(name, module, args, named), with_kwargs=True
        )
        for over, encoder in encoders(model).items()
        for said, layer in (("layer1", encoder.layer1), ("layer2", encoder.layer2))
    ]
    try:
        yield read
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def contributions(fusion: MultimodalMIL, vectors: Mapping[str, Tensor], tiles: Tensor, genes: Tensor) -> pd.Series:
    """What each part adds to the logit of class 1 less that of class 0; their sum is that difference itself.

    vectors: name -> (1, W) in the classifier's order; tiles (1, N, C), genes (1, M, D): the tokens, which the linear
    skip reads. The classifier norms the vectors together, so that a part is its share after the norm.
    """
    normed = fusion.classifier[0](torch.cat(list(vectors.values()), -1))
    last: Any = fusion.classifier[-1]
    parts = (normed * (last.weight[1] - last.weight[0])).unflatten(-1, (len(vectors), -1)).sum(-1)[0]
    rows = dict(zip(vectors, parts.tolist(), strict=True)) | {"bias": float(last.bias[1] - last.bias[0])}
    if fusion.linear_skip is not None:
        linear: Any = fusion.linear_skip.linear
        image, sets = fusion.linear_skip.read(tiles, genes, None)
        weights = (linear.weight[1] - linear.weight[0]).split([image.shape[-1], sets.shape[-1]])
        rows |= {"skip, mean tile": float(image[0] @ weights[0]), "skip, gene tokens": float(sets[0] @ weights[1])}
        rows["bias"] += float(linear.bias[1] - linear.bias[0])
    return pd.Series(rows, name="logit")
