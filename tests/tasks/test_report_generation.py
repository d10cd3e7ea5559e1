import sys

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cxrssl.backbones import ViT
from cxrssl.data import PhantomDataModule
from cxrssl.data.phantom.report import _ABSENT, _PRESENT
from cxrssl.errors import InputError
from cxrssl.objectives.recipe import Recipe
from cxrssl.schedules import Schedule
from cxrssl.tasks import report_generation
from cxrssl.tasks.language_model import load_language_model
from cxrssl.tasks.report_generation import LLAVA_RECIPE, ReportGeneration
from cxrssl.tasks.report_results import report_results
from cxrssl.views import EvalView, SupervisedView
from tests.objectives.training import loader, quiet_trainer

SIDE = 32
PROMPT = "Provide a description of the findings in the radiology image."
TEXTS = ["The heart is enlarged.", "No effusion.", "There is a pneumothorax. No effusion."]
FAST = Recipe(
    lr=Schedule(5e-3),
    lr_scaling="none",
    weight_decay=Schedule(0.0),
    layer_decay=1.0,
    patch_embed_lr=1.0,
    clip=1.0,
    freeze_last_layer=0.0,
)


def small_tokenizer():
    sentences = [s for ways in (_PRESENT, _ABSENT) for said in ways.values() for s in said]
    words = sorted(
        {word for text in (PROMPT, "USER: ASSISTANT:", *sentences) for word in text.split()}
    )
    vocabulary = {word: n for n, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )


