"""Tables, plots and pages from finished results, without loading models."""
