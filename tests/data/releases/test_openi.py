import numpy as np
import pytest

from cxrssl.data.releases.openi import OPENI_FINDINGS, OpenI
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, write_image, write_text

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
  <uId id="CXR{n}"/>
  <MedlineCitation><Article><Abstract>
    <AbstractText Label="COMPARISON">None.</AbstractText>
    <AbstractText Label="INDICATION">XXXX-year-old</AbstractText>
    <AbstractText Label="FINDINGS">{findings}</AbstractText>
    <AbstractText Label="IMPRESSION">No change since XXXX.</AbstractText>
  </Abstract></Article></MedlineCitation>
  <MeSH>{mesh}<automatic>pneumonia</automatic></MeSH>
  {images}
</eCitation>
"""
NAMES = ["CXR2_IM-0652-1001", "CXR2_IM-0652-2001", "CXR3_IM-1384-1001", "CXR4_IM-2050-1001"]


def write_report(root, n, findings, headings, images=()):
    mesh = "".join(f"<major>{heading}</major>" for heading in headings)
    pictures = "".join(f'<parentImage id="{name}"><figureId>F1</figureId></parentImage>'
                       for name in images)  # fmt: skip
    text = REPORT.format(n=n, findings=findings, mesh=mesh, images=pictures)
    return write_text(root / f"ecgen-radiology/{n}.xml", text)


@pytest.fixture
def root(tmp_path):
    write_report(tmp_path, 1, "Clear.", ["normal"])
    headings = ["Cardiomegaly/borderline", "Pulmonary Artery/enlarged", "Fractures, Bone/ribs"]
    write_report(tmp_path, 2, "Large heart &amp; XXXX.", headings, NAMES[:2])
    write_report(tmp_path, 3, "", ["No Indexing"], NAMES[2:3])
    write_report(tmp_path, 4, "Clear.", ["normal"], NAMES[3:])
    for number, name in enumerate(NAMES):
        write_image(tmp_path / "png" / f"{name}.png", number)
    return tmp_path


@pytest.fixture
def kaggle(tmp_path):
    write_text(
        tmp_path / "indiana_reports.csv",
        "uid,MeSH,Problems,image,indication,comparison,findings,impression\n"
        "1,normal,normal,Xray Chest PA,pain,None.,Clear.,Normal\n"
        '2,"Cardiomegaly/borderline;Fractures, Bone/ribs",Cardiomegaly,Chest,,,Large heart.,\n'
        "3,No Indexing,No Indexing,Chest,,,,\n",
    )
    write_text(
        tmp_path / "indiana_projections.csv",
        "uid,filename,projection\n2,2_IM-0652-1001.dcm.png,Frontal\n"
        "2,2_IM-0652-2001.dcm.png,Lateral\n3,3_IM-1384-1001.dcm.png,Frontal\n",
    )
    for number, name in enumerate(NAMES[:3]):
        folder = tmp_path / "images/images_normalized"
        write_image(folder / f"{name.removeprefix('CXR')}.dcm.png", number)
    return tmp_path


def test_the_whole_release(root):
    index = check_release(OpenI(str(root)))
    assert index["origin"].tolist() == [f"openi:{name}" for name in NAMES]
    assert index["study_id"].tolist() == ["CXR2", "CXR2", "CXR3", "CXR4"]
    assert index["text"].fillna("-").tolist() == ["Large heart & XXXX."] * 2 + ["-", "Clear."]
    for column in ("patient_id", "view_position", "sex", "age"):
        assert index[column].isna().all()
    assert "origin_patient" not in index


def test_labels_are_the_headings_without_place_and_degree(root):
    module = OpenI(str(root))
    labels = module.index[module.labels]
    found = [[name for name in OPENI_FINDINGS if labels.loc[n, name] == 1] for n in labels.index]
    assert found == [["Cardiomegaly", "Fractures, Bone"]] * 2 + [[], ["normal"]]
    assert labels.isna().all(axis=1).tolist() == [False, False, True, False]
    common = check_release(OpenI(str(root), vocabulary="common"))
    assert common["Fracture"].tolist()[:2] == [1, 1]
    assert common["No Finding"].tolist()[3] == 1


def test_the_variant_of_kaggle_has_the_same_names(kaggle):
    index = check_release(OpenI(str(kaggle), incomplete="refuse"))
    assert index["origin"].tolist() == [f"openi:{name}" for name in NAMES[:3]]
    assert index["study_id"].tolist() == ["CXR2", "CXR2", "CXR3"]
    assert index["view_position"].fillna("-").tolist() == ["-", "LATERAL", "-"]
    assert index["Cardiomegaly"].tolist()[:2] == [1, 1]
    assert np.isnan(index["Cardiomegaly"][2])
    assert index["text"].fillna("-").tolist() == ["Large heart.", "Large heart.", "-"]


def test_a_part_of_the_images(root):
    (root / "png" / f"{NAMES[0]}.png").unlink()
    with pytest.warns(UserWarning, match="1 of 4 images are not there"):
        assert len(OpenI(str(root)).index) == 3


def test_reports_in_a_folder_of_their_archive(root):
    (root / "NLMCXR_reports").mkdir()
    (root / "ecgen-radiology").rename(root / "NLMCXR_reports/ecgen-radiology")
    assert len(check_release(OpenI(str(root)))) == 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_declarations_of_types_and_entities_are_refused(root, encoding):
    bomb = '<!DOCTYPE a [<!ENTITY b "boom">]><eCitation>&b;</eCitation>'
    (root / "ecgen-radiology/3.xml").write_bytes(bomb.encode(encoding))
    with pytest.raises(InputError, match=r"3\.xml (declares a document type|cannot be read)"):
        OpenI(str(root)).make_index()


def test_what_is_no_such_release(root, kaggle):
    with pytest.raises(InputError, match=r"it has no ecgen-radiology/.*indiana_reports.csv"):
        OpenI(str(root / "png")).make_index()
    (root / "ecgen-radiology/2.xml").write_text("<eCitation>")
    with pytest.raises(InputError, match=r"2\.xml cannot be read as a report"):
        OpenI(str(root)).make_index()


def test_a_table_of_kaggle_without_its_columns(kaggle):
    write_text(kaggle / "indiana_projections.csv", "uid,file\n2,a.png\n")
    with pytest.raises(InputError, match="has no column 'filename', 'projection'"):
        OpenI(str(kaggle)).make_index()
    (kaggle / "indiana_projections.csv").unlink()
    with pytest.raises(InputError, match=r"indiana_projections.csv cannot be read as a table"):
        OpenI(str(kaggle)).make_index()
