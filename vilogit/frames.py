"""Figures as pictures in a page, and pictures in a row as flip books (chapter 4)."""

import base64
import html
import io
from collections.abc import Callable, Iterable

import numpy as np

try:
    import ipywidgets
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure, FigureBase
    from PIL import Image
except ImportError as error:
    needs = 'Matplotlib and ipywidgets: pip install "vilogit[plot]"'
    raise ImportError(f"flipbook and picture need {needs}") from error


def flipbook(
    draw: Callable[[object], Figure | Axes], steps: Iterable, *, describe: Callable[[object], str]
) -> ipywidgets.Widget:
    """Draw one frame a step and put a slider and a play button under them.

    The frames are drawn now, so that the slider moves on a static page with no kernel. The axes
    of all stand where the layout of the first puts them.

    Parameters
    ----------
    draw : callable
        From a step to a figure, or to axes on it. The figure is closed after it is stored.
    steps : iterable
        What the slider runs over; at least one. The first is shown at the start.
    describe : callable
        From a step to what its frame shows, in words: the text for those who do not see it.

    Returns
    -------
    ipywidgets.Widget
        The frames above their controls.

    Raises
    ------
    TypeError
        If `draw` returns neither a figure nor axes, or `describe` no string.
    ValueError
        If there are no steps.
    """
    steps = list(steps)
    if not steps:
        raise ValueError("steps is empty; expected at least one frame")
    frames, places = list[ipywidgets.HTML](), list[object]()
    for step in steps:
        figure = _figure(draw(step), "draw must return")
        # Every frame has the places of the first: nothing jumps, and they are worked out once.
        if len(places) == len(figure.axes):
            figure.set_layout_engine("none")
            for panel, place in zip(figure.axes, places, strict=True):
                panel.set_position(place, which="original")
        else:
            figure.draw_without_rendering()
            places = [panel.get_position(original=True) for panel in figure.axes]
        frames.append(
            ipywidgets.HTML(picture(figure, _words(describe(step), "describe must return")))
        )
    stack = ipywidgets.Stack(frames, selected_index=0)
    play = ipywidgets.Play(min=0, max=len(frames) - 1, interval=400, show_repeat=False)
    slider = ipywidgets.IntSlider(min=0, max=len(frames) - 1, readout=False, description="frame")
    slider.layout.width = "60%"
    ipywidgets.jslink((play, "value"), (slider, "value"))
    ipywidgets.jslink((slider, "value"), (stack, "selected_index"))
    return ipywidgets.VBox([stack, ipywidgets.HBox([play, slider])])


def picture(figure: Figure | Axes, alt: str) -> str:
    """Turn a figure into HTML: an ``<img>`` that holds it, in 256 colours, a quarter of a PNG.

    As the value of an ``ipywidgets.HTML`` it is a picture that a control can replace.

    Parameters
    ----------
    figure : matplotlib.figure.Figure or matplotlib.axes.Axes
        Closed when it is stored; of axes, the figure that they are on.
    alt : str
        What it shows, in words: the text for those who do not see it.

    Returns
    -------
    str
        The tag, with the picture as data in it.

    Raises
    ------
    TypeError
        If `figure` is neither a figure nor axes, or `alt` is no string.
    """
    figure, alt = _figure(figure, "figure must be"), _words(alt, "alt must be")
    figure.set(dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    plt.close(figure)
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    # An octree keeps both the smooth maps and the few pixels of a point near their colour.
    colours = drawn.quantize(256, method=Image.Quantize.FASTOCTREE)
    packed = io.BytesIO()
    colours.convert("RGB").save(packed, format="webp", lossless=True, quality=100, method=4)
    data = base64.b64encode(packed.getvalue()).decode()
    width, height = colours.size
    # Are the colours data, not ink? Then a page's dark mode leaves them alone.
    mapped = {i.get_array().ndim for panel in figure.axes for i in panel.images} == {3}
    return (
        f'<img alt="{html.escape(alt)}" class="{"class-map" * mapped}" '
        f'width="{width}" height="{height}" style="max-width:100%;height:auto" '
        f'src="data:image/webp;base64,{data}">'
    )


def _figure(drawn: object, what: str) -> Figure:
    """Return the figure that was drawn, or on which there are the axes or part that were."""
    if not isinstance(drawn, FigureBase | Axes):
        raise TypeError(f"{what} a figure or axes, not {type(drawn).__name__}")
    return drawn.figure.figure  # of axes in a part of a figure the part, and then the whole


def _words(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} a string, not {type(text).__name__}")
    return text
