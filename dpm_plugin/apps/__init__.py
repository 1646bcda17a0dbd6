"""What the commands do: search, visualisation, data checks, conversions, comparisons."""
