"""The keys of the plugin's own models, section ``vit``; a part of the schema."""

from dpm_plugin.config.types import Key

VIT = {  # [DPM] the plugin's models; torchreid's ignore this section
    "vit.backbone": Key("", "any ViT of timm, e.g. vit_small_patch16_224; '' is the model's own"),
    "vit.stride": Key(
        16,
        "step between patches in pixels, or [vertical, horizontal]; they overlap below the patch size (Eq. 1)",
        low=1,
        kind="int or pair",
    ),
    "vit.camera_embedding": Key(True, "add a learned embedding of the camera to every token (Eq. 2)"),
    "vit.camera_weight": Key(3.0, "lambda of Eq. 2 (section 4.1)"),
    "vit.drop_path": Key(0.1, "stochastic depth of the last block, growing from 0 (released recipe)", low=0, high=0.99),
    "vit.token_std": Key(
        0.0,
        "standard deviation that position embedding and class token start with; 0 is "
        "timm's 0.02; 1.0 learns many times sooner from scratch",
        low=0,
    ),
    "vit.mask_blocks": Key(
        [],
        "blocks, from 1, that feed the mask generator; []: 2, 4, 10, 12 scaled to the depth (section 3.2, Table 3)",
        low=1,
        kind="ints",
    ),
    "vit.mask_pool": Key("avg", "pooling inside the mask generator: avg as in Eq. 3, max as released", ("avg", "max")),
    "vit.parts": Key(
        0,
        "beyond the paper: horizontal stripes that have a feature each beside the class token; 0 is the model's own",
        low=0,
    ),
    "vit.part_dim": Key(0, "channels of a part feature; 0 is half as many as a token has", low=0),
    "vit.prototype_init": Key(
        "normal",
        "what the prototypes start from: normal, standard deviation 0.02, or xavier's uniform distribution (released)",
        ("normal", "xavier"),
    ),
    "vit.neck": Key(True, "BatchNorm between the feature and both heads (released recipe)"),
    "vit.embed_dim": Key(0, "feature width D; 0 is the backbone's own", low=0),
    "vit.depth": Key(0, "number of blocks; 0 is the backbone's own", low=0),
    "vit.num_heads": Key(0, "attention heads; 0 is the backbone's own", low=0),
    "vit.patch_size": Key(0, "patch size in pixels; 0 is the backbone's own", low=0),
    "vit.pretrained_file": Key("", "local file of backbone weights instead of timm's download"),
}
