"""The families of the zoo: one file each, a table of configurations over shared layers."""
