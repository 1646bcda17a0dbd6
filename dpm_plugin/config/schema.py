"""Every configuration key: its default, its meaning, and the values it takes.

The sections are those of upstream torchreid's ``scripts/default_config.py``, with the same names and defaults, so
torchreid's own yaml files run unchanged. Keys marked [DPM] are this plugin's; sections and equations are the paper's.
"""

from dataclasses import fields

from dpm_plugin.config.types import Key
from dpm_plugin.config.vit_keys import VIT
from dpm_plugin.data.manager import CORRUPT
from dpm_plugin.data.own import OwnOptions
from dpm_plugin.data.sampling import SAMPLERS
from dpm_plugin.data.synthetic.spec import SyntheticSpec
from dpm_plugin.data.transforms import INTERPOLATIONS, OUR_NAMES, TORCHREID_NAMES
from dpm_plugin.utils.runtime import AMP

MODEL = {
    "model.name": Key(
        "resnet50", "network: [DPM] dpm_vit, vit_baseline, either also with _small or _tiny; or any of torchreid's"
    ),
    "model.pretrained": Key(True, "start from ImageNet weights"),
    "model.load_weights": Key(
        "",
        "weights to start from: a file, or zoo:occluded_duke, zoo:occluded_reid: the published ones, downloaded once",
    ),
    "model.load_sha256": Key("", "[DPM] SHA-256 that the file of model.load_weights must have; '': any"),
    "model.resume": Key(
        "", "checkpoint to continue: weights, optimizer, schedule, epoch and, where it says so, the place in the epoch"
    ),
}

DATA = {
    "data.type": Key("image", "kind of data", ("image", "video")),
    "data.root": Key("reid-data", "folder that holds the data sets"),
    "data.sources": Key(
        ["market1501"], "data sets to train on: names, or [DPM] paths: a folder or a .csv table (configs/DATA.md)"
    ),
    "data.targets": Key(["market1501"], "data sets to evaluate on: names or paths, as in data.sources"),
    "data.workers": Key(4, "processes that load images", low=0),
    "data.split_id": Key(0, "split of data sets that have several", low=0),
    "data.height": Key(256, "image height in pixels", low=1),
    "data.width": Key(128, "image width in pixels", low=1),
    "data.combineall": Key(False, "train on training, query and gallery images together"),
    "data.transforms": Key(
        ["random_flip"],
        "augmentation; [DPM] adds pad_crop (10 zero pixels around, then a random crop), jitter (0.3/0.3/0.2/0.2, after "
        "the resize) and erase_pixel (p 0.5, one box of per-pixel noise): section 4.1 and the released recipe",
        TORCHREID_NAMES + OUR_NAMES,
    ),
    "data.k_tfm": Key(1, "augmented views per image", low=1),
    "data.norm_mean": Key([0.485, 0.456, 0.406], "mean subtracted from each channel (ImageNet's)"),
    "data.norm_std": Key([0.229, 0.224, 0.225], "deviation each channel is divided by (ImageNet's)"),
    "data.save_dir": Key(
        "log", "folder for logs, checkpoints and results.json; test.evaluate in a run's folder: its evaluations/<time>"
    ),
    "data.persistent_workers": Key(
        False, "[DPM] keep the processes of data.workers from epoch to epoch, which draws other random numbers"
    ),
    "data.corrupt": Key(
        "error",
        "[DPM] a training image that cannot be read: error ends the run and names it; skip replaces it by another of "
        "its identity and counts it in results.json. A test image that cannot be read always ends the run",
        CORRUPT,
    ),
    "data.load_train_targets": Key(False, "also load the targets' training images (domain adaptation)"),
    "data.interpolation": Key(
        "bilinear", "[DPM] resize filter of training images; test images: bilinear", tuple(INTERPOLATIONS)
    ),
    "data.own.pattern": Key(
        OwnOptions.pattern,
        "[DPM] your own people: regular expression with groups pid, camid or both, searched in file names; the default "
        "reads Market-1501's where they fit",
    ),
    "data.own.test_share": Key(
        OwnOptions.test_share,
        "[DPM] share of your own people that is the test where neither folders nor a column say so",
        low=0,
        high=1,
    ),
    "data.own.seed": Key(OwnOptions.seed, "[DPM] which people these are, and which of their images are queries"),
    "market1501.use_500k_distractors": Key(False, "add the 500,000 distractors to Market-1501's gallery"),
    "cuhk03.labeled_images": Key(False, "boxes drawn by hand instead of detected ones"),
    "cuhk03.classic_split": Key(False, "the classic split (Li et al., CVPR 2014)"),
    "cuhk03.use_metric_cuhk03": Key(False, "CUHK03's single-gallery-shot metric"),
}

