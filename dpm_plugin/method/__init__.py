"""The paper: Dynamic Prototype Mask for Occluded Person Re-Identification (Tan et al., ACM Multimedia 2022).

One batch of B images of K identities, C channels, N heads, P patches of an h x w grid:

    images (B, 3, H, W)
      vit.py             Eq. 1, 2   overlapping patches, camera embedding: class token (B, C), patch maps of blocks
                                    2, 4, 10, 12, each (B, C, h, w); Eq. 5: head logits of the last block (B, N, P)
      mask_generator.py  Eq. 3      patch maps -> mask (B, C) in (0, 1): the Hierarchical Mask Generator (HMG)
      part_features.py   beyond it  features of K horizontal stripes; embedding, W and mask are then (., C + K * P)
      model.py                      class token -> BN neck -> embedding (B, C); W (K, C), one prototype an identity
      masked_cosine.py   Eq. 4      cos(embedding, mask * W) as matrix products (B, K)
      masked_arcface.py  Eq. 7      an angular margin on it: masked ArcFace
      head_enrich.py     Eq. 5, 6   head logits -> loss that pushes the heads apart: the Head Enrich Module (HEM)
      losses.py          Eq. 8      all losses together, with the triplet loss
      two_steps.py       sec. 4.1   freeze HMG and update the rest, then freeze the rest and update HMG
      recipe.py          sec. 4.1   SGD, the learning rates of the parts and of biases, warm-up and cosine
      retrieval.py       sec. 4.1   distances of Q queries and G gallery images under each query's mask (Q, G)

Nothing here knows of files, data sets, processes or torchreid: the imports are torch, timm and ``dpm_plugin.utils``.
"""
