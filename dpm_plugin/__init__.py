"""DPM (Dynamic Prototype Mask) for torchreid."""
