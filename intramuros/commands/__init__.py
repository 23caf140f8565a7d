"""The commands of the shell, a file each; every one adds itself to the parser with `add`."""
