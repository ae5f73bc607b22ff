"""Sphinx's settings of the site; `python -m experiments.tools.site` hands over what may change."""

import os

project = "jattn"
author = "The jattn authors"
copyright = author
release = os.environ["JATTN_VERSION"]
repository = os.environ["JATTN_REPOSITORY"]

extensions = ["myst_nb", "sphinx_design"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
# Notebooks run before Sphinx sees them, in processes that end with them.
nb_execution_mode = "off"
nb_merge_streams = True
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
# Types of other libraries and jaxtyping's shapes are shown, not linked.
nitpicky = False
highlight_options = {"default": {"stripall": False}}

html_theme = "sphinx_book_theme"
html_title = "jattn"
html_static_path = ["_static"]
html_css_files = ["jattn.css"]
html_js_files = ["grid.js"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "repository_url": repository,
    "use_repository_button": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "home_page_in_toc": False,
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}