# SyntheticSpec checks the ranges: it is also made without a configuration.
SYNTHETIC = {
    f"synthetic.{field.name}": Key(field.default, f"[DPM] {field.metadata['meaning']}")
    for field in fields(SyntheticSpec)
}

SAMPLER = {
    "sampler.train_sampler": Key("RandomSampler", "order of training images", SAMPLERS),
    "sampler.train_sampler_t": Key("RandomSampler", "the same for load_train_targets", SAMPLERS),
    "sampler.num_instances": Key(4, "images per identity in a batch (RandomIdentitySampler)", low=1),
    "sampler.num_cams": Key(1, "cameras in a batch (RandomDomainSampler)", low=1),
    "sampler.num_datasets": Key(1, "data sets in a batch (RandomDatasetSampler)", low=1),
    "video.seq_len": Key(15, "images sampled per tracklet", low=1),
    "video.sample_method": Key("evenly", "how they are sampled", ("evenly", "random", "all")),
    "video.pooling_method": Key("avg", "how their features are pooled", ("avg", "max")),
}

TRAIN = {
    "train.optim": Key("adam", "optimizer; [DPM] adds adamw", ("adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw")),
    "train.lr": Key(0.0003, "learning rate", low=0),
    "train.weight_decay": Key(5e-4, "weight decay", low=0),
    "train.max_epoch": Key(60, "epochs in all", low=0),
    "train.start_epoch": Key(0, "epochs already done (resuming sets it)", low=0),
    "train.resume": Key(
        "",
        "[DPM] auto: go on exactly where the newest readable checkpoint of data.save_dir was written, from the "
        "beginning where there is none; or a file, as model.resume",
    ),
    "train.checkpoint_every": Key(
        0, "[DPM] iterations between checkpoints (model/last.pth.tar); 0: at each epoch's end only", low=0
    ),
    "train.keep_checkpoints": Key(
        3,
        "[DPM] newest checkpoints to keep: last.pth.tar, last-1.pth.tar, ...; best.pth.tar and evaluated epochs' stay",
        low=1,
    ),
    "train.keep_epochs": Key(
        0, "[DPM] newest evaluated epochs whose weights to keep (model/model.pth.tar-<epoch>); 0: all", low=0
    ),
    "train.overwrite": Key(
        False, "[DPM] start afresh in a data.save_dir that holds a run; its checkpoints and results.json are removed"
    ),
    "train.non_finite": Key(
        "stop",
        "[DPM] a loss or gradient that is not finite: stop the run, or skip: undo the iteration and count it (takes a "
        "second copy of weights and optimizer state)",
        ("stop", "skip"),
    ),
    "train.non_finite_limit": Key(10, "[DPM] iterations skipped in a row that stop the run all the same", low=1),
    "train.deterministic": Key(
        False,
        "[DPM] torch's deterministic kernels (slower on a GPU), and augmentation that depends on train.seed, epoch and "
        "position in the sampler's order alone, not on data.workers; it is another one than without this key",
    ),
    "train.patience": Key(
        0,
        "[DPM] evaluations (test.eval_freq) in a row without a better rank-1, or with the same one mAP, that end "
        "training; 0: none do",
        low=0,
    ),
    "train.batch_size": Key(32, "images per training batch, of all processes together", low=1),
    "train.fixbase_epoch": Key(0, "epochs that train open_layers only", low=0),
    "train.open_layers": Key(["classifier"], "layers trained during fixbase_epoch"),
    "train.freeze_blocks": Key(
        0,
        "[DPM] first so many transformer blocks that are not trained, with patch and position embedding, for small "
        "data; 0: all are trained (the plugin's models only)",
        low=0,
    ),
    "train.staged_lr": Key(False, "smaller rate for all but new_layers (torchreid's models only)"),
    "train.new_layers": Key(["classifier"], "layers that keep the full rate under staged_lr"),
    "train.base_lr_mult": Key(0.1, "factor on the rate of the others under staged_lr", low=0),
    "train.lr_scheduler": Key(
        "single_step",
        "learning-rate schedule; [DPM] adds warmup_cosine",
        ("single_step", "multi_step", "cosine", "warmup_cosine"),
    ),
    "train.stepsize": Key([20], "epochs at which single_step (last of the list) or multi_step decay", low=1),
    "train.gamma": Key(0.1, "factor of each such decay", low=0),
    "train.print_freq": Key(20, "iterations between lines on screen; there is one every 30 s and epoch too", low=1),
    "train.seed": Key(1, "random seed", low=0, high=2**32 - 1),
    "train.warmup_epochs": Key(
        5,
        "[DPM] warmup_cosine: the first epoch on the cosine; equal steps lead there, so 0 and 1 are no warm-up",
        low=0,
    ),
    "train.warmup_factor": Key(
        0.01, "[DPM] warmup_cosine: share of train.lr a step below epoch 1, which has 0.208 by the defaults", low=0
    ),
    "train.final_factor": Key(0.002, "[DPM] warmup_cosine: last rate, as a share of train.lr", low=0),
    "train.mask_schedule": Key(
        "cosine", "[DPM] warmup_cosine: the mask generator's rate; released: constant", ("cosine", "constant")
    ),
    "train.bias_lr_mult": Key(1.0, "[DPM] factor on the learning rate of biases (released recipe: 2)", low=0),
    "train.mask_lr_mult": Key(1.0, "[DPM] factor on the learning rate of the mask generator", low=0),
    "train.amp": Key("off", "[DPM] mixed precision of loss dpm; auto: float16 on a GPU, off on a CPU", AMP),
    "train.sync_bn": Key(False, "[DPM] BatchNorm over the batches of all processes that torchrun started"),
    "train.steps": Key(
        "alternating",
        "[DPM] loss dpm: the two steps of section 4.1; simultaneous: one pass updates the mask generator and the rest",
        ("alternating", "simultaneous"),
    ),
    "train.accumulate": Key(
        1, "[DPM] loss dpm: micro-batches of the encoder; saves memory for a second forward pass, same result", low=1
    ),
    "train.compile": Key(False, "[DPM] loss dpm: torch.compile for encoder and heads in training"),
    "train.conv_layout": Key(
        "auto",
        "[DPM] loss dpm: memory format of the convolutions; auto: the faster one for the width and the device",
        ("auto", "channels_last", "contiguous"),
    ),
    "train.grad_checkpointing": Key(
        False,
        "[DPM] loss dpm: blocks run again in the backward pass and keep no activations; saves memory, same result",
    ),
    "train.optim_form": Key(
        "auto",
        "[DPM] kernels of the optimizer, equal up to rounding; auto: fused on a GPU and for large models where there "
        "is a right one, else torch's own choice",
        ("auto", "loop", "foreach", "fused"),
    ),
    "sgd.momentum": Key(0.9, "momentum of sgd and rmsprop", low=0),
    "sgd.dampening": Key(0.0, "dampening of the momentum", low=0),
    "sgd.nesterov": Key(False, "Nesterov momentum"),
    "rmsprop.alpha": Key(0.99, "smoothing constant", low=0),
    "adam.beta1": Key(0.9, "decay of the first moment", low=0, high=1),
    "adam.beta2": Key(0.999, "decay of the second moment", low=0, high=1),
}

