"""From images to INT8: collect ranges, decide thresholds, insert Q/DQ."""
