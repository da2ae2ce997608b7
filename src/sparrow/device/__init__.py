"""Build for a device and run on it: the only modules with files, compilers and clocks."""