LOSS = {
    "loss.name": Key("softmax", "training loss; [DPM] adds dpm (Eq. 8)", ("softmax", "triplet", "dpm")),
    "loss.softmax.label_smooth": Key(True, "label smoothing of losses softmax and triplet"),
    "loss.triplet.margin": Key(0.3, "distance margin of loss triplet"),
    "loss.triplet.weight_t": Key(1.0, "weight of the triplet term", low=0),
    "loss.triplet.weight_x": Key(0.0, "weight of the cross-entropy term", low=0),
    "loss.dpm.alpha": Key(0.5, "[DPM] weight alpha of Eq. 8", low=0, high=1),
    "loss.dpm.beta": Key(0.1, "[DPM] weight beta of the head enrich loss (Eq. 8)", low=0),
    "loss.dpm.cls": Key("softmax", "[DPM] loss of the plain head (Table 4)", ("softmax", "margin")),
    "loss.dpm.mask": Key("margin", "[DPM] loss of the masked head (Eq. 7, Table 4)", ("softmax", "margin")),
    "loss.dpm.mask_variant": Key(
        "Pn",
        "[DPM] what the mask multiplies: prototypes P, also features F; n: normalised before (Eq. 4, Table 5)",
        ("Pn", "Pn+Fn", "P", "P+F"),
    ),
    "loss.dpm.mask_renormalise": Key(True, "[DPM] normalise again after the mask (released recipe)"),
    "loss.dpm.scale": Key(30.0, "[DPM] scale s of Eq. 7 (section 4.1)", low=0),
    "loss.dpm.margin": Key(0.5, "[DPM] angular margin m of Eq. 7, in radians (section 4.1)", low=0),
    "loss.dpm.head_input": Key(
        "attention",
        "[DPM] input of the head enrich loss: after the softmax (Eq. 5), or logits before it (released)",
        ("attention", "logits"),
    ),
    "loss.dpm.head_reduction": Key("mean", "[DPM] size of Eq. 6: batch mean, or sum / heads^2", ("mean", "released")),
    "loss.dpm.label_smooth": Key(0.0, "[DPM] label smoothing of both heads", low=0, high=1),
    "loss.dpm.triplet_margin": Key(
        None, "[DPM] triplet margin; None: soft margin (released)", low=0, kind="float or None"
    ),
}

