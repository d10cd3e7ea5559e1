"""A miniature of MIMIC-CXR-JPG, on which other releases lean too."""

import gzip

from cxrssl.data.releases.mimic_tables import MIMIC_FINDINGS
from tests.data.releases.miniature import write_image

SKIPPED = "0518c887-b80608ca-830de2d5-89acf0e2-bd3ec900"
FRONTAL = "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"
LATERAL = "174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962"
BLANK = "2a2277a9-b0ded155-c0de8eb9-c124d10e-82c5caab"
TURNED = "e084de3b-be89b11e-20fe3f9f-9c8d8dfe-4cfd202c"
LAST = "68b5c4b1-227d0485-9cc38c3f-7b84ab51-4b472714"

# dicom_id, subject_id, study_id, ViewPosition, StudyDate, ViewCodeSequence_CodeMeaning, split
ROWS = [
    (FRONTAL, "10000032", "50414267", "AP", "21800506", "antero-posterior", "train"),
    (LATERAL, "10000032", "50414267", "LATERAL", "21800506", "lateral", "train"),
    (BLANK, "10000032", "53189527", "", "21800626", "postero-anterior", "train"),
    (TURNED, "10000764", "57375967", "LPO", "21321015", "", "validate"),
    (SKIPPED, "10000764", "57375967", "PA", "21321015", "", "validate"),
    (LAST, "11000011", "51029426", "", "21500101", "", "test"),
]
METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
    "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
    "PatientOrientationCodeSequence_CodeMeaning"
)


def write_gzip(path, lines):
    """Write a compressed table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))


def label_rows(name="Atelectasis"):
    """Return the lines of a table of labels of studies; 53189527 is not in it."""
    header = ",".join(["subject_id", "study_id", *MIMIC_FINDINGS])
    cells = {"Atelectasis": "1.0", "Cardiomegaly": "0.0", "Edema": "-1.0"}
    cells[name] = "1.0"
    labels = ",".join(cells.get(finding, "") for finding in MIMIC_FINDINGS)
    ids = ("10000032,50414267", "10000764,57375967", "11000011,51029426")
    return [header, *(f"{row},{labels}" for row in ids)]


def image_path(row, suffix=".jpg"):
    """Return the path of an image below the release."""
    dicom, subject, study = row[:3]
    return f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}{suffix}"


def write_tables(root):
    """Write the tables of MIMIC-CXR-JPG."""
    write_gzip(
        root / "mimic-cxr-2.0.0-metadata.csv.gz",
        [METADATA]
        + [
            f"{d},{p},{s},CHEST,{v},24,24,{date},91500.5,,{c},Erect"
            for d, p, s, v, date, c, _ in ROWS
        ],
    )
    write_gzip(
        root / "mimic-cxr-2.0.0-split.csv.gz",
        ["dicom_id,study_id,subject_id,split"] + [f"{r[0]},{r[2]},{r[1]},{r[-1]}" for r in ROWS],
    )
    write_gzip(root / "mimic-cxr-2.0.0-chexpert.csv.gz", label_rows())
    write_gzip(root / "mimic-cxr-2.0.0-negbio.csv.gz", label_rows("Fracture"))


def write_mimic(root):
    """Write the whole release."""
    write_tables(root)
    for number, row in enumerate(ROWS):
        write_image(root / image_path(row), number)
    return root
