"""Captions from files, and the sticker test set."""

from __future__ import annotations

import json

import pytest
import torch

from fusedream_nb.evaluation import captions as module
from fusedream_nb.evaluation.captions import captions, read, sticker_scenes
from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers.captions import VOCABULARY, split
from fusedream_nb.models.stickers.scenes import sample_scenes
from training.encoders import SEEDS


def test_lines_are_tidied_and_kept_once_in_order(tmp_path):
    (tmp_path / "all.txt").write_text("\ufeffa  dog\n\n a cat \na dog\r\nÜber, \"ein\" 'Haus'\n", "utf-8")
    assert read(tmp_path / "all.txt") == ["a dog", "a cat", "Über, \"ein\" 'Haus'"]
    assert captions(tmp_path / "all.txt", 2) == ["a dog", "a cat"]


def test_coco_comes_in_one_random_order_whose_beginning_is_a_sample(tmp_path):
    rows = [{"image_id": i // 5, "id": i, "caption": f"caption {i} "} for i in range(50)]
    path = tmp_path / "captions_val2014.json"
    path.write_text(json.dumps({"annotations": rows}))
    found = read(path)
    assert sorted(found) == sorted(row["caption"].strip() for row in rows)
    assert found != [row["caption"].strip() for row in rows]
    assert captions(path, 7) == captions(path)[:7] == found[:7]


def test_a_file_without_captions_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="a.txt holds no captions"):
        read(tmp_path / "a.txt")


def test_the_test_set_is_three_thousand_captions_of_the_grammar_each_once():
    texts, scenes = sticker_scenes()
    assert len(texts) == len(set(texts)) == len(scenes) == 3000
    assert {word for text in texts for word in split(text)} <= set(VOCABULARY)
    again, few = sticker_scenes(40)
    assert again == texts[:40] == captions(limit=40) and torch.equal(few.place, scenes.place[:40])


def test_a_caption_names_the_nouns_of_its_scene():
    texts, scenes = sticker_scenes(200)
    for text, nouns in zip(texts, scenes.noun.tolist(), strict=True):
        for noun in (world.NOUNS[n] for n in nouns if n >= 0):
            assert set(split(text)) & set(world.SYNONYMS.get(noun, (noun,)))


def test_no_training_starts_where_the_test_set_is_drawn():
    """Trainings seed their draws with a fixed number and 1,000 times the step they go on from."""
    assert all((module.TEST_SEED - seed) % 1000 for seed in SEEDS.values())
    _, scenes = sticker_scenes()
    for seed in SEEDS.values():
        seen = sample_scenes(3000, torch.Generator().manual_seed(seed))
        assert not torch.isin(scenes.texture[:, 0], seen.texture[:, 0]).all()
        both = torch.cat([scenes.texture, seen.texture])
        assert len(both.unique(dim=0)) == 6000


def test_a_limit_out_of_range_is_told():
    with pytest.raises(ValueError, match="at least 1"):
        captions(limit=0)
    with pytest.raises(ValueError, match="3,000 captions"):
        sticker_scenes(3001)
