"""What is in a report card, and what must not be."""

import dataclasses
import re

import pandas as pd
import pytest

from cxrssl.backbones import load_encoder
from cxrssl.errors import InputError
from cxrssl.evaluation import evaluate
from cxrssl.reporting.sections.attention import attention_section
from cxrssl.reporting.sections.correspondence import correspondence_section
from cxrssl.reporting.sections.leaks import leaks_section
from cxrssl.reporting.sections.run import run_section
from cxrssl.reporting.sections.segmentation import segmentation_section
from cxrssl.reporting.sections.world import world_section
from tests.evaluation.stand_ins import data_of, quick
from tests.reporting.cards import (
    OPTIONS,
    card,
    decoder,
    glori,
    labelled_images,
    save_encoder,
    topic,
    world,
)

SECTIONS = [
    *("probes", "subgroups", "leaks", "health", "attention", "patches", "correspondence"),
    *("retrieval", "segmentation", "world", "run"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("card")


@pytest.fixture(scope="module")
def frame(folder):
    return labelled_images(folder)


@pytest.fixture(scope="module")
def encoder(folder):
    return save_encoder(folder / "encoder.safetensors")


@pytest.fixture(scope="module")
def page(frame, folder, encoder):
    return card(frame, folder, {"ours": encoder}, groups=["sex", "age"], shares=[0.5, 1.0])


def keys(page):
    return re.findall(r'<section id="(\w+)">', page)


def section(page, key):
    return page.split(f'<section id="{key}">')[1].split("</section>")[0]


def test_all_sections_are_there_and_in_the_table_of_contents(page):
    assert keys(page) == SECTIONS
    contents = page.split("<nav")[1].split("</nav>")[0]
    assert re.findall(r'href="#(\w+)"', contents) == SECTIONS


def test_the_page_needs_nothing_else(page):
    assert all(found.startswith("data:") for found in re.findall(r'src="([^"]*)"', page))
    assert all(found[0] in "#d" for found in re.findall(r'href="([^"]*)"', page))
    assert "@import" not in page
    assert not re.search(r"url\((?!data:)", page)
    assert all(re.findall(r'<img src="[^"]*" alt="([^"]*)"', page))


def test_the_same_inputs_make_the_same_page(page, frame, folder, encoder):
    again = card(frame, folder, {"ours": encoder}, groups=["sex", "age"], shares=[0.5, 1.0])
    assert again == page


def test_no_patient_and_no_file_is_named(page, frame, folder):
    assert "SURNAME" not in page
    assert str(folder) not in page
    assert "encoder.safetensors" not in page
    assert not any(f"{number:03d}.png" in page for number in range(len(frame)))


def test_scores_are_those_of_the_evaluation(page, frame, folder, encoder):
    options = quick(groups=["sex", "age"], shares=[0.5, 1.0])
    scores = evaluate({"ours": load_encoder(encoder)}, data_of(frame, folder), options).scores
    row = scores[(scores["finding"] == "macro") & (scores["metric"] == "auroc")].iloc[0]
    assert f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in section(page, "probes")
    assert f"<b>{row['value']:.3f}</b>" in page
    assert "18 test patients" in page


def test_what_cannot_be_shown_says_why(page):
    assert "no decoder was given" in section(page, "segmentation")
    assert "there is no predictor" in section(page, "world")
    assert "without --pretrained_on" in section(page, "leaks")
    assert "No GLoRI head was given" in section(page, "attention")
    assert "No curves" in section(page, "run")


def test_groups_of_the_index_have_their_scores(page):
    shown = section(page, "subgroups")
    assert "Macro AUROC by sex" in shown
    assert "sex F" in shown


def test_without_images_there_are_none(frame, folder, encoder):
    options = dataclasses.replace(OPTIONS, no_images=True)
    page = card(frame, folder, {"ours": encoder}, options, methods=["knn"])
    assert keys(page) == SECTIONS
    assert "image/jpeg" not in page
    assert '"codes"' not in page
    assert "pictures were left out" in section(page, "patches")
    assert "pixels of the images" not in page


def test_two_encoders_stand_side_by_side_with_paired_tests(frame, folder, encoder):
    other = save_encoder(folder / "other.safetensors", 1, class_token=False)
    page = card(frame, folder, {"ours": encoder, "<theirs>": other}, methods=["linear", "knn"])
    assert keys(page) == [SECTIONS[0], "comparison", *SECTIONS[1:]]
    assert "paired bootstrap" in page.split("</header>")[0]
    assert "p, DeLong" in section(page, "comparison")
    assert "&lt;theirs&gt;" in page
    assert "<theirs>" not in page
    assert section(page, "patches").count('<div class="part">') == 2
    assert '<div class="parts several">' in section(page, "patches")
    assert '<div class="parts several">' not in section(page, "attention")  # one has none
    assert "the encoder has no class token" in section(page, "attention")
    # What neither has is said once.
    assert section(page, "segmentation").count("no decoder was given") == 1


def test_more_than_two_encoders_or_sizes_are_refused(frame, folder, encoder):
    with pytest.raises(InputError, match="one encoder or two side by side, got 3"):
        card(frame, folder, dict.fromkeys("abc", encoder))
    with pytest.raises(InputError, match="at one size"):
        card(frame, folder, {"ours": encoder}, sizes=[32, 64])


def test_landmarks_are_points_to_start_from_and_judge_matches(frame, folder, encoder):
    paths = frame.loc[frame["split"] == "test", "path"].iloc[::2][:3]
    rows = [(path, "apex", 4 + i, 9) for i, path in enumerate(paths)]
    table = pd.DataFrame([*rows, (paths.iloc[0], "dome", 30, 30)])
    table.to_csv(folder / "landmarks.csv", index=False, header=["image", "name", "x", "y"])
    options = dataclasses.replace(OPTIONS, landmarks=str(folder / "landmarks.csv"))
    made = correspondence_section(topic(frame, folder, encoder, options))
    errors, films, _, matches = made.parts[0].blocks
    assert errors.rows[0][-1] == "6 of 3 images"
    assert films.payload["points"] == [
        {"name": "apex", "image": 0, "patch": 4},
        {"name": "dome", "image": 0, "patch": 15},
    ]
    assert films.payload["labels"] == ["Image A", "Image B", "Image C"]
    assert [name for name, _ in matches.rows] == ["apex", "dome"]


def test_a_level_of_leaks_is_stated_without_paths(frame, folder, encoder):
    pretraining = frame[frame["split"] == "train"]
    pretraining.to_csv(folder / "pretraining.csv", index=False)
    index = str(folder / "pretraining.csv")
    made = leaks_section(topic(frame, folder, encoder, pretrained_on=[index]))
    assert made.tiles[0].values == [("", "L2", "")]
    assert str(folder) not in str(made)


def test_a_world_model_is_measured_and_its_run_described(frame, folder):
    of_run = topic(frame, folder, world(folder / "world_run", data_of(frame, folder)))
    charts, fold, examples = world_section(of_run).parts[0].blocks
    assert len(charts.pictures) == 3
    assert any(row[0] == "layout: offset" for row in fold.blocks[0].rows)
    assert [picture.caption for picture in examples.rows[0][1]] == ["original", "seen", "filled in"]
    facts, curves = run_section(of_run).parts[0].blocks
    assert {("Objective", "WorldModel"), ("Steps logged", "9 steps"), ("Seed", "7")} < set(
        facts.rows
    )
    assert [picture.alt for picture in curves.pictures] == ["Loss over optimiser steps."]
    assert "/secret/root" not in str(facts)


def test_a_head_and_a_decoder_are_tested_on_the_same_index(frame, folder, encoder):
    head = glori(folder / "glori_run", encoder, data_of(frame, folder))
    masks = decoder(folder / "seg_run", encoder, data_of(frame, folder))
    both = topic(frame, folder, encoder, head=head, decoder=masks)
    before = both.data.views
    *_, score, maps = attention_section(both).parts[0].blocks
    assert score.text.startswith("GLoRI head: macro AUROC 0.")
    assert len(maps.rows) == 3
    assert [picture.alt for picture in maps.rows[0][1][1:]] == [
        "Where the head looks for left.",
        "Where the head looks for noise.",
    ]
    scores, overlays = segmentation_section(both).parts[0].blocks
    assert {row[0] for row in scores.rows} == {"bright", "macro"}
    assert [name for name, _ in overlays.rows] == ["Radiographs", "bright"]
    assert overlays.rows[1][1][0].alt == "Masked image 1: true and predicted bright."
    assert both.data.views is before


def test_a_head_of_another_encoder_is_refused(frame, folder, encoder):
    other = save_encoder(folder / "stranger.safetensors", 3)
    head = glori(folder / "other_glori", other, data_of(frame, folder))
    with pytest.raises(InputError, match="another one than this"):
        attention_section(topic(frame, folder, encoder, head=head))
