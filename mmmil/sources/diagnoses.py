"""Which of a case's diagnoses is the one of its cohort: the one rule for clinical tables and for the GDC's records.

Since 2024 the GDC states several diagnoses of a case: the tumour of the project, its recurrences and metastases, and
other cancers of the patient, each with a grade of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from mmmil.sources.tables import MISSING, folded

PRIMARY_FLAG, CLASSIFICATION = "diagnosis_is_primary_disease", "classification_of_tumor"
NO_PRIMARY = "no primary diagnosis"  # the value of a case that has only others


def of_primary(diagnoses: Iterable[tuple[object, object]]) -> list[bool]:
    """Whether each of one case's diagnoses decides its label.

    diagnoses: (diagnosis_is_primary_disease, classification_of_tumor) of each, None or empty where nothing is stated;
    they may repeat. Those that are stated to be the primary's; where there are none, those of which nothing is stated
    (older releases). One that is stated to be something else, a recurrence, a metastasis or another cancer, never
    decides, whatever else is unknown.
    """
    stated = [_is_primary(flag, classification) for flag, classification in diagnoses]
    wanted = True if True in stated else None
    return [value is wanted for value in stated]


def _is_primary(flag: object, classification: object) -> bool | None:
    """True, False, or None where neither field says anything; False where the two contradict each other."""
    said = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(folded(str(flag)))
    kind = "" if classification is None else folded(str(classification))
    by_kind = None if kind in MISSING else kind == "primary"
    stated = {value for value in (said, by_kind) if value is not None}
    return None if not stated else stated == {True}