TEST = {
    "test.batch_size": Key(100, "images per test batch", low=1),
    "test.dist_metric": Key(
        "euclidean", "distance for torchreid's models; the plugin's rows: cosine", ("euclidean", "cosine")
    ),
    "test.normalize_feature": Key(False, "L2-normalise features first (torchreid's models)"),
    "test.ranks": Key([1, 5, 10, 20], "CMC ranks to print", low=1),
    "test.evaluate": Key(False, "evaluate only, train nothing"),
    "test.eval_freq": Key(-1, "epochs between evaluations; -1 evaluates after training only"),
    "test.start_eval": Key(0, "first epoch that may be evaluated", low=0),
    "test.rerank": Key(False, "k-reciprocal re-ranking (needs test.evaluate True)"),
    "test.visrank": Key(False, "draw ranked galleries (needs test.evaluate True)"),
    "test.visrank_topk": Key(10, "gallery images per drawn query", low=1),
    "test.feature": Key("after", "[DPM] headline row: feature before or after the neck", ("after", "before")),
    "test.mask": Key(True, "[DPM] headline row: apply the query's mask to the gallery"),
    "test.cameras": Key(
        "auto",
        "[DPM] camera ids at test: auto (true ids where the target was trained on), ids, none (neutral embedding), or "
        "[query, gallery] indices for all images",
        ("auto", "ids", "none"),
        low=0,
        kind="str or pair",
    ),
}

DEVICE = {
    "use_gpu": Key(True, "use the GPU where there is one"),
    "dist.timeout": Key(
        30.0,
        "[DPM] minutes that a process of torchrun waits for another; raise it where rank 0 draws or ranks for longer",
        low=0.01,
    ),
}

SCHEMA = {**MODEL, **DATA, **SYNTHETIC, **SAMPLER, **VIT, **TRAIN, **LOSS, **TEST, **DEVICE}
