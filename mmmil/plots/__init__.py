"""Figures of the book: each function draws one and returns it; captions and sentences stand in the notebooks."""

from mmmil.plots.attention import attended_sets, attention_on_slide, removal_curves
from mmmil.plots.audits import decision_curves, reliability, rows_of_estimates
from mmmil.plots.backbone import activations, apoz, balance, channel_activation
from mmmil.plots.cohort import flow, labels_by_site, split
from mmmil.plots.comparisons import differences
from mmmil.plots.costs import backbones, memory, scaling
from mmmil.plots.genes import (
    chosen_by_fold,
    errors_by_set,
    leading_sets,
    losses,
    matrices,
    null_audit,
    overlap,
    reconstruction,
    running_scores,
    volcano_and_ma,
)
from mmmil.plots.method import (
    cross_attention,
    loss_of_steps,
    road,
    self_attention,
    tile_grid,
    tokens,
    vectors,
)
from mmmil.plots.models import confusion, curves, intervals
from mmmil.plots.overview import all_variants
from mmmil.plots.patient import distances, sets_of_patient, spread, tiles_of_patient
from mmmil.plots.quality import contact_sheet, in_words, stain_before_after
from mmmil.plots.slides import chosen_tiles, thumbnail, tissue_filter, valid_tiles
from mmmil.plots.style import of_cohort
from mmmil.plots.validation import calibration