def small_language_model(seed=0, **options):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(small_tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        **options,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a language model, its tokeniser, and settings of a chat model."""
    path = tmp_path_factory.mktemp("language_model")
    model = small_language_model()
    model.generation_config.update(do_sample=True, temperature=0.9, repetition_penalty=1.7)
    model.half().save_pretrained(path)
    small_tokenizer().save_pretrained(path)
    return str(path)


def small_encoder():
    torch.manual_seed(1)
    return ViT("vit_tiny", img_size=SIDE, width=32, depth=2, heads=2, registers=1)


def small_task(folder, seed=2, **options):
    encoder = small_encoder()
    torch.manual_seed(seed)
    return ReportGeneration(encoder, folder, **options)


def small_batch(texts=TEXTS):
    generator = torch.Generator().manual_seed(0)
    n = len(texts)
    return {
        "image": torch.randn(n, 1, SIDE, SIDE, generator=generator),
        "text": list(texts),
        "image_number": torch.arange(n) + 5,
        "readable": torch.ones(n, dtype=torch.bool),
    }


def slow_sequence(task, image, before, after):
    """Return what is read of one image: each token's embedding in a list."""
    table = task.language_model.get_input_embeddings().weight
    words = task.tokens.tokenizer.convert_tokens_to_ids
    with torch.no_grad():
        patches = task.backbone.levels(image[None], [-1])[0].patches[0]
    return [
        *(table[words(word)] for word in before),
        *(task.projector(patch[None])[0] for patch in patches),
        *(table[words(word)] for word in after),
    ]


def slow_losses(task, image, text, before=("<s>",), after=None):
    """Return the cross-entropy of each token of one report, each read anew from the beginning."""
    sequence = slow_sequence(task, image, before, PROMPT.split() if after is None else after)
    table = task.language_model.get_input_embeddings().weight
    losses = []
    for word in [*text.split(), "</s>"]:
        token = task.tokens.tokenizer.convert_tokens_to_ids(word)
        logits = task.language_model(inputs_embeds=torch.stack(sequence)[None]).logits[0, -1]
        losses.append(-logits.log_softmax(0)[token])
        sequence.append(table[token])
    return losses


def test_loss_is_the_mean_over_the_tokens_of_reports_read_one_by_one(folder):
    task, batch = small_task(folder), small_batch()
    [(name, (weight, loss))] = task.weighted_terms(batch, 0.0).items()
    pairs = zip(batch["image"], TEXTS, strict=True)
    losses = [each for image, text in pairs for each in slow_losses(task, image, text)]
    assert (name, weight, loss.dtype) == ("report", 1.0, torch.float32)
    assert len(losses) == sum(len(text.split()) + 1 for text in TEXTS)
    assert_close(loss, torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)


def test_prompt_around_the_image(folder):
    task = small_task(folder, prompt="USER: <image> Provide ASSISTANT:")
    batch = small_batch(TEXTS[:1])
    loss = task.weighted_terms(batch, 0.0)["report"][1]
    around = {"before": ("<s>", "USER:"), "after": ("Provide", "ASSISTANT:")}
    expected = torch.stack(slow_losses(task, batch["image"][0], TEXTS[0], **around)).mean()
    assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_what_is_masked_has_no_influence(folder):
    task, batch = small_task(folder), small_batch()
    loss = task.weighted_terms(batch, 0.0)["report"][1]
    loss.backward()
    table = task.language_model.get_input_embeddings().weight
    assert not table.grad[0].any()  # token 0 is where reports are padded
    with torch.no_grad():
        table[0] = 100
    assert_close(task.weighted_terms(batch, 0.0)["report"][1], loss)
    assert all(p.grad is None for p in task.backbone.parameters())
    assert all(p.grad.any() for p in task.projector.parameters())


def test_loss_is_over_the_tokens_of_all_processes(folder, monkeypatch):
    task, batch = small_task(folder), small_batch()
    alone = task.weighted_terms(batch, 0.0)["report"][1]
    count = sum(len(text.split()) + 1 for text in TEXTS)
    monkeypatch.setattr(report_generation, "world_size", lambda: 2)
    monkeypatch.setattr(report_generation, "all_sum", lambda values: values + 7)
    # Gradients are averaged over both processes, and so is what is logged.
    shared = task.weighted_terms(batch, 0.0)["report"][1]
    assert_close(shared, alone * count * 2 / (count + 7))


def test_a_long_report_is_learnt_without_its_end(folder):
    task, batch = small_task(folder, max_text_tokens=4), small_batch()
    targets = task.tokens.targets([TEXTS[0], TEXTS[2], ""])
    words = [["The", "heart", "is", "enlarged.", "</s>"], ["There", "is", "a", "pneumothorax."]]
    expected = [task.tokens.tokenizer.convert_tokens_to_ids(each) for each in words]
    assert targets.tolist() == [expected[0], [*expected[1], -100], [2, *[-100] * 4]]
    loss = task.weighted_terms({**batch, "image": batch["image"][2:], "text": TEXTS[2:]}, 0.0)
    losses = slow_losses(task, batch["image"][2], TEXTS[2])[:4]
    assert_close(loss["report"][1], torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)


def test_greedy_decoding_equals_a_loop_over_the_likeliest_tokens(folder):
    task, batch = small_task(folder, max_new_tokens=12).eval(), small_batch()
    found = task(batch["image"])
    table = task.language_model.get_input_embeddings().weight
    for image, text in zip(batch["image"], found, strict=True):
        sequence = slow_sequence(task, image, ["<s>"], PROMPT.split())
        tokens = []
        while len(tokens) < 12 and 2 not in tokens:
            logits = task.language_model(inputs_embeds=torch.stack(sequence)[None]).logits
            tokens.append(int(logits[0, -1].argmax()))
            sequence.append(table[tokens[-1]])
        assert task.tokens.tokenizer.decode(tokens, skip_special_tokens=True).strip() == text
    assert found == [task(image[None])[0] for image in batch["image"]]


def test_a_report_ends_where_its_end_is(folder):
    tokens = small_task(folder).tokens
    words = tokens.tokenizer.convert_tokens_to_ids(
        ["<s>", "No", "effusion.", "</s>", "No", "<pad>"]
    )
    assert tokens.text(words) == "No effusion."
    assert tokens.text(words[:2]) == "No"


def test_three_reports_are_learnt_and_generated(folder):
    task = small_task(folder, recipe=FAST)
    data = PhantomDataModule(3, 64, views=task.views, batch_size=3, num_workers=0, split=(1, 0, 0))
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert len(set(batch["text"])) == 3
    trainer = quiet_trainer(max_steps=120, max_epochs=-1)
    trainer.fit(task, loader([batch] * 120))
    [metrics] = trainer.test(task, loader([batch]), verbose=False)
    expected = dict(zip(batch["image_number"].tolist(), batch["text"], strict=True))
    found = dict(zip(task.predictions["image_number"], task.predictions["generated"], strict=True))
    assert found == expected
    assert metrics == pytest.approx({"test/rouge_l": 1, "test/bleu_4": 1})


def test_training_on_a_data_module(folder):
    task = small_task(folder, max_new_tokens=4)
    assert isinstance(task.views, EvalView)
    data = PhantomDataModule(24, 64, views=task.views, batch_size=5, num_workers=0, seed=0)
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(task, datamodule=data)
    losses = []
    for batch in data.val_dataloader():
        pairs = zip(batch["image"], batch["text"], strict=True)
        losses += [each for image, text in pairs for each in slow_losses(task, image, text)]
    logged = trainer.callback_metrics["val/loss"]
    assert_close(logged, torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)
    trainer.test(task, datamodule=data, verbose=False)
    results = task.results(data)
    rows = data.shown_rows("test")
    reports = results.tables["reports"]
    assert reports["reference"].tolist() == rows["text"].tolist()
    assert reports["path"].tolist() == rows["path"].tolist()
    assert results.tables["scores"]["metric"].tolist() == ["rouge_l", "bleu_4"]
    assert results.text.startswith(f"{len(rows)} reports\nrouge_l {reports['rouge_l'].mean():.3f}")


def test_images_that_could_not_be_read_have_no_report(folder):
    task, batch = small_task(folder, max_new_tokens=3), small_batch()
    batch["readable"][1] = False
    whole = task(batch["image"])
    predicted = task.predict_step(batch, 0)
    assert predicted["report"] == [whole[0], None, whole[2]]
    table = pd.DataFrame(task.name_predictions(predicted))
    assert table["image_number"].tolist() == [5, 6, 7]
    trainer = quiet_trainer()
    logged = trainer.validate(task, loader([batch]), verbose=False)[0]["val/loss"]
    kept = {"image": batch["image"][[0, 2]], "text": TEXTS[::2]}
    assert logged == pytest.approx(task.weighted_terms(kept, 0.0)["report"][1].item(), rel=1e-5)
    trainer.test(task, loader([batch]), verbose=False)
    assert task.predictions["image_number"].tolist() == [5, 7]
    assert task.predictions["reference"].tolist() == TEXTS[::2]
    assert task.predictions["generated"].tolist() == whole[::2]


def test_without_any_readable_image_nothing_is_scored(folder):
    task, batch = small_task(folder), small_batch()
    batch["readable"][:] = False
    trainer = quiet_trainer()
    both = [batch, small_batch()]
    logged = trainer.validate(task, loader(both), verbose=False)[0]["val/loss"]
    assert logged == pytest.approx(task.weighted_terms(both[1], 0.0)["report"][1].item(), rel=1e-5)
    trainer.test(task, loader([batch]), verbose=False)
    assert task.predict_step(batch, 0)["report"] == [None] * 3
    with pytest.raises(InputError, match="no test image could be read"):
        report_results(task.predictions, pd.DataFrame())


def saved(task, path):
    """Train for a step; return the checkpoint."""
    trainer = quiet_trainer(max_steps=1)
    trainer.fit(task, loader([small_batch()]))
    trainer.save_checkpoint(path / "last.ckpt")
    return path / "last.ckpt"


@pytest.mark.parametrize("trained", [True, False])
def test_checkpoints_hold_what_was_trained(folder, tmp_path, trained):
    task = small_task(folder, recipe=FAST, train_language_model=trained)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    path = saved(task, tmp_path)
    state = torch.load(path, weights_only=True)["state_dict"]
    parts = {name.split(".")[0] for name in state}
    assert parts == ({"projector", "language_model"} if trained else {"projector"})
    for name, value in task.state_dict().items():
        moved = name.startswith("projector") or (trained and name.startswith("language_model"))
        assert torch.equal(value, before[name]) != moved, name
    other = small_task(folder, seed=9, train_language_model=trained, max_new_tokens=2)
    quiet_trainer().test(other, loader([small_batch()]), ckpt_path=path, verbose=False)
    for name, value in task.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_checkpoint_beside_another_frozen_language_model_is_refused(folder, tmp_path):
    path = saved(small_task(folder, train_language_model=False), tmp_path)
    model, tokenizer = small_language_model(seed=4), small_tokenizer()
    other = small_task(model, tokenizer=tokenizer, train_language_model=False)
    with pytest.raises(InputError, match="frozen language model that is another one"):
        quiet_trainer().test(other, loader([small_batch()]), ckpt_path=path, verbose=False)


def test_what_is_frozen_stays_in_evaluation_mode(folder):
    frozen = small_task(folder, train_language_model=False).train()
    assert not frozen.language_model.training
    assert not any(p.requires_grad for p in frozen.language_model.parameters())
    assert list(frozen.clip_groups()) == ["projector"]
    trained = small_task(folder).train()
    assert trained.language_model.training
    assert not trained.backbone.training
    assert list(trained.clip_groups()) == ["language_model", "projector"]


def test_weights_are_read_in_float32_whatever_the_file_has(folder):
    model, _ = load_language_model(folder, None)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    expected = small_language_model().half().state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name].float()), name


