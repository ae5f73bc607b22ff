"""The site: pages of docs/, one for each mechanism and module, the notebooks and the playground.

python -m experiments.tools.site               writes build/site and has Sphinx make site/ of it
python -m experiments.tools.site --notebooks   runs the notebooks of colab/, too (minutes)
python -m experiments.tools.site --runs=runs   with the gallery of finished experiments

Warnings of Sphinx are errors. Nothing of what it writes is committed.
"""
