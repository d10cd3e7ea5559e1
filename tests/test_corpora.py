"""The published corpora, from miniature releases."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from cxrssl.__main__ import main
from tests.data.releases.mimic_miniature import write_mimic
from tests.data.releases.test_brax import write_brax
from tests.data.releases.test_chexpert import write_chexpert
from tests.data.releases.test_nih import write_nih
from tests.data.releases.test_padchest import write_padchest

RECIPES = Path(__file__).resolve().parents[1] / "examples" / "recipes"
CORPORA = {
    "multi_cxr": "rad_dino_vitb14_518",
    "cxr_1m": "chexfound_vitl16_224",
    "chexworld_mix": "chexworld_vitb16_224",
    "mlvicx_nih": "mlvicx_resnet18_224",
}
FIVE = {"MIMICCXRJPG", "CheXpert", "NIHChestXray14", "PadChest", "BRAX"}
WRITERS = {
    "mimic": write_mimic,
    "chexpert": write_chexpert,
    "nih": write_nih,
    "padchest": write_padchest,
    "brax": write_brax,
}


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Return the folder of each release."""
    roots = {}
    for name, write in WRITERS.items():
        roots[name] = tmp_path_factory.mktemp(name)
        write(roots[name])
    return roots


def indexed(name, releases, tmp_path, *flags):
    """Return what the command writes of a corpus whose releases are the miniature ones."""
    config = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    arguments = config["data"]["init_args"]
    for source, dataset in arguments.get("datasets", {"nih": config["data"]}).items():
        dataset["init_args"]["root"] = str(releases[source])
    file, out = tmp_path / "corpus.yaml", tmp_path / "corpus.csv"
    file.write_text(yaml.safe_dump(config))
    assert main(["index", "--config", str(file), "--out", str(out), *flags]) == 0
    return pd.read_csv(out, dtype=str)


@pytest.mark.filterwarnings("ignore:.* images are not there")
def test_multi_cxr_takes_what_the_paper_took(releases, tmp_path):
    index = indexed("multi_cxr", releases, tmp_path)
    train = index[index["split"] == "train"]
    assert set(train["dataset"]) == {
        "MIMICCXRJPG",
        "CheXpert",
        "NIHChestXray14",
        "PadChest",
        "BRAX",
    }
    assert set(index.loc[index["dataset"] == "MIMICCXRJPG", "view_position"]) <= {"PA", "AP"}
    # The official test list of NIH is trained on; that of MIMIC-CXR is not.
    nih = index[index["dataset"] == "NIHChestXray14"]
    assert set(nih["split"]) <= {"train", "val"}
    assert len(nih) == 6
    assert "LATERAL" in set(train.loc[train["dataset"] == "PadChest", "view_position"])
    assert "valid" in "".join(train.loc[train["dataset"] == "CheXpert", "path"])


@pytest.mark.filterwarnings("ignore:.* images are not there")
def test_the_other_corpora(releases, tmp_path):
    one = indexed("cxr_1m", releases, tmp_path)
    assert set(one["dataset"]) == FIVE
    mimic = one[one["dataset"] == "MIMICCXRJPG"]
    assert set(mimic["split"]) == {"train", "test"}
    world = indexed("chexworld_mix", releases, tmp_path)
    assert set(world["view_position"].dropna()) == {"PA", "AP"}
    plain = indexed("mlvicx_nih", releases, tmp_path)
    assert set(plain["dataset"]) == {"NIHChestXray14"}
    assert (plain["split"] == "test").sum() == 3


@pytest.mark.filterwarnings("ignore:.* images are not there")
def test_what_is_held_out_leaves_a_corpus(releases, tmp_path):
    held_out = tmp_path / "held_out.csv"
    command = ["index", "NIHChestXray14", str(releases["nih"]), str(held_out)]
    assert main(command) == 0
    flags = ["--data.held_out", f"[{held_out}]"]
    index = indexed("multi_cxr", releases, tmp_path, *flags)
    assert "NIHChestXray14" not in set(index["dataset"])


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_corpus_goes_on_top_of_its_recipe(corpus, capsys):
    configs = [f"--config={RECIPES / name}.yaml" for name in (CORPORA[corpus], corpus)]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *configs, "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    given, recipe = (
        yaml.safe_load((RECIPES / f"{name}.yaml").read_text()) for name in (corpus, CORPORA[corpus])
    )
    assert printed["data"]["class_path"] == f"cxrssl.data.{given['data']['class_path']}"
    sizes = [each["data"]["init_args"]["batch_size"] for each in (printed, given, recipe)]
    assert len(set(sizes)) == 1
