"""Intervals of all tasks rest on the same notion of a patient."""

import numpy as np
import pandas as pd

from cxrssl.tasks.classification_results import classification_results
from cxrssl.tasks.report_results import report_results
from cxrssl.tasks.segmentation_results import segmentation_results

# One number in two datasets, which is two people; of a single one there are no intervals.
ROWS = pd.DataFrame(
    {"path": list("wxyz"), "dataset": ["a", "a", "b", "b"], "patient_id": "1"}, dtype="string"
)
NUMBERS = np.arange(4)


def has_intervals(results):
    return results.tables["scores"]["low"].notna().any()


def test_the_same_number_in_two_datasets_is_two_people():
    labels = np.array([[0.0], [1.0], [0.0], [1.0]])
    classified = {"image_number": NUMBERS, "labels": labels, "probabilities": labels / 2}
    outlined = {"image_number": NUMBERS, "dice": labels, "empty": labels > 1}
    texts = np.array(["No effusion."] * 4, dtype=object)
    written = {"image_number": NUMBERS, "reference": texts, "generated": texts}
    assert has_intervals(classification_results(classified, ["effusion"], ROWS))
    assert has_intervals(segmentation_results(outlined, {}, ["lungs"], ROWS))
    assert has_intervals(report_results(written, ROWS))
    one = ROWS.assign(dataset="a")
    assert not has_intervals(classification_results(classified, ["effusion"], one))
