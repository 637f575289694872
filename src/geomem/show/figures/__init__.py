r"""Pictures in matplotlib, each a function of numbers and the axes to draw on."""
