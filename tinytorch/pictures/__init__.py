"""Looking at it: the graph that autograd recorded, training runs, attention, states, decision boundaries, images.

Read in this order: `recording` (what the tape knows, and how a large graph is folded into few boxes), `layout` (where
boxes and arrows go), `graph` (the drawing), `plots` (everything that matplotlib draws).
"""

from .graph import GraphPicture, draw_graph
from .plots import plot_attention, plot_decision_boundary, plot_loss, plot_states, show_images
