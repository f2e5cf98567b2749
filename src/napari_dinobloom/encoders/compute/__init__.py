"""Forward passes: on the cores of a CPU, on a graphics card, or on several devices with one process each."""
