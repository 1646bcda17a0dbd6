"""Files, messages, images and devices: what every other part may use."""
