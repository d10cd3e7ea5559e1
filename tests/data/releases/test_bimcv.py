import numpy as np
import pytest

from cxrssl.data.releases.bimcv import BIMCVCOVID19
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, grey, write_image, write_text

IMAGES = [
    "sub-S03045/ses-E07093/mod-rx/sub-S03045_ses-E07093_run-1_bp-chest_vp-pa_dx.png",
    "sub-S03045/ses-E07093/mod-rx/sub-S03045_ses-E07093_run-2_bp-chest_vp-ll_dx.png",
    "sub-S03045/ses-E08000/mod-rx/sub-S03045_ses-E08000_run-1_bp-chest_vp-ap_cr.png",
    "sub-S04000/ses-E09000/mod-rx/sub-S04000_ses-E09000_run-1_bp-chest_cr.png",
]
LABELS = (
    "\tPatientID\tReportID\tReport\tLabels\tLocalizations\tLabelsLocalizationsBySentence\t"
    "labelCUIS\tLocalizationsCUIS\n"
    "0\tsub-S03045\tses-E07093\tneumoni bilateral .\t[' pneumonia', 'COVID 19']\t[]\t[]\t[]\t[]\n"
    "1\tsub-S03045\tses-E08000\tsin cambi .\t['normal', 'COVID 19 uncertain']\t[]\t[]\t[]\t[]\n"
    "2\tsub-S04000\tses-E09000\t\t['pleural effusion', 'heart\t[]\t[]\t[]\t[]\n"
)


def write_sessions(root, patient, sessions):
    rows = [f"{session}\t{day}\ttext" for session, day in sessions.items()]
    header = "session_id\tstudy_date\tmedical_evaluation"
    text = "\n".join([header, *rows]) + "\n"
    return write_text(root / patient / f"{patient}_sessions.tsv", text)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "covid19_posi"
    for number, path in enumerate(IMAGES):
        write_image(root / path, grey(number, bits=16) >> 4)
        write_text((root / path).with_suffix(".json"), "{}")
    write_text(root / "sub-S04000/ses-E09000/mod-ct/sub-S04000_ses-E09000_ct.nii.gz", "volume")
    write_image(root / "derivatives/figure.png")
    write_text(
        root / "participants.tsv",
        "participant\tmodality_dicom\tage\tgender\n"
        "sub-S03045\t['CR', 'DX']\t[57, 58]\tM\nsub-S04000\t['CR']\t[]\tF\n",
    )
    write_text(root / "derivatives/labels/labels_covid19_posi.tsv", LABELS)
    write_text(
        root / "derivatives/EHR/sil_reg_covid_posi.tsv",
        "participant\tdate\ttest\tresult\n"
        "sub-S03045\t11.03.2020\tPCR\tPOSITIVO\nsub-S03045\t12.03.2020\tPCR\tNEGATIVO\n"
        "sub-S03045\t01.06.2020\tPCR\tNEGATIVO\nsub-S04000\t01.06.2020\tPCR\tINDETERMINADO\n",
    )
    write_sessions(root, "sub-S03045", {"ses-E07093": "20200315", "ses-E08000": "20200605.0"})
    write_sessions(root, "sub-S04000", {"ses-E09000": "2020-06-01"})
    return tmp_path


def by_name(index):
    """Return the rows in the order of IMAGES."""
    return index.set_index(index["origin"].str.removeprefix("bimcv:")).loc[
        [path.rpartition("/")[2] for path in IMAGES]
    ]


def test_the_whole_release(root):
    index = by_name(check_release(BIMCVCOVID19(str(root / "covid19_posi"))))
    assert index["patient_id"].tolist() == ["S03045"] * 3 + ["S04000"]
    assert index["study_id"].tolist() == ["E07093", "E07093", "E08000", "E09000"]
    assert index["view_position"].fillna("-").tolist() == ["PA", "LATERAL", "AP", "-"]
    assert index["sex"].tolist() == ["M", "M", "M", "F"]
    np.testing.assert_array_equal(index["age"], [57.5, 57.5, 57.5, np.nan])
    assert index["text"].fillna("-").tolist() == ["neumoni bilateral ."] * 2 + ["sin cambi .", "-"]
    assert index["origin_patient"].iloc[0] == "bimcv:S03045"


