"""CMC and mAP by walking every ranked list; the tests' oracle."""

import numpy as np


def loop_metric(
    distmat: np.ndarray,
    q_pids: np.ndarray,
    g_pids: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
    max_rank: int,
) -> tuple[np.ndarray, float]:
    """CMC, (max_rank,), and mAP; ties in gallery order."""
    cmcs, precisions = [], []
    for row, pid, camid in zip(distmat, q_pids, q_camids):
        found, seen, precision, cmc = 0, 0, [], []
        for j in sorted(range(len(row)), key=lambda j: (row[j], j)):
            if g_pids[j] == pid and g_camids[j] == camid:
                continue
            seen += 1
            if g_pids[j] == pid:
                found += 1
                precision.append(found / seen)
            cmc.append(float(found > 0))
        if found:
            cmcs.append((cmc + [1.0] * max_rank)[:max_rank])
            precisions.append(sum(precision) / found)
    return np.mean(cmcs, axis=0), np.mean(precisions)