def test_a_model_given_as_an_object_writes_what_its_file_does(folder):
    model, tokenizer = load_language_model(folder, None)
    batch = small_batch()
    given = small_task(model, tokenizer=tokenizer, max_new_tokens=5)
    assert given(batch["image"]) == small_task(folder, max_new_tokens=5)(batch["image"])
    with pytest.raises(InputError, match="needs its tokenizer"):
        small_task(model)


def test_the_recipe_is_that_of_llava():
    assert LLAVA_RECIPE.lr == Schedule(2e-5, final=0.0, warmup=0.03)
    assert LLAVA_RECIPE.scaled_lr(128).value == 2e-5
    assert (LLAVA_RECIPE.weight_decay.value, LLAVA_RECIPE.layer_decay) == (0, 1)


def test_views_can_be_random(folder):
    views = SupervisedView(image_size=2 * SIDE, flip=0)
    task = small_task(folder, views=views, max_new_tokens=2)
    assert task.views is views
    assert views.targets.text
    assert len(task(torch.zeros(1, 1, 2 * SIDE, 2 * SIDE))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be positive, got 0"),
        ({"max_text_tokens": 0}, "max_text_tokens must be positive, got 0"),
        ({"prompt": "<image> and <image>"}, "<image> once at most, got '<image> and <image>'"),
    ],
)
def test_options_out_of_range_are_refused(folder, options, message):
    with pytest.raises(InputError, match=message):
        small_task(folder, **options)


