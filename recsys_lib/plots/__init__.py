"""Figures: matplotlib and seaborn for those that are kept, plotly for those to look at."""
