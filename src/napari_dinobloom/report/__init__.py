"""Reports: the differential count with its uncertainty, and the HTML file that shows every cell behind it."""
