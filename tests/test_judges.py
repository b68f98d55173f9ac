import json

import pytest
import torch

from shala_lite.datasets import MultimodalDataset, load_dataset
from shala_lite.judge_nets import ImageJudge
from shala_lite.judges import JudgeData, Judges
from shala_lite.modalities import Modality
from shala_lite.training import fit
from shala_lite.vocabulary import Vocabulary

IMAGE = Modality("m0", (3, 28, 28))
SMALL = Modality("grey", (1, 9, 12))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n, modality=IMAGE, seed=0):
    return torch.rand(n, *modality.shape, generator=generator(seed))


def small_dataset(n=30, present=None):
    drawn = torch.randint(0, 256, (2, n, 1, 9, 12), generator=generator(), dtype=torch.uint8)
    return MultimodalDataset(
        modalities=(SMALL, Modality("other", (1, 9, 12))),
        observations={"grey": drawn[0], "other": drawn[1]},
        labels=torch.arange(n) % 10,
        present=present,
    )


@pytest.fixture
def judges():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Judges.for_modalities(small_dataset().modalities)


def test_a_few_steps_on_embedded_digits_beat_chance_by_far():
    train = load_dataset("polymnist", "train", size=1500)
    test = load_dataset("polymnist", "test", size=300)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = ImageJudge(train.modalities[0])
    history = fit(
        judge,
        JudgeData(train, "m0"),
        steps=60,
        batch_size=64,
        learning_rate=5e-3,
        precision="32-true",
        progress=False,
    )
    assert Judges({"m0": judge}).accuracy(test)["m0"] > 0.7
    assert history.terms["accuracy"][0] < 0.4 < history.terms["accuracy"][-1]


def test_judge_data_leaves_out_what_is_missing():
    present = torch.ones(30, 2, dtype=torch.bool)
    present[::3, 1] = False
    data = small_dataset(present=present)
    assert len(JudgeData(data, "grey")) == 30
    other = JudgeData(data, "other")
    assert len(other) == 20
    batch = other.batch(torch.tensor([0, 1]))
    assert batch["label"].tolist() == [1, 2]
    torch.testing.assert_close(batch["x"], data.observations["other"][1:3].float() / 255)
    with pytest.raises(ValueError, match="name is 'm7'"):
        JudgeData(data, "m7")


def test_features_are_standardised_on_what_they_were_fitted_to(judges):
    data = small_dataset(200)
    for name in judges.names:  # batch statistics, so that features vary
        judges[name].train()(data.observations[name])
    judges.fit_feature_statistics(data)
    for features in judges.features(data.observations).values():
        torch.testing.assert_close(features.mean(0), torch.zeros(64), atol=1e-4, rtol=0)
        torch.testing.assert_close(features.std(0), torch.ones(64), atol=1e-3, rtol=0)


def test_features_before_their_statistics_are_refused(judges):
    data = small_dataset()
    with pytest.raises(RuntimeError, match="fit_feature_statistics"):
        judges.features(data.observations)
    assert set(judges.predict(data.observations)) == {"grey", "other"}


def test_chunks_change_nothing(judges, monkeypatch):
    data = small_dataset(50)
    judges.fit_feature_statistics(data)
    whole = judges.judge(data.observations)
    monkeypatch.setattr("shala_lite.judges.CHUNK", 7)
    parts = judges.judge(data.observations)
    for name in judges.names:
        assert (whole[name].labels == parts[name].labels).float().mean() > 0.95
        torch.testing.assert_close(whole[name].features, parts[name].features, atol=1e-4, rtol=1e-4)


def test_judging_depends_on_no_other_item_and_leaves_the_mode_alone(judges):
    data = small_dataset(20)
    judges.fit_feature_statistics(data)
    judges.train()
    x = {"grey": data.observations["grey"]}
    alone = torch.cat([judges.features({"grey": one[None]})["grey"] for one in x["grey"]])
    torch.testing.assert_close(judges.features(x)["grey"], alone, atol=1e-4, rtol=1e-4)
    assert judges["grey"].training
    assert not judges.features(x)["grey"].requires_grad


def test_predictions_accuracy_and_one_pass_judging_agree(judges):
    data = small_dataset(40)
    judges.fit_feature_statistics(data)
    predicted, judged = judges.predict(data.observations), judges.judge(data.observations)
    for name, share in judges.accuracy(data).items():
        assert share == pytest.approx((predicted[name] == data.labels).double().mean().item())
        assert torch.equal(predicted[name], judged[name].labels)


def test_save_then_load_is_the_identity(judges, tmp_path):
    data = small_dataset(25)
    for name in judges.names:
        judges[name].train()(data.observations[name])
    judges.fit_feature_statistics(data)
    judges.save(tmp_path / "judges")
    loaded = Judges.load(tmp_path / "judges")
    assert loaded.names == judges.names
    for key, value in judges.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    before, after = judges.judge(data.observations), loaded.judge(data.observations)
    for name in judges.names:
        assert torch.equal(before[name].features, after[name].features)
        assert loaded[name].modality == judges[name].modality
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_saved_judges_are_plain_json_and_safetensors(judges, tmp_path):
    judges.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"judges.json", "judges.safetensors"}
    entries = json.loads((tmp_path / "judges.json").read_text())["judges"]
    names = [entry["modality"]["name"] for entry in entries]
    assert names == ["grey", "other"]
    with pytest.raises(FileNotFoundError, match="no judges in"):
        Judges.load(tmp_path / "elsewhere")


def test_what_cannot_be_judged_is_refused(judges):
    with pytest.raises(ValueError, match="judges is empty"):
        Judges({})
    with pytest.raises(KeyError, match="no judge for modality 'm9'"):
        judges.predict({"m9": images(2)})


def test_judges_of_pictures_and_of_words_stand_side_by_side(tmp_path):
    word = Modality("word", (5,), "text", Vocabulary((" ", "a", "b", "c"), ""))
    ids = torch.randint(4, (30, 5), generator=generator(), dtype=torch.int16)
    data = small_dataset()
    data = MultimodalDataset(
        (SMALL, word), {"grey": data.observations["grey"], "word": ids}, data.labels
    )
    judges = Judges.for_modalities(data.modalities, width=8)
    judges.fit_feature_statistics(data)
    judges.save(tmp_path)
    loaded = Judges.load(tmp_path)
    assert loaded["word"].modality == word
    found, again = judges.judge(data.observations), loaded.judge(data.batch(torch.arange(30))["x"])
    assert torch.equal(found["word"].labels, again["word"].labels)
    torch.testing.assert_close(found["word"].features, again["word"].features)


def test_no_images_have_no_labels(judges):
    assert judges.predict({"grey": images(0, SMALL)})["grey"].tolist() == []