def test_labels_are_those_of_the_session(root):
    index = by_name(BIMCVCOVID19(str(root / "covid19_posi")).index)
    np.testing.assert_array_equal(index["pneumonia"], [1, 1, 0, np.nan])
    np.testing.assert_array_equal(index["normal"], [0, 0, 1, np.nan])
    np.testing.assert_array_equal(index["COVID 19"], [1, 1, -1, np.nan])


def test_tests_speak_of_studies_near_them(root):
    folder = str(root / "covid19_posi")
    index = by_name(BIMCVCOVID19(folder).index)
    np.testing.assert_array_equal(index["COVID-19 test"], [1, 1, 0, np.nan])
    index = by_name(BIMCVCOVID19(folder, window=3).index)
    np.testing.assert_array_equal(index["COVID-19 test"], [0, 0, np.nan, np.nan])
    assert BIMCVCOVID19(folder, window=2).index["COVID-19 test"].isna().all()


def test_a_folder_of_both_collections_whose_names_vary(root):
    other = root / "covid19_neg"
    write_image(other / "sub-S9/ses-E1/mod-rx/sub-S9_ses-E1_run-1_bp-chest_vp-lateral_cr.png")
    write_text(other / "participants.tsv", "participant\tage\tgender\nsub-S9\t[40.0]\tF\n")
    write_text(
        other / "derivatives/labels/Labels_covid_nega.tsv",
        "ReportID\tReport\tLabels\nses-E1\tsin hallazg\t['nodule']\n",
    )
    index = check_release(BIMCVCOVID19(str(root)))
    assert len(index) == 5
    row = index[index["patient_id"] == "S9"].iloc[0]
    assert (row["age"], row["nodule"], row["view_position"]) == (40, 1, "LATERAL")


def test_images_alone_with_their_participants(root):
    folder = root / "covid19_posi"
    for path in sorted((folder / "derivatives").rglob("*.tsv")):
        path.unlink()
    module = BIMCVCOVID19(str(folder))
    index = check_release(module)
    assert index[module.labels].isna().all(axis=None)
    assert index["text"].isna().all()


def test_resized_copies_elsewhere(root, tmp_path_factory):
    images = tmp_path_factory.mktemp("resized")
    write_image(images / IMAGES[1].replace(".png", ".jpg"))
    index = check_release(BIMCVCOVID19(str(root / "covid19_posi"), images=str(images)))
    assert index["view_position"].tolist() == ["LATERAL"]


def test_labels_outside_the_vocabulary_are_counted_in_one_warning(root):
    file = root / "covid19_posi/derivatives/labels/labels_covid19_posi.tsv"
    file.write_text(LABELS.replace("'normal'", "'normality'"))
    with pytest.warns(UserWarning, match=r"1 labels .*'normality' \(1 rows\)"):
        _ = BIMCVCOVID19(str(root)).index


def test_what_is_no_such_release(root):
    folder = root / "covid19_posi"
    with pytest.raises(InputError, match="window must be at least 0 days, got -1"):
        BIMCVCOVID19(str(root), window=-1)
    with pytest.raises(InputError, match=r"it has no participants.tsv"):
        BIMCVCOVID19(str(folder / "derivatives")).make_index()
    with pytest.raises(InputError, match="has no image named as sub-S1_ses-E1"):
        BIMCVCOVID19(str(root), images=str(folder / "derivatives")).make_index()
    write_text(folder / "participants.tsv", "participant\tgender\nsub-S9\tF\n")
    with pytest.raises(InputError, match="has no column 'age'"):
        BIMCVCOVID19(str(root)).make_index()
