"""What every part needs and nothing of re-identification: errors, files, command lines, devices, images, words."""
