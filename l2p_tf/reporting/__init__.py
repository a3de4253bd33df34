"""Tables, plots and pages from finished results; models are never loaded here."""
