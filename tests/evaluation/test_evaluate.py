"""The evaluation as a function: its numbers, and what it does with images and options."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from cxrssl.analysis import RidgeProbe, multilabel_knn
from cxrssl.data import PhantomDataModule
from cxrssl.evaluation import embeddings, evaluate, score_table
from cxrssl.evaluation.embeddings import embed_images, evaluation_view
from tests.evaluation.stand_ins import data_of, make_index, quick, small_vit

FINDINGS = ["left", "noise"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def frame(folder):
    return make_index(folder)


@pytest.fixture(scope="module")
def full(frame, folder):
    """Everything at once, with two encoders."""
    options = quick(
        methods=["knn", "linear", "logistic"],
        k=5,
        shares=[0.2, 1.0],
        shots=[2],
        seeds=[0, 1],
        metadata=True,
        groups=["sex", "age", "view", "dataset"],
    )
    encoders = {"ours": small_vit(0), "theirs": small_vit(1)}
    return evaluate(encoders, data_of(frame, folder), options)


@pytest.fixture(scope="module")
def features(frame, folder):
    """Features of all images by hand: class token and mean patch of the normalised pixels."""
    data = data_of(frame, folder)
    data.views = evaluation_view(small_vit(0), FINDINGS)
    data.setup("test")
    images = torch.cat([data.images(range(len(data.rows(s))), s) for s in ("train", "val", "test")])
    with torch.no_grad():
        tokens = small_vit(0)(images)
        return torch.cat([tokens.cls, tokens.patches.mean(1)], 1).numpy()


def value(table, **where):
    for name, wanted in where.items():
        table = table[table[name] == wanted]
    (found,) = table["value"]
    return found


def split_of(frame, features, split):
    rows = (frame["split"] == split).to_numpy()
    return features[rows], frame.loc[rows, FINDINGS].to_numpy(dtype=np.float32)


@pytest.mark.parametrize("method", ["knn", "linear", "logistic"])
def test_scores_are_those_of_sklearn_on_the_same_features(full, frame, features, method):
    train, val, test = (split_of(frame, features, split) for split in ("train", "val", "test"))
    for column, finding in enumerate(FINDINGS):
        truth = test[1][:, column]
        if method == "logistic":
            mean, std = train[0].mean(0), train[0].std(0)
            models = [
                LogisticRegression(C=10.0**exponent, max_iter=1000).fit(
                    (train[0] - mean) / std, train[1][:, column]
                )
                for exponent in range(-3, 4)
            ]
            areas = [
                roc_auc_score(val[1][:, column], m.decision_function((val[0] - mean) / std))
                for m in models
            ]
            scores = models[int(np.argmax(areas))].decision_function((test[0] - mean) / std)
        elif method == "knn":
            scores = multilabel_knn(*train, test[0], k=5)[:, column]
        else:
            scores = RidgeProbe().fit(*train).predict(test[0])[:, column]
        # Batches of other sizes round differently, which may swap a pair of images.
        where = {"encoder": "ours", "method": method, "finding": finding}
        auroc = value(full.scores, metric="auroc", **where)
        auprc = value(full.scores, metric="auprc", **where)
        np.testing.assert_allclose(auroc, roc_auc_score(truth, scores), atol=0.01)
        np.testing.assert_allclose(auprc, average_precision_score(truth, scores), atol=0.01)


def test_what_can_be_seen_is_found_and_what_cannot_is_not(full):
    for method in ("linear", "logistic"):
        where = {"encoder": "ours", "metric": "auroc", "method": method}
        assert value(full.scores, finding="left", **where) > 0.95
        assert 0.2 < value(full.scores, finding="noise", **where) < 0.8


def test_scores_are_those_of_the_predictions_that_are_written(full):
    table = full.predictions
    test = table[(table["split"] == "test") & (table["encoder"] == "ours")]
    for method, rows in test.groupby("method"):
        truth, p = rows["label/left"], rows["probability/left"]
        where = {"encoder": "ours", "method": method, "finding": "left"}
        assert len(rows) == 36
        for metric, expected in (
            ("auroc", roc_auc_score(truth, p)),
            ("brier", brier_score_loss(truth, p)),
        ):
            np.testing.assert_allclose(value(full.scores, metric=metric, **where), expected)


def test_predictions_hold_no_patients(full):
    assert set(full.predictions["split"]) == {"val", "test"}
    assert not {"patient_id", "sex", "age"} & set(full.predictions.columns)


def test_comparison_is_the_difference_of_the_scores(full):
    assert set(full.comparison["first_encoder"]) == {"ours"}
    assert set(full.comparison["second_encoder"]) == {"theirs"}
    for row in full.comparison.to_dict("records"):
        where = {key: row[key] for key in ("method", "finding", "metric")}
        first, second = (value(full.scores, encoder=n, **where) for n in ("ours", "theirs"))
        np.testing.assert_allclose(row["difference"], first - second, atol=1e-12)


def test_subgroups_few_labels_and_metadata_are_there(full):
    assert set(full.subgroups["group"]) == {"sex", "age", "view"}  # there is one dataset
    keys = full.few_label[["kind", "size", "seed"]].drop_duplicates().values.tolist()
    assert sorted(keys) == [
        ["share", 0.2, 0],
        ["share", 0.2, 1],
        ["share", 1.0, 0],
        ["shots", 2.0, 0],
        ["shots", 2.0, 1],
    ]
    assert full.metadata["target"].tolist() == ["sex", "age"] * 2
    assert full.description["metadata_left_out"].keys() == {"weight", "bmi"}


def test_all_labels_are_worth_what_the_logistic_regression_is(full):
    where = {"encoder": "ours", "finding": "macro", "metric": "auroc"}
    np.testing.assert_allclose(
        value(full.few_label, kind="share", size=1.0, **where),
        value(full.scores, method="logistic", **where),
    )


def test_table_shows_every_finding_method_and_encoder(full):
    text = score_table(full)
    for part in ("72 train, 36 val, 36 test images", "18 test patients", "AUROC", "AUPRC"):
        assert part in text
    (line, *_) = [line for line in text.splitlines() if line.startswith("  left")]
    row = full.scores[(full.scores["finding"] == "left") & (full.scores["metric"] == "auroc")]
    value, low, high = row.iloc[0][["value", "low", "high"]]
    assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in line
    assert "ours (32 px) - theirs (32 px)" in text
    assert max(map(len, text.splitlines())) <= 120


def test_files(full, tmp_path):
    (tmp_path / "comparison.parquet").write_text("of an earlier evaluation")
    full.write(tmp_path)
    tables = ("scores", "comparison", "subgroups", "few_label", "metadata", "predictions")
    figures = ("scores", "few_label", "reliability")
    expected = {f"{name}.parquet" for name in tables} | {f"{name}.png" for name in figures}
    assert {p.name for p in tmp_path.iterdir()} == expected | {"scores.json", "evaluation.json"}
    for name in tables:
        pd.testing.assert_frame_equal(
            pd.read_parquet(tmp_path / f"{name}.parquet"), getattr(full, name), check_dtype=False
        )
    assert len(json.loads((tmp_path / "scores.json").read_text())) == len(full.scores)
    about = json.loads((tmp_path / "evaluation.json").read_text())
    assert about["data"]["images"] == {"train": 72, "val": 36, "test": 36}
    assert len({of["fingerprint"] for of in about["encoders"].values()}) == 2


def test_tables_that_were_not_asked_for_leave_no_files(frame, folder, tmp_path):
    (tmp_path / "few_label.png").write_bytes(b"of an earlier evaluation")
    evaluate({"ours": small_vit()}, data_of(frame, folder), quick()).write(tmp_path)
    assert {path.stem for path in tmp_path.glob("*.parquet")} == {"scores", "predictions"}
    assert {path.stem for path in tmp_path.glob("*.png")} == {"scores", "reliability"}


def test_the_cache_changes_nothing(frame, folder, tmp_path):
    encoder, data = small_vit(), data_of(frame, folder)
    options = quick(cache=str(tmp_path), cache_dtype="float32")
    plain, written, read = (
        evaluate({"ours": encoder}, data, chosen).predictions
        for chosen in (quick(), options, options)
    )
    pd.testing.assert_frame_equal(written, plain)
    pd.testing.assert_frame_equal(read, plain)
    assert any(tmp_path.iterdir())


def test_a_cached_encoder_reads_no_image(frame, folder, tmp_path, monkeypatch):
    encoder, data = small_vit(), data_of(frame, folder)
    options = quick(cache=str(tmp_path))
    evaluate({"ours": encoder}, data, options)
    monkeypatch.setattr(embeddings, "EvalDataset", lambda *_: pytest.fail("they are read again"))
    evaluate({"ours": encoder}, data, options)


@pytest.mark.parametrize(("pooling", "columns"), [("class", slice(16)), ("mean", slice(16, None))])
def test_pooling_takes_one_token(frame, folder, features, pooling, columns):
    encoder, data = small_vit(), data_of(frame, folder)
    data.setup("test")
    view = evaluation_view(encoder, FINDINGS)
    found = embed_images(encoder, data, data.rows("all"), view, pooling=pooling)
    np.testing.assert_allclose(found.features, features[:, columns], atol=1e-5)


def test_sizes_are_compared_with_the_first(frame, folder):
    results = evaluate({"ours": small_vit()}, data_of(frame, folder), quick(sizes=[32, 64]))
    assert results.scores["image_size"].unique().tolist() == [32, 64]
    sizes = results.comparison[["first_image_size", "second_image_size"]].drop_duplicates()
    assert sizes.values.tolist() == [[32, 64]]


def test_one_view_alone(frame, folder):
    results = evaluate({"ours": small_vit()}, data_of(frame, folder), quick(views="lateral"))
    lateral = set(frame.loc[frame["view_position"] == "LATERAL", "path"])
    assert set(results.predictions["path"]) <= lateral
    assert results.description["data"]["images"] == {"train": 36, "val": 18, "test": 18}


def test_balanced_findings_have_as_many_negatives_as_positives(frame, folder):
    results = evaluate({"ours": small_vit()}, data_of(frame, folder), quick(balance=True))
    for _, rows in results.predictions.groupby("split"):
        for finding in FINDINGS:
            labels = rows[f"label/{finding}"]
            assert (labels == 0).sum() == (labels == 1).sum()


def test_a_missing_validation_split_is_made_of_training_patients(frame, folder):
    rows = frame.assign(split=frame["split"].replace("val", "train"))
    chosen = quick(validation=0.25)
    results = evaluate({"ours": small_vit()}, data_of(rows, folder), chosen)
    assert results.description["data"]["images"] == {"train": 80, "val": 28, "test": 36}
    assert results.description["data"]["patients"] == {"train": 40, "val": 14, "test": 18}
    assert "validation images are training patients" in score_table(results)


def test_a_finding_with_one_class_in_a_split_is_listed(frame, folder):
    rows = frame.copy()
    rows.loc[rows["split"] == "test", "noise"] = 0
    results = evaluate({"ours": small_vit()}, data_of(rows, folder), quick())
    assert results.description["findings"] == ["left"]
    assert results.description["not_scored"] == {"noise": "no positive test image"}
    assert "not scored: noise (no positive test image)" in score_table(results)


def test_images_that_cannot_be_read_are_left_out(frame, folder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n but nothing else")
    rows = frame.copy()
    rows.loc[140, "path"] = str(broken)
    data = data_of(rows, folder, max_corrupt=0.1)
    results = evaluate({"ours": small_vit()}, data, quick())
    assert results.description["data"]["unreadable"] == 1
    assert results.description["data"]["images"]["test"] == 35
    assert str(broken) not in set(results.predictions["path"])


def test_the_phantom():
    data = PhantomDataModule(120, 32, num_workers=0, split=(0.5, 0.25, 0.25))
    results = evaluate({"ours": small_vit()}, data, quick(findings=["effusion", "nodule"]))
    assert results.description["findings"] == ["effusion", "nodule"]


def without(frame, split):
    return frame[frame["split"] != split]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f.drop(columns=FINDINGS), {}, "the index has no labels"),
        (lambda f: f, {"findings": ["edema"]}, "edema"),
        (lambda f: without(f, "test"), {}, "no test images: give it a column 'split'"),
        (lambda f: without(f, "train"), {}, "no training images"),
        (lambda f: f.assign(left=0, noise=1), {}, "no finding can be scored .*left: no positive"),
        (lambda f: f.assign(view_position="PA"), {"views": "lateral"}, "holds PA"),
        (lambda f: f, {"sizes": [40]}, "40 pixels are not tiled"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(frame, folder, change, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate({"ours": small_vit()}, data_of(change(frame), folder), quick(**options))


def test_an_encoder_is_needed(frame, folder):
    with pytest.raises(ValueError, match="no encoder"):
        evaluate({}, data_of(frame, folder))


def test_broken_weights_are_found(frame, folder):
    encoder = small_vit()
    next(encoder.parameters()).data.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinity of 144 of 144 images"):
        evaluate({"ours": encoder}, data_of(frame, folder), quick())


@pytest.mark.parametrize(
    "options",
    [
        {"methods": []},
        {"methods": ["knn", "knn"]},
        {"findings": []},
        {"sizes": [0]},
        {"k": 0},
        {"shots": [0]},
        {"shares": [1.5]},
        {"shares": [0.5], "seeds": []},
        {"replicates": 0},
        {"seed": -1},
        {"specificity": 1.5},
        {"validation": 1.0},
    ],
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(reversed(options))):
        quick(**options)
