"""From images to numbers: extraction, distances, CMC and mAP, re-ranking, search in large galleries, results.json."""
