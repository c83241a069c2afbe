"""One run of the sequence on one data set: steps, execution, results, report, tracking."""