def test_too_long_sequences_are_refused():
    model, tokenizer = small_language_model(), small_tokenizer()
    model.config.max_position_embeddings = 20
    task = small_task(model, tokenizer=tokenizer, max_new_tokens=8)
    batch = small_batch([" ".join(["effusion."] * 8)])
    with pytest.raises(InputError, match="up to 23 tokens, the language model reads 20"):
        task(batch["image"])
    with pytest.raises(InputError, match="up to 24 tokens, the language model reads 20"):
        task.weighted_terms(batch, 0.0)


def test_missing_transformers_is_said(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r'pip install "cxrssl\[llm\]"$'):
        small_task(folder)


def test_pickled_weights_are_not_read(folder, tmp_path):
    model = small_language_model()
    model.config.save_pretrained(tmp_path)
    small_tokenizer().save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"AutoModelForCausalLM cannot read .*safetensors"):
        small_task(str(tmp_path))


def test_what_is_no_language_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"AutoTokenizer cannot read {tmp_path}: "):
        small_task(str(tmp_path))


def test_a_tokenizer_without_an_end_is_refused():
    tokenizer = small_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="has no eos_token"):
        small_task(small_language_model(), tokenizer=tokenizer)


def test_models_without_a_beginning_or_padding_will_do():
    tokenizer = small_tokenizer()
    tokenizer.bos_token = tokenizer.pad_token = None
    task = small_task(small_language_model(), tokenizer=tokenizer, max_new_tokens=3)
    assert task.tokens.before == []
    batch = small_batch(TEXTS[:1])
    losses = slow_losses(task, batch["image"][0], TEXTS[0], before=())
    loss = task.weighted_terms(batch, 0.0)["report"][1]
    assert_close(loss, torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)
    assert len(task(batch["image"])) == 1
