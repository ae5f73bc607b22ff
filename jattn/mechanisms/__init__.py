"""Published mechanisms, a file each, in a folder for each family; `zoo` lists them all."""
