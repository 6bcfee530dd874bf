"""What a training leaves to be read: a line of figures for each step, and a page with curves and pictures."""
