"""An explanation of a trace as pages: on a terminal, as Markdown with a picture, and as one HTML file."""
