import numpy as np
import pandas as pd
import pytest

from cxrssl.data.releases import Box, format_boxes, parse_boxes, to_common
from cxrssl.data.releases.vocabulary import COMMON, common_name
from cxrssl.errors import InputError

NAN = np.nan


def test_several_findings_become_one_without_saying_what_is_not_known():
    rows = [(0, 0, 0), (1, 0, 0), (0, -1, 0), (1, -1, 1), (0, NAN, 1), (NAN, 1, 0), (NAN, NAN, NAN)]
    labels = pd.DataFrame(rows, columns=["Nodule", "Mass", "Pleural_Thickening"])
    labels["Scoliosis"] = 1
    common = to_common(labels, list(labels))
    assert list(common) == ["Nodule or Mass", "Pleural Thickening"]
    expected = [0, 1, -1, 1, NAN, 1, NAN]
    np.testing.assert_array_equal(common["Nodule or Mass"], np.array(expected, np.float32))
    np.testing.assert_array_equal(common["Pleural Thickening"], labels["Pleural_Thickening"])


def test_parts_of_names_are_not_names():
    assert common_name("breast mass") is None
    assert common_name("pericardial effusion") is None
    assert common_name("Pleural effusion") == common_name("Effusion") == "Pleural Effusion"
    spellings = [name for names in COMMON.values() for name in names]
    assert len(spellings) == len(set(spellings))
    assert all(name == name.lower() for name in spellings)


def test_boxes_survive_their_cell():
    boxes = [Box("Mass", 0, 1.5, 10, 12), Box("Nodule", 3, 3, 4, 4, reader="R8")]
    assert parse_boxes(format_boxes(boxes)) == boxes
    assert parse_boxes(format_boxes([])) == []


@pytest.mark.parametrize(
    "text",
    ["Mass 0 1 2 3", "[1]", '[{"finding": "Mass"}]', "{}x",
     '[{"finding": "Mass", "left": "a", "top": 0, "right": 1, "bottom": 1}]',
     '[{"finding": "Mass", "left": NaN, "top": 0, "right": 1, "bottom": 1}]'],
)  # fmt: skip
def test_what_are_no_boxes_is_refused(text):
    with pytest.raises(InputError, match=r"no boxes can be read|is not finite"):
        parse_boxes(text)
