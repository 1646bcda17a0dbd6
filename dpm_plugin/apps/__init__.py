"""What the commands of tools/ do: search pages, visualisation, data checks, conversions."""
