"""State dicts of small random ViTs under the tensor names that published checkpoints use."""

from argparse import Namespace

import torch

DIM, DEPTH, PATCH, GRID = 24, 2, 8, (8, 4)  # of helpers.model.TINY, with fewer blocks
TINY_SHAPE = dict(img_size=(64, 32), patch_size=PATCH, embed_dim=DIM, depth=DEPTH, num_heads=3)


def randomised(model):
    """``model`` in evaluation mode with other numbers in every parameter, so that none is left as it starts."""
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(std=0.3)
    return model.eval()


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def tensors(**shapes):
    """{name: random tensor}; "__" in a keyword is a dot."""
    return {name.replace("__", "."): torch.randn(shape) for name, shape in shapes.items()}


def dino_head():
    return tensors(
        head__mlp__0__weight=(16, DIM), head__mlp__0__bias=(16,), head__mlp__2__weight=(8, 16), head__mlp__2__bias=(8,),
        head__last_layer__weight_g=(6, 1), head__last_layer__weight_v=(6, 8),
    )  # fmt: skip


def training_checkpoint(plain, loss="dino_loss"):
    """What DINO's training and those after it write: a student behind ``module.``, a teacher, and the command line."""
    student = {key: torch.zeros_like(value) for key, value in plain.items()}
    teacher = {**prefixed(plain, "backbone."), **dino_head()}
    return {
        "student": prefixed({**prefixed(student, "backbone."), **dino_head()}, "module."),
        "teacher": teacher,
        "optimizer": {"state": {0: {"step": 1, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 100,
        "args": Namespace(arch="vit_small", patch_size=16, crops=(0.4, 1.0), use_fp16=True, output_dir="out"),
        loss: {"center": torch.zeros(1, 6)},
        "fp16_scaler": {"scale": 65536.0},
    }


def part_tokens(plain):
    """PASS: three tokens of parts, and positions of tokens and patches apart."""
    state = {**plain, "cls_pos": plain["pos_embed"][:, :1].clone(), "pos_embed": plain["pos_embed"][:, 1:].clone()}
    for part in "123":
        state.update(tensors(**{f"part_token{part}": (1, 1, DIM), f"part{part}_pos": (1, 1, DIM)}))
    return state


def mae(plain):
    decoder = tensors(
        mask_token=(1, 1, 16), decoder_pos_embed=(1, 33, 16), decoder_embed__weight=(16, DIM),
        decoder_blocks__0__norm1__weight=(16,), decoder_blocks__0__attn__qkv__weight=(48, 16),
        decoder_norm__weight=(16,), decoder_pred__weight=(192, 16),
    )  # fmt: skip
    return {"model": {**plain, **decoder}}


def dinov2(plain):
    """Meta's: a mask token; registers, whose positions are none while the class token has one; SwiGLU as w12, w3."""
    swaps = {"mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3"} if plain["blocks.0.mlp.fc1.weight"].shape[0] != 4 * DIM else {}
    state = {"mask_token": torch.randn(1, DIM), **plain}
    if "reg_token" in state:
        position = torch.randn(1, 1, DIM)
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
        state["cls_token"] = state["cls_token"] - position
    for old, new in swaps.items():
        state = {key.replace(old, new): value for key, value in state.items()}
    return state


def clip_tower():
    """OpenAI's image tower."""
    names = dict(
        class_embedding=(DIM,), positional_embedding=(1 + GRID[0] * GRID[1], DIM), conv1__weight=(DIM, 3, PATCH, PATCH),
        ln_pre__weight=(DIM,), ln_pre__bias=(DIM,), ln_post__weight=(DIM,), ln_post__bias=(DIM,), proj=(DIM, 16),
    )  # fmt: skip
    for block in range(DEPTH):
        shapes = dict(
            attn__in_proj_weight=(3 * DIM, DIM), attn__in_proj_bias=(3 * DIM,),
            attn__out_proj__weight=(DIM, DIM), attn__out_proj__bias=(DIM,),
            ln_1__weight=(DIM,), ln_1__bias=(DIM,), ln_2__weight=(DIM,), ln_2__bias=(DIM,),
            mlp__c_fc__weight=(4 * DIM, DIM), mlp__c_fc__bias=(4 * DIM,),
            mlp__c_proj__weight=(DIM, 4 * DIM), mlp__c_proj__bias=(DIM,),
        )  # fmt: skip
        names.update({f"transformer__resblocks__{block}__{name}": shape for name, shape in shapes.items()})
    return {key: 0.3 * value for key, value in tensors(**names).items()}


def clip(tower):
    """The whole of CLIP, whose tower of texts has names like the one of images."""
    text = tensors(
        positional_embedding=(7, 16), text_projection=(16, 16), logit_scale=(), token_embedding__weight=(9, 16),
        ln_final__weight=(16,), transformer__resblocks__0__ln_1__weight=(16,), input_resolution=(),
    )  # fmt: skip
    return {**text, **prefixed(tower, "visual.")}


def clip_reid(tower, num_classes=5):
    """A trained CLIP-ReID."""
    rest = tensors(
        classifier__weight=(num_classes, DIM), classifier_proj__weight=(num_classes, 16), cv_embed=(3, DIM),
        bottleneck__weight=(DIM,), bottleneck__bias=(DIM,), bottleneck__running_mean=(DIM,),
        bottleneck_proj__weight=(16,), prompt_learner__cls_ctx=(num_classes, 4, 16),
        text_encoder__positional_embedding=(7, 16), text_encoder__transformer__resblocks__0__ln_1__weight=(16,),
    )  # fmt: skip
    rest.update({"bottleneck.running_var": torch.rand(DIM) + 0.5, "bottleneck.num_batches_tracked": torch.tensor(7)})
    return prefixed({**rest, **prefixed(tower, "image_encoder.")}, "module.")
