"""Figures of alignment: by layer, over training, among other directions, at equal loss, under other specifications."""
