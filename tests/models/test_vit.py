"""Folded vision transformers against open_clip's own forward."""

from __future__ import annotations

import copy
from collections.abc import Callable

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import nn

from fusedream_nb.models import vit
from fusedream_nb.models.towers import fold

Agree = Callable[..., None]
KINDS = {
    "CLIP's own": {"act_layer": QuickGELU},
    "GELU and scaled layers": {"ls_init_value": 0.3},
    "the tokens' mean": {"pool_type": "avg"},
    "norms after the pooling": {"pool_type": "avg", "final_ln_after_pool": True},
    "attentional pooling": {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 2},
    "no norm before": {"no_ln_pre": True, "act_layer": QuickGELU},
    "blocks of another kind": {"block_type": "custom", "scale_attn": True},
}


def tower(seed: int = 0, **settings: object) -> VisionTransformer:
    """A small vision transformer, every number of it random."""
    torch.manual_seed(seed)
    made = VisionTransformer(
        image_size=40, patch_size=8, width=32, layers=3, heads=4, mlp_ratio=2.0, output_dim=24, **settings
    )
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval().requires_grad_(False).double()


@pytest.mark.parametrize("kind", KINDS)
def test_a_folded_tower_gives_the_same_vectors_and_gradients(
    kind: str, agree: Agree, rng: torch.Generator
) -> None:
    plain = tower(**KINDS[kind])
    folded = fold(copy.deepcopy(plain))
    assert isinstance(folded.conv1, vit.PatchEmbedding)
    assert any(isinstance(module, vit.Block) for module in folded.modules()) == ("another" not in kind)
    agree(folded, plain, torch.randn(3, 3, 40, 40, generator=rng, dtype=torch.float64), 1e-10)


def test_only_a_token_that_is_read_alone_is_asked_for_alone() -> None:
    alone = {
        kind: fold(tower(**settings)).transformer.resblocks[-1].first_only
        for kind, settings in KINDS.items()
        if "another" not in kind
    }
    assert alone == {kind: "pool_type" not in KINDS[kind] and "attentional" not in kind for kind in alone}
    assert not fold(tower(output_tokens=True)).transformer.resblocks[-1].first_only


def test_a_tower_is_folded_once_however_often_an_encoder_is_made_of_it(
    agree: Agree, rng: torch.Generator
) -> None:
    once = fold(tower(**KINDS["CLIP's own"]))
    image = torch.randn(2, 3, 40, 40, generator=rng, dtype=torch.float64)
    agree(fold(fold(copy.deepcopy(once))), once, image, 1e-12)


def test_what_is_no_whole_patch_is_cut_as_a_convolution_cuts_it(agree: Agree, rng: torch.Generator) -> None:
    conv = nn.Conv2d(3, 5, 4, stride=4, bias=True).double().requires_grad_(False)
    image = torch.randn(2, 3, 18, 15, generator=rng, dtype=torch.float64)
    agree(vit.PatchEmbedding(conv), conv, image, 1e-12)


def test_the_published_encoder_is_folded_where_it_is_loaded(rng: torch.Generator) -> None:
    from fusedream_nb.models.encoders import Clip

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).eval().requires_grad_(False)
    image = torch.rand(2, 3, 224, 224, generator=rng) * 2 - 1
    with torch.no_grad():
        own = nn.functional.normalize(model.encode_image(image), dim=-1)
        clip = Clip(model, open_clip.get_tokenizer("ViT-B-32-quickgelu"))
        mine = clip.encode_image(image)  # mean and deviation of one half: no change to [-1, 1]
    torch.testing.assert_close(mine, own, atol=1e-6, rtol=1e-4)
    assert clip.model.visual.transformer.resblocks[-1].first_only


def test_bfloat16_turns_vectors_by_less_than_a_hundredth_and_leaves_them_in_float32(
    rng: torch.Generator,
) -> None:
    from fusedream_nb.models.encoders import Clip

    settings = open_clip.get_model_config("ViT-B-32-quickgelu")
    settings["vision_cfg"] |= {"layers": 4, "width": 256}
    torch.manual_seed(0)
    clip = Clip(open_clip.CLIP(**settings), open_clip.get_tokenizer("ViT-B-32-quickgelu"))
    image = (torch.rand(4, 3, 224, 224, generator=rng) * 2 - 1).requires_grad_()
    exact = clip.encode_image(image)
    rounded = clip.to(torch.device("cpu"), torch.bfloat16).encode_image(image)
    assert rounded.dtype == torch.float32
    assert 0 < (1 - (exact * rounded).sum(1)).max() < 1e-2
    slopes = [torch.autograd.grad((vectors[:, 0]).sum(), image)[0] for vectors in (exact, rounded)]
    cosine = nn.functional.cosine_similarity(*(slope.flatten(1) for slope in slopes))
    assert cosine.min() > 0.99
