"""What `make lab` sets in JupyterLab: it asks no other machine for anything, and looks as meant."""

from pathlib import Path

c = get_config()  # noqa: F821 (Jupyter runs this file)

# No news, no search for a newer version, no list of extensions to install.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"

# The style sheet beside this file, which Lab looks for in the reader's own settings otherwise.
c.LabApp.custom_css = True
c.ServerApp.tornado_settings = {"static_custom_path": [str(Path(__file__).parent)]}
